//! How fast a store is sent to: no faster than is said, and to as many connections as it bears.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tapline::s3_server::{ACCESS_KEY, Fault, Op, S3Server, SECRET_KEY};
use tapline::store::retry::{PatientStore, RetryPolicy};
use tapline::store::s3::{AccessKey, KeySource, S3Settings, S3Store, Timeouts};
use tapline::store::{PartBody, Store};

use super::world::World;

#[derive(Debug)]
struct Fixed;

#[async_trait::async_trait]
impl KeySource for Fixed {
    async fn access_key(&self) -> Result<AccessKey, String> {
        Ok(AccessKey {
            id: ACCESS_KEY.to_owned().into(),
            secret: SECRET_KEY.to_owned().into(),
            session: None,
        })
    }
}

fn settings(server: &S3Server) -> S3Settings {
    S3Settings {
        endpoint: Some(server.endpoint()),
        region: Some("us-east-1".into()),
        ..S3Settings::new("bucket")
    }
}

async fn open(settings: &S3Settings) -> S3Store {
    let opened = S3Store::open(settings, Some(Arc::new(Fixed))).await;
    opened.unwrap()
}

/// Two dumps of 600 kB that do not compress, at once.
const TWO: &str = "[defaults]\nengine = \"command\"\ncompression = \"none\"\n\
                   command = [\"head\", \"-c\", \"600000\", \"/dev/urandom\"]\n\
                   [databases.a]\n[databases.b]\n";

/// The server takes it at once: what is slow is the pace.
#[test]
fn all_jobs_together_keep_to_the_rate_of_their_store_or_run() {
    let world = World::new("");
    let folder = world.path("disk");
    std::fs::create_dir(&folder).unwrap();
    let disk = format!(
        "[stores.disk]\nurl = \"file://{}\"\nmax_upload_rate = \"500 kB/s\"\n{}",
        folder.display(),
        TWO.replace(
            "[databases.a]\n[databases.b]",
            "store = \"disk\"\n[databases.a]\n[databases.b]"
        )
    );
    for inventory in [
        format!("max_upload_rate = \"500 kB/s\"\n{TWO}"),
        format!("[run]\nmax_upload_rate = 500000\n{TWO}"),
        disk,
    ] {
        world.inventory(&inventory);
        let start = Instant::now();
        assert_eq!(world.run(&["backup"]).code, Some(0), "{inventory}");
        // 1.2 MB; the last piece of a megabyte goes when those before it would be through.
        assert!(
            start.elapsed() > Duration::from_millis(1_100),
            "{inventory}"
        );
        assert_eq!(world.run(&["verify", "--all"]).code, Some(0));
    }
    world.inventory(TWO);
    assert_eq!(world.run(&["backup"]).code, Some(0));
}

#[tokio::test]
async fn a_turn_that_has_not_come_is_no_standstill() {
    let server = S3Server::start(false).await.unwrap();
    let all = Timeouts::all(Duration::from_secs(1));
    let store = open(&S3Settings {
        // A piece of 4 KiB every two seconds.
        max_upload_rate: NonZeroU64::new(2_000),
        timeouts: all,
        ..settings(&server)
    })
    .await;
    let upload = store.create_upload("a", "id").await.unwrap();
    let body: PartBody = bytes::Bytes::from(vec![7; 10_000]).into();
    let start = Instant::now();
    store.put_part(&upload, 1, body, None).await.unwrap();
    assert!(start.elapsed() > Duration::from_secs(3));
    // What is no archive waits for none: it would be a minute.
    let start = Instant::now();
    store.put("note", vec![7; 120_000].into()).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(20));
}

/// Without it each part comes back by itself, to as many others as before: some thousand requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_asks_for_less_gets_less_at_once() {
    const PARTS: u32 = 200;
    let server = S3Server::start(false).await.unwrap();
    server.link().far(Duration::from_millis(20));
    let bears = Fault::SlowDownAbove { at_once: 4 };
    server.faults().on(Op::Part).meets(bears);
    let policy = RetryPolicy {
        for_at_most: Duration::from_mins(1),
        first: Duration::from_millis(5),
        longest: Duration::from_millis(20),
    };
    let store = open(&settings(&server)).await;
    let store = PatientStore::new(Arc::new(store), policy, Arc::new(|| ()));
    let upload = store.create_upload("a", "id").await.unwrap();
    let parts = (1..=PARTS).map(|number| {
        let body: PartBody = bytes::Bytes::from_static(b"part").into();
        store.put_part(&upload, number, body, None)
    });
    for part in join_all(parts).await {
        part.unwrap();
    }
    let asked = server.log().all();
    let sent = asked.iter().filter(|asked| asked.op == Op::Part).count();
    assert!(sent < 1_500, "{sent} requests for {PARTS} parts");
}

#[test]
fn no_more_parts_of_a_backup_are_on_their_way_than_the_stores_connections() {
    for (connections, refused) in [("connections = 2\n", false), ("", true)] {
        let world = World::new(&format!(
            "{connections}[databases.big]\nengine = \"command\"\ncompression = \"none\"\n\
             command = [\"head\", \"-c\", \"{}\", \"/dev/urandom\"]\n",
            80 << 20
        ));
        world.server.link().far(Duration::from_millis(100));
        let bears = Fault::SlowDownAbove { at_once: 2 };
        world.server.faults().on(Op::Part).meets(bears);
        let run = world.run(&["backup"]);
        assert_eq!(run.code, Some(0), "{}", run.words());
        assert_eq!(run.stderr.contains("SlowDown"), refused, "{}", run.words());
    }
}
