//! Whoever can write to the store, and has no signing key, passes nothing off as a backup.

use std::process::Command;
use std::time::Duration;

use tapline::catalog::{BackupId, Manifest};
use tapline::store::{Checksum, ChecksumKind};

use super::world::{Run, World, tool};

/// A signing key in a file, the inventory's lines about it, and its public half.
fn keygen(world: &World, name: &str) -> (String, String) {
    let made = world.run(&["keygen", "--signing", "-o", name]);
    assert_eq!(made.code, Some(0), "{}", made.words());
    let public = made
        .stdout
        .lines()
        .nth(1)
        .unwrap()
        .split('"')
        .nth(1)
        .unwrap();
    (made.stdout.clone(), public.to_owned())
}

fn databases(lines: &str) -> String {
    format!(
        "[signatures]\n{lines}[databases.x]\nengine = \"command\"\ncommand = [\"seq\", \"1000\"]\n\
         [databases.y]\nengine = \"command\"\ncommand = [\"seq\", \"2000\"]\n"
    )
}

/// A world in which `x` and `y` are backed up and signed, and its public key.
fn signed() -> (World, String) {
    let world = World::new("");
    let (lines, public) = keygen(&world, "sign.key");
    world.inventory(&databases(&lines));
    let run = world.run(&["backup"]);
    assert_eq!(run.code, Some(0), "{}", run.words());
    (world, public)
}

fn key(world: &World, database: &str, end: &str) -> String {
    let keys = world.keys(database);
    keys.into_iter().find(|key| key.ends_with(end)).unwrap()
}

fn read(world: &World, key: &str) -> Vec<u8> {
    world.server.store().read(key).unwrap()
}

fn put(world: &World, key: &str, bytes: impl Into<bytes::Bytes>) {
    world.server.store().overwrite(key, bytes.into());
}

/// What `list`, `verify` and `restore` say of `name` must be a refusal with these words; without
/// trusted signers the attack is noticed or not, as `noticed` says.
fn refused(world: &World, name: &str, words: &str, noticed: bool) {
    let listed = world.run(&["list"]);
    let verified = world.run(&["verify", name]);
    let restored = world.run(&["restore", name, "--output", "back"]);
    assert!(!world.path("back").exists());
    for run in [&verified, &restored] {
        assert_eq!(run.code, Some(5), "{words}: {}", run.words());
        assert!(run.words().contains(words), "{words}: {}", run.words());
    }
    assert!(listed.stdout.contains(words), "{words}: {}", listed.stdout);
    world.inventory(&databases(""));
    let trusting = world.run(&["verify", name]);
    assert_eq!(
        trusting.code != Some(0),
        noticed,
        "{words}: {}",
        trusting.words()
    );
}

#[test]
fn stock_minisign_checks_our_signatures_and_its_keys_sign() {
    let (world, public) = signed();
    put_file(&world, "x");
    let mut minisign = Command::new("minisign");
    let checked = tool(
        minisign
            .args(["-Vm", "manifest.json", "-P", &public])
            .current_dir(world.folder.path()),
    );
    let checked = String::from_utf8(checked).unwrap();
    let manifest = world.manifest("x");
    let comment = format!("tapline x@{}", manifest.backup_id);
    assert!(checked.contains(&comment), "{checked}");
    assert_eq!(manifest.signed_by, Some(public));
    assert!(manifest.archive.volumes[0].digest.is_some());

    let mut minisign = Command::new("minisign");
    let made = minisign.args(["-G", "-W", "-s", "mini.key", "-p", "mini.pub"]);
    tool(made.current_dir(world.folder.path()));
    let public = std::fs::read_to_string(world.path("mini.pub")).unwrap();
    let public = public.lines().nth(1).unwrap();
    world.inventory(&databases(&format!(
        "sign_with = {{ file = \"mini.key\" }}\ntrusted_signers = [\"{public}\"]\n"
    )));
    newer(&world);
    assert_eq!(world.run(&["verify", "x"]).code, Some(0));
    let back = world.run(&["restore", "x", "--stdout"]);
    assert_eq!(back.stdout.lines().count(), 1000);
    // One that is behind a passphrase cannot sign at night, and is not repeated.
    world.write("bad.key", "hunter2");
    world.inventory(&databases("sign_with = { file = \"bad.key\" }\n"));
    let refused = world.run(&["backup", "x"]);
    assert_eq!(refused.code, Some(3), "{}", refused.words());
    assert!(!refused.words().contains("hunter2"));
}

