//! One conformance suite, over every store.

use std::cell::RefCell;
use std::collections::BTreeSet;

use futures_util::{FutureExt, StreamExt};
use tapline::access::open_stores;
use tapline::config::Inventory;
use tapline::s3_server::{Fault, Op};
use tapline::store::folder::{FolderSettings, FolderStore};
use tapline::store::memory::MemoryStore;
use tapline::store::s3::{S3Settings, S3Store};
use tapline::store::{
    Checksum, ChecksumKind, ErrorKind, Limits, PartBody, Result, Store, StoreError, Upload,
    UploadInfo, get_small, list_all, list_all_uploads,
};

use super::world::World;

const MIB: usize = 1 << 20;

fn is_taken<T>(written: &Result<T>) -> bool {
    let kind = written.as_ref().err().map(StoreError::kind);
    kind == Some(ErrorKind::AlreadyExists)
}

fn body(byte: u8, length: usize) -> (PartBody, Option<Checksum>) {
    let bytes = vec![byte; length];
    let checksum = Checksum::of(ChecksumKind::Crc64Nvme, &bytes);
    let mut body = PartBody::new();
    let bytes = bytes::Bytes::from(bytes);
    body.push(bytes.slice(..length / 3));
    body.push(bytes.slice(length / 3..));
    (body, Some(checksum))
}

/// What not every store does:
///
/// - `metadata`: it says of an object which backup has written it
/// - `checksums`: and which checksum it has
/// - `verifies`: it refuses what its checksum does not fit
/// - `verifies-objects`: also one that is joined from parts; it may only say another checksum
/// - `sizes`: it refuses parts that are too small
/// - `condition-of-parts`, `condition-of-puts`: it writes an object only if none has its key
/// - `any-order`: it takes parts in any order, and one twice
/// - `gaps`: it lists parts page after page also where numbers are missing
/// - `upload-pages`: it lists more than a thousand uploads
/// - `uploads`: it lists uploads at all
struct Known<'a> {
    lacks: &'a [&'a str],
    /// What it is found to lack, where that is to be found out; else it is a failure.
    found: Option<RefCell<BTreeSet<&'static str>>>,
}

impl Known<'_> {
    /// Whether it does this, as far as is known.
    fn keeps(&self, what: &str) -> bool {
        let found = self.found.as_ref();
        !self.lacks.contains(&what) && !found.is_some_and(|found| found.borrow().contains(what))
    }

    /// It should do this, and does or does not.
    fn told(&self, what: &'static str, is_done: bool) {
        match &self.found {
            Some(found) if !is_done => drop(found.borrow_mut().insert(what)),
            _ => assert!(is_done, "{what}"),
        }
    }

    /// The number of open uploads.
    async fn uploads(&self, store: &dyn Store, prefix: &str) -> Option<usize> {
        match list_all_uploads(store, prefix).await {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                self.told("uploads", false);
                None
            }
            listed => Some(listed.unwrap().len()),
        }
    }
}

async fn conforms(store: &dyn Store, lacks: &[&str]) {
    let found = None;
    conforms_as(store, &Known { lacks, found }).await;
}

