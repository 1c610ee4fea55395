//! What S3 servers, and what stands between, get wrong in HTTP: a server that answers each request
//! by a function of its head.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use tapline::store::retry::{PatientStore, RetryPolicy};
use tapline::store::s3::{AccessKey, KeySource, S3Settings, S3Store, Timeouts};
use tapline::store::{
    Checksum, ChecksumKind, ErrorKind, PartBody, PartReceipt, Store, Upload, get_small, objects,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) path: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

pub(super) struct Server {
    pub(super) address: String,
    log: Arc<Mutex<Vec<Asked>>>,
    _serving: AbortOnDropHandle<()>,
}

impl Server {
    /// Answers what `answer` says; bodies are read at `rate` bytes per second, all at once when 0.
    pub(super) async fn start(
        rate: usize,
        answer: impl Fn(&Asked) -> String + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (answer, log) = (Arc::new(answer), Arc::<Mutex<Vec<Asked>>>::default());
        let kept = log.clone();
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (answer, log) = (answer.clone(), kept.clone());
                tokio::spawn(async move { serve(socket, rate, &*answer, &log).await });
            }
        });
        Self {
            address,
            log,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    pub(super) fn settings(&self) -> S3Settings {
        S3Settings {
            endpoint: Some(format!("http://{}", self.address)),
            region: Some("us-east-1".into()),
            ..S3Settings::new("bucket")
        }
    }

    pub(super) async fn store(&self) -> S3Store {
        S3Store::open(&self.settings(), Some(Arc::new(Fixed)))
            .await
            .unwrap()
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.log.lock().unwrap().clone()
    }
}

async fn serve(
    socket: TcpStream,
    rate: usize,
    answer: &(dyn Fn(&Asked) -> String + Send + Sync),
    log: &Mutex<Vec<Asked>>,
) -> Option<()> {
    let mut socket = BufReader::with_capacity(4096, socket);
    loop {
        let mut line = String::new();
        match socket.read_line(&mut line).await {
            Ok(0) => return None,
            Ok(_) => {}
            // What a server says to a client that speaks TLS.
            Err(_) => {
                return socket
                    .get_mut()
                    .write_all(reply(400, "", "").as_bytes())
                    .await
                    .ok();
            }
        }
        let mut words = line.split(' ').map(str::to_owned);
        let mut asked = Asked {
            method: words.next()?,
            path: words.next()?,
            headers: HashMap::new(),
            body: Vec::new(),
        };
        loop {
            let mut line = String::new();
            socket.read_line(&mut line).await.ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            asked.headers.insert(name.to_lowercase(), value.to_owned());
        }
        if asked.header("expect") == "100-continue" {
            let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
            socket.get_mut().write_all(go_on).await.ok()?;
        }
        let mut left: usize = asked.header("content-length").parse().unwrap_or(0);
        let mut buffer = vec![0; 16 << 10];
        while left > 0 {
            let count = socket.read(&mut buffer[..left.min(16 << 10)]).await.ok()?;
            left -= count;
            asked.body.extend_from_slice(&buffer[..count]);
            if count == 0 {
                return None;
            }
            if rate > 0 {
                let micros = count as u64 * 1_000_000 / rate as u64;
                tokio::time::sleep(Duration::from_micros(micros)).await;
            }
        }
        let text = answer(&asked);
        log.lock().unwrap().push(asked);
        socket.get_mut().write_all(text.as_bytes()).await.ok()?;
        if text.contains("Connection: close") {
            return None;
        }
    }
}

/// A reply with these header lines and this body.
pub(super) fn reply(status: u16, headers: &str, body: &str) -> String {
    let length = body.len();
    let separator = if headers.is_empty() { "" } else { "\r\n" };
    format!("HTTP/1.1 {status} X\r\nContent-Length: {length}{separator}{headers}\r\n\r\n{body}")
}

pub(super) fn error(status: u16, code: &str) -> String {
    reply(
        status,
        "",
        &format!("<Error><Code>{code}</Code><Message>so it is</Message></Error>"),
    )
}

#[derive(Debug)]
pub(super) struct Fixed;

#[async_trait::async_trait]
impl KeySource for Fixed {
    async fn access_key(&self) -> Result<AccessKey, String> {
        Ok(AccessKey {
            id: "id".to_owned().into(),
            secret: "secret".to_owned().into(),
            session: None,
        })
    }
}

pub(super) fn upload() -> Upload {
    Upload {
        key: "x/archive".into(),
        id: "u".into(),
        backup_id: "b".into(),
        ..Upload::default()
    }
}