/// A backup of `x` that is newer than the others: ids of one second are in no order.
fn newer(world: &World) {
    std::thread::sleep(Duration::from_millis(1100));
    let run = world.run(&["backup", "x"]);
    assert_eq!(run.code, Some(0), "{}", run.words());
}

/// The manifest and its signature as files.
fn put_file(world: &World, database: &str) {
    for name in ["manifest.json", "manifest.json.minisig"] {
        world.write(name, read(world, &key(world, database, name)));
    }
}

#[test]
fn an_edited_manifest_is_refused() {
    let (world, _) = signed();
    let key = key(&world, "x", "/manifest.json");
    let mut manifest = Manifest::from_json(&read(&world, &key)).unwrap();
    manifest.finished = manifest.started;
    put(&world, &key, manifest.to_json());
    refused(&world, "x", "it was changed", false);
}

#[test]
fn a_backup_signed_by_somebody_else_or_by_nobody_is_refused() {
    let (world, public) = signed();
    let (lines, _) = keygen(&world, "thief.key");
    world.inventory(&databases(&lines));
    newer(&world);
    let ours = format!("sign_with = {{ file = \"sign.key\" }}\ntrusted_signers = [\"{public}\"]\n");
    world.inventory(&databases(&ours));
    refused(&world, "x", "none of trusted_signers", false);

    let (world, public) = signed();
    world.inventory(&databases(""));
    newer(&world);
    world.inventory(&databases(&format!("trusted_signers = [\"{public}\"]\n")));
    refused(&world, "x", "is not signed", false);
    // It is no reason to prune those that are.
    world.inventory(&databases(&format!("trusted_signers = [\"{public}\"]\n")));
    let pruned = world.run(&["prune", "x", "--keep-last", "1", "--confirm"]);
    assert!(
        world.keys("x").iter().any(|key| key.ends_with(".minisig")),
        "{}",
        pruned.words()
    );
}

#[test]
fn a_signature_of_another_backup_is_refused() {
    let (world, _) = signed();
    let other = read(&world, &key(&world, "y", ".minisig"));
    put(&world, &key(&world, "x", ".minisig"), other);
    refused(&world, "x", "another's was put beside it", false);
    let (world, _) = signed();
    put(&world, &key(&world, "x", ".minisig"), "x".repeat(20 << 10));
    assert_eq!(world.run(&["verify", "x"]).code, Some(5));
}

#[test]
fn a_backup_under_another_name_or_date_is_refused() {
    // As a newer one of itself.
    let (world, _) = signed();
    let old = world.manifest("x").backup_id.to_string();
    let newer = BackupId::at("2030-01-01T00:00:00Z".parse().unwrap()).to_string();
    for key in world.keys("x") {
        put(&world, &key.replace(&old, &newer), read(&world, &key));
    }
    refused(&world, &format!("x@{newer}"), "somebody has moved it", true);
    // As one of another database.
    let (world, _) = signed();
    let (x, y) = (world.manifest("x").backup_id, world.manifest("y").backup_id);
    for key in world.keys("y") {
        let moved = key
            .replace(&y.to_string(), &x.to_string())
            .replace("backups/y/", "backups/x/");
        put(&world, &moved, read(&world, &key));
    }
    refused(&world, "x", "somebody has moved it", true);
}

