//! What is known of providers: a profile asks for less, and breaks no promise, be it the right one or
//! not.

use tapline::s3_server::{Op, S3Server};
use tapline::store::memory::MemoryStore;
use tapline::store::s3::Profile;
use tapline::store::{ChecksumKind, Limits};

use super::world::World;

/// One of several parts, one that fits a single request, and one that fails.
const DATABASES: &str = "[run]\nmemory = \"64MiB\"\njobs = 1\n\
    [defaults]\nengine = \"command\"\ncompression = \"none\"\n\
    [databases.large]\ncommand = [\"head\", \"-c\", \"20000000\", \"/dev/urandom\"]\n\
    [databases.small]\ncommand = [\"echo\", \"all of it\"]\nexpected_size = \"1kB\"\n\
    [databases.failing]\ncommand = [\"sh\", \"-c\", \"head -c 20000000 /dev/zero; exit 3\"]\n";

#[test]
fn a_wrong_profile_breaks_no_promise() {
    for name in Profile::names() {
        let world = World::new(&format!("provider = \"{name}\"\n{DATABASES}"));
        assert_eq!(world.run(&["backup"]).code, Some(1), "{name}");
        assert_eq!(world.keys("failing"), Vec::<String>::new(), "{name}");
        assert_eq!(world.server.store().open_uploads(), 0, "{name}");
        let read = ["verify", "large"];
        assert_eq!(world.run(&read).code, Some(0), "{name}");
        assert_eq!(world.run(&["verify", "small"]).code, Some(0), "{name}");
        let volumes = world.manifest("large").archive.volumes.len();
        assert_eq!(volumes, if name == "rclone" { 2 } else { 1 }, "{name}");
    }
}

#[test]
fn check_says_which_provider_it_is_and_what_follows() {
    let world = World::new("");
    for (keys, said) in [
        ("", "not known"),
        ("provider = \"minio\"\n", "minio; nothing"),
        (
            "provider = \"scaleway\"\n",
            "scaleway; a volume has at most 1000 parts",
        ),
        (
            "provider = \"b2\"\n",
            "b2; parts and objects go with Content-MD5",
        ),
    ] {
        world.inventory(&format!(
            "{keys}[databases.x]\nengine = \"command\"\ncommand = [\"true\"]\n"
        ));
        let run = world.run(&["check"]);
        assert!(run.code == Some(0) && run.stdout.contains(said), "{keys}");
    }
}

/// A key for the whole backup is one that takes no more than the provider does.
#[test]
fn a_providers_limit_on_parts_holds_beside_the_inventorys() {
    let small = "[run]\nmemory = \"64MiB\"\njobs = 1\n[databases.x]\nengine = \"command\"\ncompression = \"none\"\n\
                 command = [\"head\", \"-c\", \"30000000\", \"/dev/zero\"]\n";
    let world = World::new(&format!("provider = \"scaleway\"\nmax_parts = 2\n{small}"));
    assert_eq!(world.run(&["backup"]).code, Some(0));
    assert!(
        world
            .manifest("x")
            .archive
            .volumes
            .iter()
            .all(|volume| volume.parts <= 2)
    );
    assert_eq!(world.run(&["verify"]).code, Some(0));
}

/// Only CRC-64 was compared, and a store that keeps CRC-32 passed with whatever bytes.
#[test]
fn a_quick_look_compares_the_checksum_that_the_store_keeps() {
    let memory = MemoryStore::new(Limits::S3, Some(ChecksumKind::Crc32));
    let world = World::with("", |runtime| {
        runtime.block_on(S3Server::serving(memory)).unwrap()
    });
    for (name, expected) in [("small", "1kB"), ("large", "1GB")] {
        world.inventory(&format!(
            "checksum = \"crc32\"\n[databases.{name}]\nengine = \"command\"\n\
             command = [\"echo\", \"{expected}\"]\nexpected_size = \"{expected}\"\n"
        ));
        assert_eq!(world.run(&["backup"]).code, Some(0));
        assert_eq!(world.run(&["verify", "--quick"]).code, Some(0));
        let store = world.server.store();
        let heads = || {
            let asked = world.server.log().all();
            asked.iter().filter(|asked| asked.op == Op::Head).count()
        };
        assert!(heads() > 0);
        for key in world.keys(name) {
            let Some(body) = store.read(&key).filter(|_| key.contains(".tar")) else {
                continue;
            };
            let mut other = body.clone();
            other[100] ^= 1;
            store.overwrite(&key, other.into());
            let run = world.run(&["verify", "--quick"]);
            assert!(
                run.code == Some(5) && run.words().contains("its checksum"),
                "{key}"
            );
            store.overwrite(&key, body.into());
        }
    }
}
