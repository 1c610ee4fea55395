//! The write path with sizes on every edge: segment, part, tar block, volume.

use std::sync::Arc;
use std::time::Duration;

use tapline::archive::Compression;
use tapline::archive::Cores;
use tapline::catalog::BackupId;
use tapline::dump::{DumpShape, ToolCommand};
use tapline::job::{Interruption, Job, Layout, back_up};
use tapline::restore::{Stored, Target, restore};
use tapline::store::memory::MemoryStore;
use tapline::store::retry::RetryPolicy;
use tapline::store::{ChecksumKind, Limits};
use tokio_util::sync::CancellationToken;

use super::world::untar;

const SEGMENT: usize = 8192;
const PART: u64 = 20_000;

/// Backs up the first `size` bytes of a file and returns what stock tar takes out of the joined
/// volumes.
async fn round_trip(
    dump: &std::path::Path,
    size: usize,
    compression: Compression,
    (max_parts, in_order): (u32, bool),
) -> (Vec<u8>, usize) {
    let limits = Limits {
        min_part: PART,
        max_part: PART,
        max_parts,
        in_order,
        connections: None,
    };
    let store = MemoryStore::new(limits, Some(ChecksumKind::Crc32));
    let size_arg = size.to_string();
    let dump_arg = dump.display().to_string();
    let command = ToolCommand::new("head").args(["-c", &size_arg, &dump_arg]);
    let layout = Layout {
        segment: SEGMENT,
        workers: 3,
        feeds: 1,
        part: PART,
        in_flight: 2,
        max_parts,
        expected: None,
        memory: 0,
    };
    let codec = (compression, compression.levels().1);
    let mut job = Job::of_command("x", command, codec, Arc::new(store.clone()), layout);
    job.dump_shape = DumpShape::NOTHING;
    let interruption = Interruption::default();
    let committed = back_up(Arc::new(job), BackupId::now(), &Cores::all(), &interruption).await;
    let manifest = committed.unwrap().manifest;
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("archive");
    let mut bytes = Vec::new();
    for key in manifest
        .keys()
        .iter()
        .filter(|key| !key.ends_with("manifest.json"))
    {
        bytes.extend(store.read(key).unwrap());
    }
    assert_eq!(bytes.len() as u64, manifest.archive.size);
    assert_eq!(manifest.dump_size(), Some(size as u64));
    std::fs::write(&archive, bytes).unwrap();
    let (untarred, volumes) = (untar(&archive), manifest.archive.volumes.len());
    let back = folder.path().join("back");
    let stored = Stored {
        store: Arc::new(store),
        manifest,
        retry: RetryPolicy::lasting(Duration::from_secs(5)),
        identities: Arc::default(),
        progress: Arc::default(),
    };
    restore(
        Arc::new(stored),
        Target::file(&back, true).unwrap(),
        &CancellationToken::new(),
    )
    .await
    .unwrap();
    assert!(
        std::fs::read(&back).unwrap() == untarred,
        "our own reader and stock tar agree"
    );
    (untarred, volumes)
}

#[test]
fn dumps_that_end_on_an_edge_come_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dump");
    let mut dump = vec![0; 300_000];
    fastrand::Rng::with_seed(7).fill(&mut dump);
    std::fs::write(&path, &dump).unwrap();
    let part = usize::try_from(PART).unwrap();
    let first = part - Compression::None.head_len();
    let edges = [
        0,
        1,
        511,
        512,
        513,
        SEGMENT - 1,
        SEGMENT,
        SEGMENT + 1,
        3 * SEGMENT,
        first,
        first + part,
        300_000,
    ];
    let nearby = [
        first - 1,
        first + 1,
        first - 1024,
        first - 1535,
        first + part - 1024,
    ];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        for size in edges.into_iter().chain(nearby) {
            let (back, _) = runtime.block_on(round_trip(&path, size, compression, (10_000, false)));
            assert!(back == dump[..size], "{size} bytes, {compression:?}");
        }
        let (back, volumes) =
            runtime.block_on(round_trip(&path, dump.len(), compression, (3, false)));
        assert!(back == dump, "many volumes, {compression:?}");
        assert!(volumes >= 5, "{volumes}");
    }
}

/// `rclone serve s3` is one: part 1 comes last, and the others would have to be held for it.
#[test]
fn a_store_that_takes_parts_in_order_gets_the_held_part_as_a_volume_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dump");
    let mut dump = vec![0; 300_000];
    fastrand::Rng::with_seed(7).fill(&mut dump);
    std::fs::write(&path, &dump).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        for (size, expected) in [(100, 1), (dump.len(), 2)] {
            let stored = round_trip(&path, size, compression, (10_000, true));
            let (back, volumes) = runtime.block_on(stored);
            assert!(back == dump[..size], "{size} bytes, {compression:?}");
            assert_eq!(volumes, expected, "{size} bytes, {compression:?}");
        }
    }
}

#[test]
fn stock_readers_know_the_size_of_dumps_over_8_gib() {
    use std::process::Command;
    let size = 9_876_543_210;
    let header = tapline::archive::TarHeader {
        name: "größe.sql".into(),
        size,
        sha256: Some([1; 32]),
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("head.tar");
    std::fs::write(&path, header.to_bytes()).unwrap();
    let script = "import sys, tarfile; m = tarfile.open(sys.argv[1]).next(); print(m.size, m.name)";
    let python = super::world::tool(
        Command::new("python3")
            .args(["-X", "utf8", "-c", script])
            .arg(&path),
    );
    assert_eq!(
        String::from_utf8(python).unwrap().trim(),
        format!("{size} größe.sql")
    );
    // There is no dump behind this header, which both say after they have listed it.
    for program in ["tar", "bsdtar"] {
        let listed = Command::new(program)
            .arg("tvf")
            .arg(&path)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(text.contains(&size.to_string()), "{program}: {text}");
    }
}