#[test]
fn a_swapped_volume_is_refused_even_with_the_same_checksum_and_without_a_key() {
    let world = World::new("");
    let (lines, _) = keygen(&world, "sign.key");
    let public = world.age_recipient();
    let encrypted = format!("[defaults]\nencrypt_to = [\"{public}\"]\n");
    world.inventory(&(encrypted + &databases(&lines)));
    assert_eq!(world.run(&["backup"]).code, Some(0));
    assert_eq!(world.run(&["verify"]).code, Some(0));
    let volume = key(&world, "x", ".age");
    let whole = read(&world, &volume);
    // Another archive of the same size, with the same CRC-64: bytes of ours, and 64 bits that make
    // up for them.
    let mut forged = whole.clone();
    let middle = forged.len() / 2;
    forged[middle..middle + 100].fill(7);
    same_checksum(&whole, &mut forged);
    assert!(forged != whole && forged.len() == whole.len());
    put(&world, &volume, forged);
    let verified = world.run(&["verify", "x"]);
    assert_eq!(verified.code, Some(5), "{}", verified.words());
    assert!(
        verified.words().contains("it was replaced"),
        "{}",
        verified.words()
    );
    let restored = world.run(&["restore", "x", "--output", "back", "--identity", "age.key"]);
    assert_eq!(restored.code, Some(5), "{}", restored.words());
    assert!(!world.path("back").exists());

    // Of an archive that is not encrypted.
    let (world, _) = signed();
    let volume = key(&world, "x", ".tar.gz");
    put(&world, &volume, read(&world, &key(&world, "y", ".tar.gz")));
    let restored: Run = world.run(&["restore", "x", "--output", "back"]);
    assert_eq!(restored.code, Some(5), "{}", restored.words());
}

#[test]
fn a_cut_volume_and_another_backups_volume_are_refused() {
    for encrypted in [false, true] {
        let world = World::new("");
        let (lines, _) = keygen(&world, "sign.key");
        let public = world.age_recipient();
        let lock = format!("[defaults]\nencrypt_to = [\"{public}\"]\n");
        let lock = if encrypted { lock } else { String::new() };
        world.inventory(&(lock.clone() + &databases(&lines)));
        assert_eq!(world.run(&["backup", "x"]).code, Some(0));
        let (end, first) = (".tar.gz", world.keys("x"));
        newer(&world);
        let volumes = world.keys("x").into_iter().filter(|key| key.contains(end));
        let (older, newest): (Vec<_>, Vec<_>) = volumes.partition(|key| first.contains(key));
        let whole = read(&world, &newest[0]);
        let half = whole[..whole.len() / 2].to_vec();
        let earlier = read(&world, &older[0]);
        for (forged, what) in [(half, "cut"), (earlier, "of the backup before")] {
            put(&world, &newest[0], forged);
            // With a signature and without, with a key and without.
            for lines in [lines.as_str(), ""] {
                world.inventory(&(lock.clone() + &databases(lines)));
                let with_key = ["verify", "x", "--identity", "age.key"];
                for args in [&["verify", "x"][..], &with_key] {
                    let verified = world.run(args);
                    // What is the same in both backups is no forgery: a plain archive of the same dump.
                    let is_same = !encrypted && what != "cut";
                    assert_eq!(
                        verified.code == Some(0),
                        is_same,
                        "{what}: {}",
                        verified.words()
                    );
                }
            }
            world.inventory(&(lock.clone() + &databases(&lines)));
        }
    }
}

