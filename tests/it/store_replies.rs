//! What is made of a server's clock, and of what it says when it refuses.

use std::time::Duration;

use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::{SignedDuration, Timestamp};
use tapline::catalog::{BackupId, archive_key};
use tapline::store::{ErrorKind, PartBody, Store, Upload};
use tapline::upkeep::cleanup::plan;

use super::store_http::{Server, error, reply};

/// This host's clock is three hours ahead of the server's: by its own reckoning an upload of a minute
/// ago is three hours old, and of a backup that runs.
#[tokio::test]
async fn ages_are_by_the_stores_clock_and_not_by_this_hosts() {
    for (age, is_left_alone) in [
        (SignedDuration::from_mins(1), true),
        (SignedDuration::from_hours(2), false),
    ] {
        let theirs = Timestamp::now() - SignedDuration::from_hours(3);
        let date = DateTimePrinter::new()
            .timestamp_to_rfc9110_string(&theirs)
            .unwrap();
        let initiated = theirs - age;
        let key = archive_key("x", &BackupId::now(), "tar.gz");
        let server = Server::start(0, move |asked| {
            let body = if asked.path.contains("uploadId=") {
                "<ListPartsResult><IsTruncated>false</IsTruncated></ListPartsResult>".to_owned()
            } else if asked.path.contains("uploads") {
                format!(
                    "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated><Upload><Key>{key}</Key>\
                     <UploadId>u</UploadId><Initiated>{initiated:.0}</Initiated></Upload>\
                     </ListMultipartUploadsResult>"
                )
            } else {
                "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>".to_owned()
            };
            reply(200, &format!("Date: {date}"), &body)
        })
        .await;
        let store = server.store().await;
        let now = Timestamp::now().as_second();
        let plan = plan(&store, Duration::from_hours(1), now).await.unwrap();
        assert_eq!(plan.unread, [""; 0]);
        let found = (plan.young, plan.leftovers.len());
        assert_eq!(
            found,
            if is_left_alone { (1, 0) } else { (0, 1) },
            "{age:?}"
        );
    }
}

#[tokio::test]
async fn a_refusal_names_the_store_its_endpoint_and_what_was_asked() {
    let server = Server::start(0, |_| error(404, "NoSuchBucket")).await;
    let store = server.store().await;
    let upload = Upload {
        key: "x/archive".into(),
        id: "u".into(),
        backup_id: "b".into(),
        ..Upload::default()
    };
    let body: PartBody = bytes::Bytes::from("bytes").into();
    let listed = store.list("", None).await.unwrap_err();
    let sent = store.put_part(&upload, 1, body, None).await.unwrap_err();
    for (refused, operation) in [(listed, "ListObjectsV2"), (sent, "UploadPart of x/archive")] {
        let words = refused.to_string();
        for part in [
            operation,
            "s3://bucket",
            &server.address,
            "NoSuchBucket: so it is",
        ] {
            assert!(words.contains(part), "{part:?} is not in {words:?}");
        }
    }
}

/// What no S3 server says: a web server before it, a page of a proxy's, nothing at all.
#[tokio::test]
async fn a_reply_that_cannot_be_read_is_told_with_its_status_and_its_beginning() {
    let long = format!("<html>{}</html>", "not here ".repeat(10_000));
    for (status, body, told) in [
        (
            400,
            "<html>The plain HTTP request was sent to HTTPS port</html>",
            "sent to HTTPS port",
        ),
        (403, "who are you?", "who are you?"),
        (200, "<html>Please log in</html>", "Please log in"),
        (400, &long, "not here"),
        (400, "", "HTTP 400"),
    ] {
        let text = reply(status, "", body);
        let server = Server::start(0, move |_| text.clone()).await;
        let store = server.store().await;
        let failed = store.list("", None).await.unwrap_err();
        let words = failed.to_string();
        assert!(words.contains(told), "{status} {told:?}: {words}");
        assert!(words.contains("s3://bucket"), "{words}");
        assert!(words.len() < 2_000, "{} bytes of words", words.len());
        assert!(!words.trim_end().ends_with(':'), "{words}");
        let is_known = failed.kind() != ErrorKind::NotFound;
        assert!(
            is_known,
            "a page is no proof that nothing is there: {words}"
        );
    }
}
