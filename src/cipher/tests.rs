//! The format: against its community's test vectors, and all sizes around the edges of pieces.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use age::secrecy::ExposeSecret;
use age_core::format::FileKey;
use bytes::Bytes;
use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::archive::{Cores, Piece, hex};

/// One of the files in `tests/vectors/age`.
struct Vector {
    name: String,
    says: HashMap<String, String>,
    sealed: Vec<u8>,
}

fn vectors() -> Vec<Vector> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/age");
    let mut vectors = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let end = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap();
        let head = str::from_utf8(&bytes[..end]).unwrap();
        let says: HashMap<String, String> = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let mut sealed = bytes[end + 2..].to_vec();
        if says.get("compressed").is_some_and(|kind| kind == "zlib") {
            let mut plain = Vec::new();
            let mut zlib = flate2::read::ZlibDecoder::new(&sealed[..]);
            zlib.read_to_end(&mut plain).unwrap();
            sealed = plain;
        }
        vectors.push(Vector {
            name: path.file_name().unwrap().to_string_lossy().into_owned(),
            says,
            sealed,
        });
    }
    assert!(vectors.len() > 20, "{}", vectors.len());
    vectors
}

fn identities(text: &str) -> Identities {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, text).unwrap();
    let mut identities = Identities::default();
    identities.add_file(file.path(), &Ask::nobody()).unwrap();
    identities
}

fn open(sealed: &[u8], identities: &Identities) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    let mut opened = opened(sealed, identities).map_err(std::io::Error::other)?;
    opened.read_to_end(&mut plain).map(|_| plain)
}

/// Seals an archive of `head` and `pieces`, as a job does.
fn seal(seal: Seal, head: &[u8], pieces: &[&[u8]], tail: &[u8], cores: &Cores) -> Vec<u8> {
    let mut envelope = Envelope::sealed(seal, head.len(), cores, 3, None);
    let front = envelope.head_len();
    let plain = |bytes: &[u8]| Piece::new(Bytes::copy_from_slice(bytes), None);
    let sealed: Vec<_> = pieces
        .iter()
        .map(|piece| envelope.body(plain(piece), ()))
        .collect();
    // The last are asked for first: that they are made in order is nobody's promise.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut body: Vec<Bytes> = Vec::new();
    for sealed in sealed.into_iter().rev() {
        body.push(runtime.block_on(sealed).unwrap().0.into_parts().0);
    }
    body.reverse();
    let (last, first) = envelope.close(plain(tail), Bytes::copy_from_slice(head));
    let last = last.into_parts().0;
    assert!(first.len() == front || body.concat().is_empty() && last.is_empty());
    [&first[..], &body.concat(), &last].concat()
}

#[test]
fn vectors_are_opened_as_they_say_and_sealed_to_the_same_bytes() {
    let cores = Cores::new(2);
    let mut sealed_again = 0;
    for Vector { name, says, sealed } in vectors() {
        let found = open(&sealed, &identities(&says["identity"]));
        if says["expect"] != "success" {
            assert!(found.is_err(), "{name} is {}", says["expect"]);
            continue;
        }
        let plain = found.unwrap_or_else(|error| panic!("{name}: {error}"));
        let digest = ring::digest::digest(&ring::digest::SHA256, &plain);
        assert_eq!(hex(digest.as_ref()), says["payload"], "{name}");
        assert_eq!(
            shape(&sealed[..]).unwrap().plain,
            plain.len() as u64,
            "{name}"
        );

        let key: Vec<u8> = says["file key"]
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        let key = FileKey::init_with_mut(|copy| copy.copy_from_slice(&key));
        let mut rest = &sealed[..];
        age::Decryptor::new_buffered(&mut rest).unwrap();
        let prefix = &sealed[..sealed.len() - rest.len()];
        let half = plain.len() / 2;
        let (first, second) = plain.split_at(half);
        let head = &first[..half.min(1551)];
        let again = self::seal(
            Seal::known(prefix, &key),
            head,
            &[&first[head.len()..]],
            second,
            &cores,
        );
        assert!(again == sealed, "{name}");
        sealed_again += 1;
    }
    assert!(sealed_again >= 6, "{sealed_again}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_archive_cut_any_way_comes_back(
        near in prop::sample::select(vec![0usize, CHUNK, 2 * CHUNK, 3 * CHUNK, 9 * CHUNK]),
        off in -2i64..=2,
        head in prop::sample::select(vec![0usize, 1546, 1551]),
        tail in 0usize..70_000,
        cuts in prop::collection::vec(1usize..200_000, 0..12),
    ) {
        let size = near.saturating_add_signed(isize::try_from(off).unwrap()).max(head);
        let mut plain = vec![0; size];
        fastrand::Rng::with_seed(size as u64).fill(&mut plain);
        let tail = tail.min(size - head);
        let mut pieces = Vec::new();
        let mut body = &plain[head..size - tail];
        for cut in cuts {
            let (piece, rest) = body.split_at(cut.min(body.len()));
            pieces.push(piece);
            body = rest;
        }
        pieces.push(body);
        let pair = NewIdentity::generate();
        let lock = Lock::Recipients(vec![pair.recipient().parse().unwrap()]);
        let sealed = seal(
            Seal::new(&lock).unwrap(),
            &plain[..head],
            &pieces,
            &plain[size - tail..],
            &Cores::new(2),
        );
        let key = identities(&pair.to_file("now"));
        prop_assert!(open(&sealed, &key).unwrap() == plain);
        prop_assert_eq!(shape(&sealed[..]).unwrap().plain, size as u64);
        // What is cut is no archive, and gives nothing of its last piece.
        let cut = &sealed[..sealed.len() - 1];
        prop_assert!(open(cut, &key).is_err());
    }
}