/// Whoever can delete can present an older set as the newest. What is left is what its owner has
/// signed, so that nothing in it tells; time does, and another store.
#[test]
fn a_set_that_is_rolled_back_is_noticed_by_its_age_and_by_another_store() {
    let world = World::new("");
    let (lines, _) = keygen(&world, "sign.key");
    let second = super::world::store(&world.server.endpoint())
        .replace("[stores.s3]", "[stores.offsite]")
        .replace("s3://bucket/backups", "s3://bucket/offsite");
    let both = |every: &str| {
        let stores = format!("[defaults]\nstores = [\"s3\", \"offsite\"]\n{every}");
        world.inventory(&format!("{second}{stores}{}", databases(&lines)));
    };
    both("");
    assert_eq!(world.run(&["backup", "x"]).code, Some(0));
    let first = world.keys("x");
    newer(&world);
    let newest: Vec<String> = world.keys("x");
    let newest = newest.into_iter().filter(|key| !first.contains(key));
    for key in newest {
        let deleted = tapline::store::Store::delete(world.server.store(), &key);
        futures_util::FutureExt::now_or_never(deleted)
            .unwrap()
            .unwrap();
    }
    // By itself what is left is good.
    assert_eq!(world.run(&["verify", "x", "--store", "s3"]).code, Some(0));
    let status = world.run(&["status", "x"]);
    assert!(
        status.words().contains("store s3 lacks"),
        "{}",
        status.words()
    );
    std::thread::sleep(Duration::from_secs(2));
    let aged = world.run(&["status", "x", "--max-age", "2s"]);
    assert_eq!(aged.code, Some(5), "{}", aged.words());
    // And the newest is still had from the other.
    let restored = world.run(&["restore", "x", "--stdout"]);
    assert_eq!(restored.stdout.lines().count(), 1000, "{}", restored.stderr);
}

/// Changes the last eight bytes so that the CRC-64/NVME is that of `whole`: a checksum is linear.
fn same_checksum(whole: &[u8], forged: &mut [u8]) {
    let crc = |bytes: &[u8]| Checksum::of(ChecksumKind::Crc64Nvme, bytes).value();
    let at = forged.len() - 8;
    let wanted = crc(whole) ^ crc(forged);
    // What each bit changes, in steps of Gauss: (change, bits).
    let base = crc(forged);
    let mut rows: Vec<(u64, u64)> = (0..64)
        .map(|bit| {
            let mut flipped = forged.to_vec();
            flipped[at + bit / 8] ^= 1 << (bit % 8);
            (crc(&flipped) ^ base, 1 << bit)
        })
        .collect();
    let (mut change, mut bits) = (wanted, 0u64);
    for column in 0..64 {
        let Some(pivot) = rows.iter().position(|(row, _)| row >> column & 1 == 1) else {
            continue;
        };
        let (row, of) = rows.swap_remove(pivot);
        for other in &mut rows {
            if other.0 >> column & 1 == 1 {
                *other = (other.0 ^ row, other.1 ^ of);
            }
        }
        if change >> column & 1 == 1 {
            change ^= row;
            bits ^= of;
        }
    }
    assert_eq!(change, 0);
    for bit in 0..64 {
        forged[at + bit / 8] ^= u8::from(bits >> bit & 1 == 1) << (bit % 8);
    }
    assert_eq!(crc(forged), crc(whole));
}

#[test]
fn without_an_inventory_a_signer_is_named_on_the_command_line() {
    let (world, public) = signed();
    let (_, other) = keygen(&world, "other.key");
    let endpoint = world.server.endpoint();
    let run = |signer: &str| {
        let from = [
            "verify",
            "x",
            "--from",
            "s3://bucket/backups",
            "--endpoint",
            &endpoint,
        ];
        let mut command = world.tapline(&from);
        command.args(["--region", "us-east-1", "--trusted-signer", signer]);
        command.env("AWS_ACCESS_KEY_ID", tapline::s3_server::ACCESS_KEY);
        command.env("AWS_SECRET_ACCESS_KEY", tapline::s3_server::SECRET_KEY);
        Run::from(command.output().unwrap())
    };
    let good = run(&public);
    assert_eq!(good.code, Some(0), "{}", good.words());
    assert_eq!(run(&other).code, Some(5));
    assert_eq!(run("RWQx").code, Some(2));
}

#[test]
fn check_says_whether_what_is_signed_would_be_taken() {
    let (world, public) = signed();
    let checked = world.run(&["check"]);
    assert!(checked.words().contains(&public), "{}", checked.words());
    let (_, other) = keygen(&world, "other.key");
    world.inventory(&databases(&format!(
        "sign_with = {{ file = \"sign.key\" }}\ntrusted_signers = [\"{other}\"]\n"
    )));
    let checked = world.run(&["check"]);
    assert!(
        checked.words().contains("is none of trusted_signers"),
        "{}",
        checked.words()
    );
}