async fn conforms_as(store: &dyn Store, known: &Known<'_>) {
    let keeps = |what: &str| known.keeps(what);
    // Parts out of order, one of them twice, part 1 last.
    let upload = store
        .create_upload("a/x%20y/archive", "id-1")
        .await
        .unwrap();
    let mut receipts = Vec::new();
    let mut parts = vec![
        (3, b'c', 10),
        (2, b'z', 5 * MIB),
        (2, b'b', 5 * MIB),
        (1, b'a', 5 * MIB),
    ];
    if !keeps("any-order") {
        parts.remove(1);
        parts.reverse();
    }
    for (number, byte, length) in parts {
        let (body, checksum) = body(byte, length);
        receipts.retain(|receipt: &tapline::store::PartReceipt| receipt.number != number);
        receipts.push(
            store
                .put_part(&upload, number, body, checksum)
                .await
                .unwrap(),
        );
    }
    let open = known.uploads(store, "a/").await;
    assert!(open.is_none_or(|open| open == 1));
    let info = store.upload_info(&upload.key, &upload.id).await.unwrap();
    assert_eq!((info.parts, info.size), (3, 10 * MIB as u64 + 10));
    assert!((jiff::Timestamp::now().as_second() - info.newest).abs() < 60);
    let mut parts = receipts;
    parts.sort_by_key(|part| part.number);
    let whole = parts[1..]
        .iter()
        .fold(parts[0].checksum.unwrap(), |whole, part| {
            whole.then(part.checksum.unwrap(), part.size)
        });
    let wrong = Checksum::of(ChecksumKind::Crc64Nvme, b"wrong");
    if keeps("verifies") && keeps("verifies-objects") {
        // Of an upload of its own, which is gone where that is not refused.
        let lie = store.create_upload("a/object-lie", "id-1").await.unwrap();
        let (small, checksum) = body(b'x', 10);
        let part = store.put_part(&lie, 1, small, checksum).await.unwrap();
        let joined = store.complete_upload(&lie, &[part], Some(wrong)).await;
        known.told("verifies-objects", joined.is_err());
        store.abort_upload(&lie).await.unwrap();
        assert!(store.complete_upload(&upload, &[], None).await.is_err());
    }
    assert_eq!(store.head(&upload.key).await.unwrap(), None);
    let object = store
        .complete_upload(&upload, &parts, Some(whole))
        .await
        .unwrap();
    assert!(object.etag.is_none_or(|etag| etag.len() > 2));
    // A file system keeps none, and knows it while it writes.
    assert!(object.checksum.is_none_or(|checksum| checksum == whole));
    let object = store.head(&upload.key).await.unwrap().unwrap();
    if keeps("checksums") {
        known.told("checksums", object.checksum.is_some());
    }
    if keeps("metadata") {
        known.told("metadata", object.backup_id.is_some());
    }
    assert_eq!(
        (object.size, object.backup_id.as_deref(), object.checksum),
        (
            10 * MIB as u64 + 10,
            keeps("metadata").then_some("id-1"),
            object.checksum.filter(|checksum| *checksum == whole)
        )
    );
    assert!((jiff::Timestamp::now().as_second() - object.modified).abs() < 60);

    // A volume that is put whole is as one that came in parts.
    let (whole_body, checksum) = body(b'w', 3000);
    let put = store
        .put_volume("a/whole", "id-5", whole_body.clone(), checksum)
        .await
        .unwrap();
    assert!(put.etag.is_some() && put.checksum == checksum);
    let object = store.head("a/whole").await.unwrap().unwrap();
    let id = keeps("metadata").then_some("id-5");
    assert_eq!((object.size, object.backup_id.as_deref()), (3000, id));
    if keeps("condition-of-puts") {
        let again = store.put_volume("a/whole", "id-6", whole_body.clone(), checksum);
        known.told("condition-of-puts", is_taken(&again.await));
    }
    if keeps("verifies") {
        let lie = store.put_volume("a/lie", "id-7", whole_body, Some(wrong));
        let is_refused = lie.await.is_err() && store.head("a/lie").await.unwrap().is_none();
        known.told("verifies", is_refused);
    }
    assert_eq!(known.uploads(store, "").await.unwrap_or_default(), 0);

    // Ranges.
    let range = 5 * MIB as u64 - 2..5 * MIB as u64 + 3;
    let read: Vec<_> = store
        .get(&upload.key, Some(range))
        .await
        .unwrap()
        .collect()
        .await;
    assert_eq!(
        read.into_iter()
            .flat_map(Result::unwrap)
            .collect::<Vec<u8>>(),
        b"aabbb"
    );

    // A key is taken once, by either way to write.
    let second = store.create_upload(&upload.key, "id-2").await.unwrap();
    let (small, checksum) = body(b'x', 10);
    let part = store.put_part(&second, 1, small, checksum).await.unwrap();
    if keeps("condition-of-parts") {
        let taken = store.complete_upload(&second, &[part], checksum).await;
        known.told("condition-of-parts", is_taken(&taken));
    }
    store.abort_upload(&second).await.unwrap();
    store.abort_upload(&second).await.unwrap();
    assert_eq!(known.uploads(store, "").await.unwrap_or_default(), 0);
    store.put("a/m", "manifest".into()).await.unwrap();
    if keeps("condition-of-puts") {
        let taken = store.put("a/m", "other".into()).await;
        known.told("condition-of-puts", is_taken(&taken));
    }
    assert_eq!(get_small(store, "a/m", 100).await.unwrap(), "manifest");
    assert!(get_small(store, "a/m", 3).await.is_err());
    let Err(gone) = store.get("a/none", None).await else {
        panic!("there is no such object")
    };
    assert_eq!(gone.kind(), ErrorKind::NotFound);

    // A part that is not what its checksum says, and one that is too small to be in the middle.
    let upload = store.create_upload("a/bad", "id-3").await.unwrap();
    if keeps("verifies") {
        let lie = store.put_part(&upload, 1, body(b'x', 10).0, Some(wrong));
        known.told("verifies", lie.await.is_err());
    }
    let mut parts = Vec::new();
    for number in [1, 2] {
        let (small, checksum) = body(b'x', 10);
        parts.push(
            store
                .put_part(&upload, number, small, checksum)
                .await
                .unwrap(),
        );
    }
    if keeps("sizes") {
        let joined = store.complete_upload(&upload, &parts, None).await;
        known.told("sizes", joined.is_err());
    }
    store.abort_upload(&upload).await.unwrap();
    assert!(store.head("a/bad").await.unwrap().is_none() || !keeps("sizes"));

    // More than a page of parts.
    let upload = store.create_upload("a/many", "id-4").await.unwrap();
    // With gaps, where nobody waits for what is missing.
    let step = if keeps("any-order") && keeps("gaps") {
        2
    } else {
        1
    };
    for number in 1..=1005 {
        let (small, checksum) = body(b'x', 3);
        store
            .put_part(&upload, number * step, small, checksum)
            .await
            .unwrap();
    }
    let info = store.upload_info(&upload.key, &upload.id).await.unwrap();
    if step == 2 {
        known.told("gaps", info.parts == 1005);
    }
    assert!((info.parts, info.size) == (1005, 3 * 1005) || !keeps("gaps"));
    store.abort_upload(&upload).await.unwrap();
    assert_eq!(
        store.upload_info(&upload.key, &upload.id).await.unwrap(),
        UploadInfo::default()
    );

    // More than a page of each.
    let uploads = if keeps("upload-pages") { 1005 } else { 20 };
    for n in 0..1005 {
        store.put(&format!("p/{n:04}"), "x".into()).await.unwrap();
    }
    for n in 0..uploads {
        let key = format!("u/{n:04}");
        store.create_upload(&key, "id").await.unwrap();
    }
    let keys: Vec<String> = list_all(store, "p/")
        .await
        .unwrap()
        .into_iter()
        .map(|object| object.key)
        .collect();
    assert_eq!((keys.len(), keys.is_sorted()), (1005, true));
    if let Some(open) = known.uploads(store, "u/").await {
        match open == uploads {
            false if keeps("upload-pages") => known.told("upload-pages", false),
            is_all => assert!(is_all, "{open} of {uploads} uploads"),
        }
    }
    store.delete("p/0000").await.unwrap();
    store.delete("p/0000").await.unwrap();
    assert_eq!(store.head("p/0000").await.unwrap(), None);
}

