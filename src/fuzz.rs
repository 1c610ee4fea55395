//! The bodies of the fuzz targets in `fuzz/`: what must hold for any bytes at all. Their seeds run
//! as ordinary tests.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::archive::{
    Compression, Cores, END_LEN, Encoding, HEADER_LEN, TarHeader, encoder, hex, padding,
};
use crate::catalog::{Archive, BackupId, Entry, Manifest, Mode, locate};
use crate::config::Inventory;
use crate::restore::decode::decode;

/// Stands for a secret in the text of an inventory.
const SECRET: &str = "sesame";

/// An inventory is taken or refused, and no error repeats a value of it: values are secrets until
/// proven otherwise.
pub fn inventory(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else {
        return;
    };
    if let Err(error) = Inventory::parse(Path::new("tapline.toml"), text) {
        let words = error.to_string();
        assert!(names_secret(text) || !words.contains(SECRET), "{words:?}");
    }
}

/// Whether the secret may be a name in this text, which an error may repeat: a key, a table's, or a
/// part of one.
fn names_secret(text: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || "_-\"'".contains(c);
    text.match_indices(SECRET).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + SECRET.len()..]);
        // A quoted name may have anything in it but the end of its line.
        let line = before.lines().next_back().unwrap_or_default();
        let is_key = line.trim_start().starts_with(['"', '\'']) || !line.contains('=');
        if line.trim_start().starts_with('[') || is_key && names_value(after) {
            return true;
        }
        let before = before.trim_end_matches(is_part).trim_end();
        let after = after.trim_start_matches(is_part).trim_start();
        after.starts_with(['=', '.', ']']) || before.ends_with(['.', '['])
    })
}

/// Whether the line that begins so has a value yet to come.
fn names_value(text: &str) -> bool {
    text.lines().next().is_some_and(|line| line.contains('='))
}

/// A manifest that is taken is written and read back as the same, and its objects' keys are of its
/// backup. A key that is a backup's is so in one way alone.
pub fn manifest_and_key(data: &[u8]) {
    if let Ok(manifest) = Manifest::from_json(data) {
        let text = manifest.to_json();
        let again = Manifest::from_json(&text).expect("what was taken once");
        assert_eq!(again.to_json(), text);
        for key in manifest.keys() {
            let located = locate(&key).expect("the key of a backup's object");
            assert_eq!(
                (&located.database, &located.id),
                (&manifest.database, &manifest.backup_id)
            );
        }
    }
    if let Ok(key) = str::from_utf8(data)
        && let Some(located) = locate(key)
    {
        let prefix = crate::catalog::backup_prefix(&located.database, &located.id);
        assert!(key.starts_with(&prefix), "{key:?} is not below {prefix:?}");
        let manifest = crate::catalog::manifest_key(&located.database, &located.id);
        assert_eq!(located.is_manifest, key == manifest);
    }
}

/// Any bytes are read as an archive, by a manifest that fits what they say: it ends, and gives no
/// more than the manifest names. The memory limit is the fuzzer's.
pub fn decode_any(data: &[u8]) {
    let Some((&[kind], rest)) = data.split_first_chunk::<1>() else {
        return;
    };
    let Some((size, rest)) = rest.split_first_chunk::<8>() else {
        return;
    };
    let Some((sha256, bytes)) = rest.split_first_chunk::<32>() else {
        return;
    };
    let compression = [Compression::Gzip, Compression::Zstd, Compression::None];
    let id: BackupId = "20260101T000000Z-aaaaaa".parse().expect("a backup id");
    let (container, size) = (
        ["tar", "zip"][usize::from(kind / 3 % 2)],
        u64::from_le_bytes(*size),
    );
    let manifest = Manifest {
        entries: vec![Entry {
            name: "x.dump".into(),
            size,
            sha256: hex(sha256),
        }],
        archive: Archive {
            container: container.into(),
            compression: compression[usize::from(kind % 3)],
            size: bytes.len() as u64,
            volumes: Vec::new(),
            encryption: None,
        },
        ..a_manifest(&id)
    };
    let mut given = 0;
    let mut take = |piece| {
        if let crate::restore::decode::Piece::Data(bytes) = piece {
            given += bytes.len() as u64;
        }
        true
    };
    let decoded = decode(&manifest, bytes, &mut take);
    assert!(given <= size, "{given} bytes of a file of {size}");
    assert!(decoded.is_err() || given == size);
}