#[test]
fn each_of_several_keys_opens_and_no_other_does() {
    let pairs = [NewIdentity::generate(), NewIdentity::generate()];
    let all = pairs.iter().map(|pair| pair.recipient().parse().unwrap());
    let lock = Lock::Recipients(all.collect());
    let sealed = seal(
        Seal::new(&lock).unwrap(),
        b"head",
        &[b"body"],
        b"tail",
        &Cores::new(1),
    );
    for pair in &pairs {
        let key = identities(&pair.to_file("now"));
        assert_eq!(open(&sealed, &key).unwrap(), b"headbodytail");
    }
    let stranger = identities(&NewIdentity::generate().to_file("now"));
    assert_eq!(opened(&sealed[..], &stranger).err(), Some(Locked::NoKey));
    assert!(!format!("{stranger:?}").contains("AGE-SECRET"));
}

#[test]
fn of_several_passphrases_the_right_one_opens() {
    let lock = Lock::Passphrase("correct horse".into());
    let sealed = seal(
        Seal::new(&lock).unwrap(),
        b"",
        &[b"body"],
        b"",
        &Cores::new(1),
    );
    let mut identities = Identities::default();
    identities.add_passphrase("wrong".into());
    assert_eq!(opened(&sealed[..], &identities).err(), Some(Locked::NoKey));
    identities.add_passphrase("correct horse".into());
    assert_eq!(open(&sealed, &identities).unwrap(), b"body");
    assert!(!format!("{lock:?}").contains("horse"));
}

#[test]
fn an_envelope_that_is_open_changes_nothing() {
    let mut envelope = Envelope::open(4);
    assert_eq!(envelope.head_len(), 4);
    let plain = |bytes: &'static [u8]| Piece::new(Bytes::from_static(bytes), None);
    let body = envelope
        .body(plain(b"body"), 7)
        .now_or_never()
        .unwrap()
        .unwrap();
    assert_eq!((&body.0.into_parts().0[..], body.1), (&b"body"[..], 7));
    let (tail, head) = envelope.close(plain(b"tail"), Bytes::from_static(b"head"));
    assert_eq!(
        (&tail.into_parts().0[..], &head[..]),
        (&b"tail"[..], &b"head"[..])
    );
}

#[test]
fn a_new_key_is_what_age_keygen_writes() {
    let pair = NewIdentity::generate();
    let file = pair.to_file("2026-11-25T00:00:00Z");
    let lines: Vec<&str> = file.lines().collect();
    let [made, public, secret] = lines.as_slice() else {
        panic!("three lines")
    };
    assert_eq!(*made, "# created: 2026-11-25T00:00:00Z");
    assert_eq!(*public, format!("# public key: {}", pair.recipient()));
    let read: age::x25519::Identity = secret.parse().unwrap();
    assert_eq!(read.to_public().to_string(), pair.recipient());
    assert!(
        read.to_string()
            .expose_secret()
            .starts_with("AGE-SECRET-KEY-1")
    );
}