#[test]
fn the_store_in_memory_conforms() {
    let store = MemoryStore::new(Limits::S3, Some(ChecksumKind::Crc64Nvme));
    conforms(&store, &[])
        .now_or_never()
        .expect("nothing to wait for");
}

#[test]
fn s3_conforms() {
    let world = World::new("[databases.x]\nengine = \"sqlite\"\npath = \"x\"\n");
    let inventory = Inventory::load(&world.path("tapline.toml")).unwrap();
    world.block_on(async {
        conforms(&*open_stores(&inventory).await.unwrap()["s3"].shared(), &[]).await;
    });
}

/// For `tests/interop.sh`: TAPLINE_TEST_S3 is `ENDPOINT/BUCKET`, keys and region are in the AWS
/// environment, and TAPLINE_TEST_S3_LACKS says what the server is known not to do; `?` finds
/// it out and prints it.
#[tokio::test]
#[ignore = "needs a server"]
async fn the_server_that_is_named_conforms() {
    let place = std::env::var("TAPLINE_TEST_S3").expect("TAPLINE_TEST_S3 names no server");
    let (endpoint, bucket) = place.rsplit_once('/').expect("ENDPOINT/BUCKET");
    let lacks = std::env::var("TAPLINE_TEST_S3_LACKS").unwrap_or_default();
    let learns = lacks == "?";
    let lacks: Vec<&str> = lacks.split_whitespace().collect();
    let known = Known {
        lacks: &lacks,
        found: learns.then(RefCell::default),
    };
    let settings = S3Settings {
        endpoint: Some(endpoint.into()),
        prefix: format!("conformance-{:08x}", fastrand::u32(..)),
        ..S3Settings::new(bucket)
    };
    let store = S3Store::open(&settings, None).await.unwrap();
    conforms_as(&store, &known).await;
    if let Some(found) = known.found {
        let found: Vec<_> = found.into_inner().into_iter().collect();
        println!("lacks: {}", found.join(" "));
    }
}