fn a_manifest(id: &BackupId) -> Manifest {
    let text = format!(
        r#"{{"format": {}, "tapline": "0", "database": "x", "backup_id": "{id}", "engine": "command",
        "dump_format": "dump", "tool": "true", "mode": "streamed",
        "started": "2026-01-01T00:00:00Z", "finished": "2026-01-01T00:00:00Z",
        "entries": [{{"name": "x.dump", "size": 1, "sha256": "{}"}}],
        "archive": {{"container": "tar", "compression": "gzip", "size": 1,
        "volumes": [{{"name": "x.tar.gz", "size": 1, "parts": 1, "crc64nvme": "AAAAAAAAAAA="}}]}}}}"#,
        Manifest::FORMAT,
        "0".repeat(64)
    );
    let manifest = Manifest::from_json(text.as_bytes()).expect("a manifest");
    assert_eq!(manifest.mode, Mode::Streamed);
    manifest
}

/// What a header says is what writing it again says.
pub fn tar_header(data: &[u8]) {
    let Some(header) = data.first_chunk::<HEADER_LEN>() else {
        return;
    };
    if let Ok(read) = TarHeader::from_bytes(header)
        && read.name.len() <= crate::archive::MAX_NAME
    {
        let again = TarHeader::from_bytes(&read.to_bytes());
        assert_eq!(again.as_ref(), Ok(&read));
    }
}

/// Whatever is dumped, in segments of whatever size, reads back the same.
pub fn encode_round_trip(data: &[u8]) {
    static CORES: OnceLock<Cores> = OnceLock::new();
    let Some((&[kind, segment], dump)) = data.split_first_chunk::<2>() else {
        return;
    };
    let compressions = [Compression::Gzip, Compression::Zstd, Compression::None];
    let compression = compressions[usize::from(kind % 3)];
    // Not the slowest, which are of no other code.
    let (levels, _) = compression.levels();
    let level = (levels.start() + i32::from(kind / 3)).min(9.min(*levels.end()));
    let encoding = Encoding {
        compression,
        level,
        segment: 1 + usize::from(segment) * 16,
        workers: 2,
        feeds: 1,
        checksum: None,
        sha256: true,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let (archive, sha256) = runtime.block_on(async {
        let (mut inlet, mut outlet) =
            encoder(CORES.get_or_init(Cores::all), encoding, &Arc::default());
        let write = async move {
            for segment in dump.chunks(encoding.segment) {
                let mut room = inlet.room().await;
                room.segment().extend_from_slice(segment);
                inlet.put(room).await;
            }
        };
        let read = async {
            let mut body = Vec::new();
            while let Some((piece, _room)) = outlet.next().await.expect("nothing can fail") {
                body.extend_from_slice(&piece.into_parts().0);
            }
            body
        };
        let ((), body) = tokio::join!(write, read);
        let sha256 = outlet.sha256().expect("asked for");
        let size = dump.len() as u64;
        let header = TarHeader {
            name: "x.dump".into(),
            size,
            sha256: Some(sha256),
        }
        .to_bytes();
        let tail = outlet.tail(&header, padding(size) + END_LEN);
        (
            [&compression.head(&header)[..], &body, &tail.into_parts().0].concat(),
            sha256,
        )
    });
    let id: BackupId = "20260101T000000Z-aaaaaa".parse().expect("a backup id");
    let mut manifest = a_manifest(&id);
    manifest.entries[0].size = dump.len() as u64;
    manifest.entries[0].sha256 = hex(&sha256);
    manifest.archive.compression = compression;
    manifest.archive.size = archive.len() as u64;
    let mut back = Vec::new();
    let read = decode(&manifest, &archive[..], &mut |piece| {
        if let crate::restore::decode::Piece::Data(bytes) = piece {
            back.extend_from_slice(&bytes);
        }
        true
    });
    assert!(read.is_ok() && back == dump, "{compression:?}: {read:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_reads_back_the_same() {
        each_seed_of("encode_round_trip", encode_round_trip);
    }

    fn each_seed_of(target: &str, body: impl Fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/seeds")
            .join(target);
        let seeds = std::fs::read_dir(&folder).expect("a folder of seeds");
        let mut count = 0;
        for seed in seeds {
            let seed = seed.expect("a seed").path();
            println!("{}", seed.display());
            let bytes = std::fs::read(&seed).expect("a seed");
            body(&bytes);
            // What is damaged anywhere, or cut, must hold, too.
            for at in (0..bytes.len()).step_by(1 + bytes.len() / 64) {
                let mut wrong = bytes.clone();
                wrong[at] ^= 0x11;
                body(&wrong);
                body(&bytes[..at]);
            }
            count += 1;
        }
        assert!(count > 1, "{} has no seeds", folder.display());
    }

    #[test]
    fn an_inventory_is_taken_or_refused_without_repeating_a_value() {
        each_seed_of("inventory", inventory);
    }

    #[test]
    fn a_manifest_and_a_key_read_back_as_what_they_are() {
        each_seed_of("manifest_and_key", manifest_and_key);
    }

    #[test]
    fn any_bytes_of_an_archive_end_without_more_than_was_named() {
        each_seed_of("decode", decode_any);
    }

    #[test]
    fn a_tar_header_reads_back_as_what_it_says() {
        each_seed_of("tar_header", tar_header);
    }
}