fn part() -> PartReceipt {
    PartReceipt {
        number: 1,
        size: 5,
        etag: "\"e\"".into(),
        checksum: Some(Checksum::of(ChecksumKind::Crc64Nvme, b"bytes")),
    }
}

pub(super) fn patient(store: S3Store, time: Duration) -> PatientStore {
    let policy = RetryPolicy {
        for_at_most: time,
        first: Duration::from_millis(5),
        longest: Duration::from_millis(50),
    };
    PatientStore::new(Arc::new(store), policy, Arc::new(|| ()))
}

const DONE: &str = "<CompleteMultipartUploadResult><Key>archive</Key><ETag>\"e\"</ETag></CompleteMultipartUploadResult>";

/// A part that took longer than the read timeout was cut and begun again for ever.
#[tokio::test]
async fn a_part_may_take_as_long_as_its_bytes_move() {
    let server = Server::start(1 << 20, |_| reply(200, "ETag: \"e\"", "")).await;
    let settings = S3Settings {
        timeouts: Timeouts {
            stall: Duration::from_secs(5),
            ..Timeouts::default()
        },
        ..server.settings()
    };
    let store = S3Store::open(&settings, Some(Arc::new(Fixed)))
        .await
        .unwrap();
    // The sockets take the first megabytes at once; the rest moves at 1 MiB/s.
    let body: PartBody = bytes::Bytes::from(vec![7; 12 << 20]).into();
    let start = Instant::now();
    store.put_part(&upload(), 1, body, None).await.unwrap();
    assert!(
        start.elapsed() > Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_body_that_nobody_takes_ends_the_try() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = S3Settings {
        endpoint: Some(format!("http://{}", listener.local_addr().unwrap())),
        region: Some("us-east-1".into()),
        timeouts: Timeouts {
            stall: Duration::from_secs(1),
            reply: Duration::from_secs(1),
            small: Duration::from_secs(1),
            ..Timeouts::default()
        },
        ..S3Settings::new("bucket")
    };
    let store = S3Store::open(&settings, Some(Arc::new(Fixed)))
        .await
        .unwrap();
    for length in [32 << 20, 10] {
        let body: PartBody = bytes::Bytes::from(vec![7; length]).into();
        let start = Instant::now();
        let failed = store.put_part(&upload(), 1, body, None).await.unwrap_err();
        assert!(failed.may_pass() && failed.unanswered(), "{failed}");
        assert!(start.elapsed() < Duration::from_secs(20), "{failed}");
    }
    let failed = store.head("x").await.unwrap_err();
    assert!(
        failed.to_string().contains("no reply within 1 s"),
        "{failed}"
    );
}

#[tokio::test]
async fn a_completion_is_believed_only_when_the_reply_is_one() {
    let checksum = Some(Checksum::of(ChecksumKind::Crc64Nvme, b"bytes"));
    let wrong = Checksum::of(ChecksumKind::Crc64Nvme, b"other").to_base64();
    let ceph = DONE.replace("\"e\"", "");
    let wrong = DONE.replace(
        "</Key>",
        &format!("</Key><ChecksumCRC64NVME>{wrong}</ChecksumCRC64NVME>"),
    );
    for (body, good) in [
        (DONE, true),
        (&*ceph, true),
        ("", false),
        ("<html><body>Please sign in</body></html>", false),
        ("<CompleteMultipartUploadResult/>", false),
        (
            "<Error><Code>InternalError</Code><Message>x</Message></Error>",
            false,
        ),
        (&*wrong, false),
    ] {
        let text = reply(200, "", body);
        let server = Server::start(0, move |_| text.clone()).await;
        let store = server.store().await;
        let done = store.complete_upload(&upload(), &[part()], checksum).await;
        assert_eq!(done.is_ok(), good, "{body} {done:?}");
        let asked = &server.asked()[0];
        assert_eq!(asked.header("x-amz-checksum-type"), "FULL_OBJECT");
        assert_eq!(asked.header("if-none-match"), "*");
        if let Err(error) = done {
            assert!(error.unanswered(), "{error}");
            assert!(
                error.to_string().contains("s3://bucket at http://"),
                "{error}"
            );
        }
        // A type without a value is nonsense.
        let _ = store.complete_upload(&upload(), &[part()], None).await;
        assert_eq!(server.asked()[1].header("x-amz-checksum-type"), "");
    }
}

#[tokio::test]
async fn a_put_is_believed_only_with_an_entity_tag_and_carries_what_the_store_is_told() {
    for (headers, good) in [("ETag: \"e\"", true), ("ETag: ", false), ("", false)] {
        let text = reply(200, headers, "");
        let server = Server::start(0, move |_| text.clone()).await;
        let settings = S3Settings {
            sse: Some("aws:kms:key-1".into()),
            storage_class: Some("STANDARD_IA".into()),
            ..server.settings()
        };
        let store = S3Store::open(&settings, Some(Arc::new(Fixed)))
            .await
            .unwrap();
        let put = store.put("m", "manifest".into()).await;
        assert_eq!(put.is_ok(), good, "{put:?}");
        let asked = &server.asked()[0];
        for (name, value) in [
            ("x-amz-server-side-encryption", "aws:kms"),
            ("x-amz-server-side-encryption-aws-kms-key-id", "key-1"),
            ("x-amz-storage-class", "STANDARD_IA"),
            ("if-none-match", "*"),
        ] {
            assert_eq!(asked.header(name), value);
        }
        assert_eq!(asked.body, b"manifest");
    }
}

/// Backblaze B2 has no conditional writes.
#[tokio::test]
async fn a_server_without_conditions_is_asked_without_from_then_on() {
    let server = Server::start(0, |asked| {
        if asked.header("if-none-match") == "*" {
            return error(501, "NotImplemented");
        }
        match asked.method.as_str() {
            "POST" => reply(200, "", DONE),
            _ => reply(200, "ETag: \"e\"", ""),
        }
    })
    .await;
    let store = server.store().await;
    store
        .complete_upload(&upload(), &[part()], None)
        .await
        .unwrap();
    store.put("m", "manifest".into()).await.unwrap();
    let conditions = server.asked();
    let conditions: Vec<_> = conditions
        .iter()
        .map(|asked| asked.header("if-none-match"))
        .collect();
    assert_eq!(conditions, ["*", "", ""]);
}

/// s3rver can end no upload: `check` warns, and backups work.
#[tokio::test]
async fn a_method_that_is_not_allowed_is_one_that_the_server_does_not_have() {
    let server = Server::start(0, |_| error(405, "MethodNotAllowed")).await;
    let refused = server.store().await.abort_upload(&upload()).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert!(!refused.may_pass(), "{refused}");
}

/// Backblaze B2 and others refuse the headers of the checksums that AWS added later.
#[tokio::test]
async fn a_server_without_the_newer_checksums_gets_an_md5_to_check() {
    let server = Server::start(0, |asked| {
        let newer = |name: &&String| {
            name.starts_with("x-amz-checksum") || *name == "x-amz-sdk-checksum-algorithm"
        };
        match (asked.headers.keys().find(newer), asked.method.as_str()) {
            (Some(_), "HEAD") => reply(400, "", ""),
            (Some(name), _) => {
                let words = format!("Unsupported header '{name}' received for this API call.");
                let body = format!(
                    "<Error><Code>InvalidArgument</Code><Message>{words}</Message></Error>"
                );
                reply(400, "", &body)
            }
            (None, "POST") => reply(200, "", DONE),
            (None, "HEAD") => "HTTP/1.1 200 X\r\nContent-Length: 5\r\nETag: \"e\"\r\n\r\n".into(),
            (None, _) => reply(200, "ETag: \"e\"", ""),
        }
    })
    .await;
    // Two at once are both refused, and both sent again.
    let store = server.store().await;
    let upload = upload();
    let sent = Checksum::of(ChecksumKind::Crc64Nvme, b"bytes");
    let put = |number| {
        let body: PartBody = bytes::Bytes::from_static(b"bytes").into();
        store.put_part(&upload, number, body, Some(sent))
    };
    let (one, two) = tokio::join!(put(1), put(2));
    let parts = [one.unwrap(), two.unwrap()];
    let done = store.complete_upload(&upload, &parts, Some(sent.then(sent, 5)));
    assert_eq!(done.await.unwrap().checksum, None);
    let note = store.put("m", "bytes".into()).await.unwrap();
    assert_eq!(note.checksum, None, "what was not sent is not stored");
    let tried = server.asked().len();
    assert_eq!(tried, 6);
    for asked in server.asked().iter().filter(|asked| asked.method == "PUT") {
        let newer = asked.headers.contains_key("x-amz-checksum-crc64nvme");
        let md5 = if newer {
            ""
        } else {
            "SzpiGLs+OnMD6KFxpg/Pkg=="
        };
        assert_eq!(asked.header("content-md5"), md5);
    }
    // A HEAD's refusal has no words.
    let fresh = server.store().await;
    assert_eq!(fresh.head("m").await.unwrap().unwrap().size, 5);
    assert_eq!(fresh.head("m").await.unwrap().unwrap().checksum, None);
    assert_eq!(server.asked().len(), tried + 3);
}

#[tokio::test]
async fn replies_whose_root_is_called_otherwise_are_understood() {
    let server = Server::start(0, |asked| match asked.method.as_str() {
        "POST" => reply(
            200,
            "",
            "<InitiateMultipartUpload><UploadId>u-1</UploadId></InitiateMultipartUpload>",
        ),
        _ => reply(
            200,
            "",
            "<ListPartsResponse><Part><PartNumber>1</PartNumber><Size>7</Size></Part></ListPartsResponse>",
        ),
    })
    .await;
    let store = server.store().await;
    assert!(!store.limits().in_order);
    assert_eq!(store.create_upload("x", "id").await.unwrap().id, "u-1");
    assert!(store.limits().in_order, "the reply is rclone's");
    let info = store.upload_info("x", "u-1").await.unwrap();
    assert_eq!((info.parts, info.size), (1, 7));
}

/// Small servers pass over what they do not know in a query.
#[tokio::test]
async fn a_list_of_objects_where_uploads_were_asked_for_is_of_a_server_without_such_a_list() {
    let listing = "<?xml version=\"1.0\"?><ListBucketResult><Name>bucket</Name><KeyCount>0</KeyCount>\
                   <IsTruncated>false</IsTruncated></ListBucketResult>";
    let server = Server::start(0, move |_| reply(200, "", listing)).await;
    let store = server.store().await;
    let refused = store.list_uploads("", None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
    assert!(!refused.may_pass() && refused.to_string().contains("lists objects, not uploads"));
    assert!(store.list("", None).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn an_endpoint_may_have_a_path() {
    for endpoint in ["storage/v1/s3", "storage/v1/s3/"] {
        let server = Server::start(0, |_| reply(200, "ETag: \"e\"", "")).await;
        let settings = S3Settings {
            endpoint: Some(format!("http://{}/{endpoint}", server.address)),
            ..server.settings()
        };
        let store = S3Store::open(&settings, Some(Arc::new(Fixed)))
            .await
            .unwrap();
        store.put("m", "x".into()).await.unwrap();
        let path = &server.asked()[0].path;
        assert!(path.starts_with("/storage/v1/s3/bucket/m"), "{path}");
    }
}

#[tokio::test]
async fn a_listing_ends_or_fails() {
    let page = |more: &str| {
        format!(
            "<ListBucketResult><IsTruncated>true</IsTruncated>{more}\
             <Contents><Key>a</Key><Size>1</Size></Contents></ListBucketResult>"
        )
    };
    for (more, words) in [
        (
            "<NextContinuationToken>t</NextContinuationToken>",
            "does not end",
        ),
        ("", "not where"),
    ] {
        let text = reply(200, "", &page(more));
        let server = Server::start(0, move |_| text.clone()).await;
        let store = server.store().await;
        let listed: Result<Vec<_>, _> = objects(&store, "").try_collect().await;
        let error = listed.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(server.asked().len() < 4);
    }
}

#[tokio::test]
async fn a_range_that_is_not_the_one_that_was_asked_for_is_no_reply() {
    for (status, headers, good) in [
        (206, "Content-Range: bytes 3-5/9", true),
        (200, "", false),
        (206, "Content-Range: bytes 0-2/9", false),
        (206, "Content-Range: bytes 3-4/9", false),
        (206, "Content-Range: nonsense", false),
    ] {
        let text = reply(status, headers, "abc");
        let server = Server::start(0, move |_| text.clone()).await;
        let got = server.store().await.get("x", Some(3..6)).await;
        assert_eq!(got.is_ok(), good, "{status} {headers}");
    }
}

#[tokio::test]
async fn a_small_object_is_read_again_when_its_connection_breaks() {
    let tries = Mutex::new(0);
    let server = Server::start(0, move |_| {
        let mut tries = tries.lock().unwrap();
        *tries += 1;
        match *tries {
            1 => error(500, "InternalError"),
            2 => "HTTP/1.1 200 X\r\nContent-Length: 8\r\nETag: \"e\"\r\nConnection: close\r\n\r\nmani".into(),
            _ => reply(200, "ETag: \"e\"", "manifest"),
        }
    })
    .await;
    let store = patient(server.store().await, Duration::from_secs(5));
    assert_eq!(get_small(&store, "m", 100).await.unwrap(), "manifest");
}

/// A session that expires: the keys are asked for again, and the dump goes on.
#[tokio::test]
async fn refused_keys_are_asked_for_again_once_the_store_has_accepted_some() {
    #[derive(Debug, Default)]
    struct Rotating(Mutex<u32>);
    #[async_trait::async_trait]
    impl KeySource for Rotating {
        async fn access_key(&self) -> Result<AccessKey, String> {
            let mut times = self.0.lock().unwrap();
            *times += 1;
            // A provider that fails once is asked again, too.
            if *times == 2 {
                return Err("the metadata service hiccups".into());
            }
            Ok(AccessKey {
                id: format!("key-{times}").into(),
                secret: "secret".to_owned().into(),
                session: Some("token".to_owned().into()),
            })
        }
    }
    let good = Arc::new(Mutex::new("key-1"));
    let now_good = good.clone();
    let server = Server::start(0, move |asked| {
        let known = asked
            .header("authorization")
            .contains(*now_good.lock().unwrap());
        assert_eq!(asked.header("x-amz-security-token"), "token");
        if known {
            reply(200, "ETag: \"e\"", "")
        } else {
            error(400, "ExpiredToken")
        }
    })
    .await;
    let open = async || {
        let keys = Some(Arc::new(Rotating::default()) as Arc<dyn KeySource>);
        S3Store::open(&server.settings(), keys).await.unwrap()
    };
    let store = patient(open().await, Duration::from_secs(20));
    let put_part = async |store: &dyn Store| {
        let body: PartBody = bytes::Bytes::from("bytes").into();
        store.put_part(&upload(), 1, body, None).await
    };
    put_part(&store).await.unwrap();
    *good.lock().unwrap() = "key-3";
    tokio::time::sleep(Duration::from_millis(2100)).await;
    put_part(&store).await.unwrap();
    // From the beginning it is a wrong setting, and said at once.
    *good.lock().unwrap() = "no key";
    let start = Instant::now();
    let store = patient(open().await, Duration::from_mins(1));
    let refused = put_part(&store).await.unwrap_err();
    assert_eq!((refused.kind(), refused.tries()), (ErrorKind::Denied, 1));
    assert!(start.elapsed() < Duration::from_secs(20));
    assert!(
        refused.to_string().contains("ExpiredToken: so it is"),
        "{refused}"
    );
}

#[tokio::test]
async fn what_no_patience_heals_is_said_at_once() {
    let plain = Server::start(0, |_| reply(200, "", "")).await;
    // A TLS server's alert to what is no TLS.
    let tls = Server::start(0, |_| "\x15\x03\x03\0\x02\x02\x32".into()).await;
    for (endpoint, words) in [
        (format!("http://{}", tls.address), "https:// or http://"),
        (format!("https://{}", plain.address), "https:// or http://"),
        (
            "http://no-such-host.invalid".into(),
            "host in the store's endpoint",
        ),
    ] {
        let settings = S3Settings {
            endpoint: Some(endpoint.clone()),
            ..plain.settings()
        };
        let store = S3Store::open(&settings, Some(Arc::new(Fixed)))
            .await
            .unwrap();
        let start = Instant::now();
        let failed = patient(store, Duration::from_mins(1)).head("x").await;
        let failed = failed.unwrap_err();
        // A resolver that cannot be reached says so, and that may pass.
        if failed.to_string().contains("emporary failure") {
            continue;
        }
        assert_eq!(
            failed.kind(),
            ErrorKind::Unreachable,
            "{endpoint}: {failed}"
        );
        assert!(failed.to_string().contains(words), "{failed}");
        assert!(start.elapsed() < Duration::from_secs(20), "{failed}");
    }
}

#[tokio::test]
async fn the_servers_clock_is_known_from_its_replies() {
    let server = Server::start(0, |_| {
        let date = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(3);
        let date = jiff::fmt::rfc2822::DateTimePrinter::new()
            .timestamp_to_rfc9110_string(&date)
            .unwrap();
        reply(404, &format!("Date: {date}"), "")
    })
    .await;
    let store = server.store().await;
    assert_eq!(store.clock_offset(), None);
    assert_eq!(store.head("x").await.unwrap(), None);
    let offset = store.clock_offset().unwrap();
    assert!((offset - 3 * 3600).abs() <= 2, "{offset}");
}