#[tokio::test]
async fn a_folder_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let store = FolderStore::new(FolderSettings::new(folder.path()));
    conforms(&store, &["metadata", "checksums", "sizes"]).await;
    // An upload that is given up leaves no trace.
    for open in list_all_uploads(&store, "").await.unwrap() {
        let upload = Upload {
            key: open.key,
            id: open.id,
            ..Upload::default()
        };
        store.abort_upload(&upload).await.unwrap();
    }
    assert!(!folder.path().join(".tapline").exists());
}

#[test]
fn an_upload_is_aborted_until_no_part_arrives_any_more() {
    let world = World::new("");
    let inventory = Inventory::load(&world.path("tapline.toml")).unwrap();
    world.block_on(async {
        let store = open_stores(&inventory).await.unwrap()["s3"].shared();
        for (in_flight, ends) in [(2, true), (20, false)] {
            let upload = store.create_upload("a", "id").await.unwrap();
            let (small, checksum) = body(b'x', 10);
            store.put_part(&upload, 1, small, checksum).await.unwrap();
            world
                .server
                .faults()
                .on(Op::Abort)
                .times(in_flight)
                .meets(Fault::WithoutEffect);
            assert_eq!(store.abort_upload(&upload).await.is_ok(), ends);
            assert_eq!(world.server.store().open_uploads(), usize::from(!ends));
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_puts_of_one_key_at_once_exactly_one_is_done() {
    for round in 0..50 {
        let store = MemoryStore::new(Limits::S3, Some(ChecksumKind::Crc64Nvme));
        let puts: Vec<_> = (0u8..8)
            .map(|byte| {
                let store = store.clone();
                tokio::spawn(async move { store.put("key", vec![byte; 1000].into()).await.is_ok() })
            })
            .collect();
        let mut done = 0;
        for put in puts {
            done += usize::from(put.await.unwrap());
        }
        assert_eq!(done, 1, "round {round}");
    }
}
