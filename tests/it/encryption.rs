//! Backups that only the owner of a key can read, and stock age with ours.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use tapline::s3_server::{ACCESS_KEY, SECRET_KEY};
use tapline::store::{Checksum, ChecksumKind};

use super::servers::{PASSWORD, Postgres};
use super::world::{Run, TAPLINE, World, is_long_run, tool, untar};

/// In no file, log, report, or command line.
const MARKER: &str = "never-to-be-seen-4711";

const VOLUME: &str = "/x.tar.gz.age";

/// A pair of keys of stock age-keygen in a file of the world; its public half.
fn keygen(world: &World, name: &str) -> String {
    let path = world.path(name);
    tool(Command::new("age-keygen").arg("-o").arg(&path));
    let public = tool(Command::new("age-keygen").arg("-y").arg(&path));
    String::from_utf8(public).unwrap().trim().to_owned()
}

/// A world with a database `x` of `command`, encrypted to the key in the file `key`.
fn world(command: &str, more: &str) -> (World, String) {
    let world = World::new("");
    let public = keygen(&world, "key");
    world.inventory(&inventory(command, &public, more));
    (world, public)
}

fn inventory(command: &str, public: &str, more: &str) -> String {
    format!(
        "[defaults]\nencrypt_to = [\"{public}\"]\n{more}\n[databases.x]\nengine = \"command\"\n\
         command = {command}\nfile_name = \"x.sql\"\n"
    )
}

/// What stock age makes of the archive of `x`.
fn decrypt(world: &World, key: &str) -> Vec<u8> {
    let archive = world.download("x");
    let mut age = Command::new("age");
    tool(age.arg("-d").arg("-i").arg(world.path(key)).arg(archive))
}

/// The dump of `x`, as stock age and tar take it out.
fn stock(world: &World) -> Vec<u8> {
    world.write("plain", decrypt(world, "key"));
    untar(&world.path("plain"))
}

fn good(run: &Run) {
    assert_eq!(run.code, Some(0), "{}", run.words());
}

#[test]
fn stock_age_and_tar_read_what_was_streamed_and_staged_in_every_compression() {
    for (compression, container) in [
        ("gzip", "tar"),
        ("zstd", "tar"),
        ("none", "tar"),
        ("gzip", "zip"),
    ] {
        for mode in ["streamed", "staged"] {
            if (mode, container) == ("streamed", "zip") {
                continue;
            }
            let more = format!("compression = \"{compression}\"");
            let (world, public) = world("[\"seq\", \"300000\"]", &more);
            let staged = format!("[staged]\ncontainer = \"{container}\"\n");
            world.inventory(&(staged + &inventory("[\"seq\", \"300000\"]", &public, &more)));
            good(&world.run(&["backup", "--mode", mode]));
            let expected = tool(Command::new("seq").arg("300000"));
            if container == "tar" {
                assert!(stock(&world) == expected, "{compression} {mode}");
            } else {
                world.write("plain.zip", decrypt(&world, "key"));
                let mut unzip = Command::new("unzip");
                let unpacked = tool(unzip.arg("-p").arg(world.path("plain.zip")));
                assert!(unpacked == expected);
            }
            let key = identity_file(&world);
            let out = world.path("back");
            let out = out.to_str().unwrap();
            good(&world.run(&["restore", "x", "--output", out, "--identity", &key]));
            assert!(
                std::fs::read(out).unwrap() == expected,
                "{compression} {mode}"
            );
            good(&world.run(&["verify", "--identity", &key]));
        }
    }
}

/// The file of the pair that [`keygen`] has made as `key`.
fn identity_file(world: &World) -> String {
    world.path("key").display().to_string()
}

#[test]
fn the_store_is_told_nothing_of_the_plaintext() {
    let (world, public) = world("[\"seq\", \"1000\"]", "hide_names = true");
    good(&world.run(&["backup"]));
    let key = world
        .keys("x")
        .into_iter()
        .find(|key| key.ends_with("manifest.json"));
    let text = world.server.store().read(&key.unwrap()).unwrap();
    let text = String::from_utf8(text).unwrap();
    let digest = tool(Command::new("sh").args(["-c", "seq 1000 | sha256sum"]));
    let digest = &String::from_utf8(digest).unwrap()[..64];
    for secret in [digest, "3893", "x.sql", "entries", &public] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    assert!(text.contains(&public[..16]), "its fingerprint: {text}");
    let names = world.keys("x").join(" ");
    assert!(names.contains("/x.tar.gz.age"), "{names}");
    // The file's name is in the archive, and comes back from there.
    let identity = identity_file(&world);
    let shown = world.run(&["show", "x"]);
    assert!(
        shown.stdout.contains("| age -d -i key.txt | tar xz\n"),
        "{}",
        shown.stdout
    );
    assert!(shown.stdout.contains("hidden"), "{}", shown.stdout);
    let back = world.run(&["restore", "x", "--stdout", "--identity", &identity]);
    assert_eq!(back.stdout.lines().count(), 1000);
}

#[test]
fn whoever_has_no_key_is_told_whose_is_needed_and_what_could_be_verified() {
    let (world, public) = world("[\"seq\", \"1000\"]", "");
    good(&world.run(&["backup"]));
    let fingerprint = &public[..16];
    let refused = world.run(&["restore", "x", "--output", "back"]);
    assert_eq!(refused.code, Some(3));
    assert!(refused.stderr.contains(fingerprint), "{}", refused.stderr);
    assert!(!world.path("back").exists());
    keygen(&world, "other");
    let other = world.path("other").display().to_string();
    let refused = world.run(&["restore", "x", "--output", "back", "--identity", &other]);
    assert_eq!(refused.code, Some(3));
    assert!(
        refused.stderr.contains("does not open it") && refused.stderr.contains(fingerprint),
        "{}",
        refused.stderr
    );
    // Of several one is enough.
    let key = identity_file(&world);
    let several = [
        "restore",
        "x",
        "--stdout",
        "--identity",
        &other,
        "--identity",
        &key,
    ];
    assert_eq!(world.run(&several).stdout.lines().count(), 1000);
    let verified = world.run(&["verify"]);
    good(&verified);
    assert!(
        verified.words().contains("no key was given"),
        "{}",
        verified.words()
    );
    good(&world.run(&["verify", "--quick"]));
    let drilled = world.run(&["verify", "--drill"]);
    assert_ne!(drilled.code, Some(0));
    // By the environment, and by an identity file of our own.
    let mut by_environment = world.tapline(&["verify"]);
    let by_environment = by_environment
        .env("TAPLINE_IDENTITY", world.path("key"))
        .output();
    let words = Run::from(by_environment.unwrap()).words();
    assert!(!words.contains("no key was given"), "{words}");
    // Without the key that changes nothing: one byte of the archive.
    let volume = world
        .keys("x")
        .into_iter()
        .find(|key| key.ends_with(VOLUME))
        .unwrap();
    let mut bytes = world.server.store().read(&volume).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    world.server.store().overwrite(&volume, bytes.into());
    assert_eq!(world.run(&["verify"]).code, Some(5));
}

#[test]
fn a_pair_of_ours_is_one_of_ages_and_is_never_overwritten() {
    let world = World::new("");
    let path = world.path("pair").display().to_string();
    let made = world.run(&["keygen", "-o", &path]);
    good(&made);
    let line = made.stdout.trim().to_owned();
    let public = line.split('"').nth(1).unwrap().to_owned();
    let meta = std::fs::metadata(&path).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777,
        0o600
    );
    let stock = tool(Command::new("age-keygen").args(["-y", &path]));
    assert_eq!(String::from_utf8(stock).unwrap().trim(), public);
    let before = std::fs::read(&path).unwrap();
    let again = world.run(&["keygen", "-o", &path]);
    assert_eq!(again.code, Some(1), "{}", again.words());
    assert_eq!(std::fs::read(&path).unwrap(), before);
    // The line it prints is a line of the inventory.
    world.inventory(&format!(
        "[defaults]\n{line}\n[databases.x]\nengine = \"command\"\ncommand = [\"seq\", \"9\"]\n"
    ));
    good(&world.run(&["backup"]));
    let back = world.run(&["restore", "x", "--stdout", "--identity", &path]);
    assert_eq!(back.stdout.lines().count(), 9, "{}", back.stderr);
}

#[test]
fn keys_of_ssh_and_files_of_recipients_and_locked_identities_work() {
    let (world, public) = world("[\"seq\", \"1000\"]", "");
    let ssh = world.path("ssh");
    let mut keygen = Command::new("ssh-keygen");
    tool(
        keygen
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&ssh),
    );
    let line = std::fs::read_to_string(world.path("ssh.pub")).unwrap();
    world.write("recipients.txt", format!("# who\n\n{line}"));
    world.inventory(&inventory("[\"seq\", \"1000\"]", &public, "").replace(
        "encrypt_to = [",
        "encrypt_to = [{ file = \"recipients.txt\" }, ",
    ));
    let checked = world.run(&["check"]);
    assert!(
        checked.words().contains("works for ssh-ed25519 SHA256:"),
        "{}",
        checked.words()
    );
    good(&world.run(&["backup"]));
    for key in ["ssh", "key"] {
        let path = world.path(key).display().to_string();
        let back = world.run(&["restore", "x", "--stdout", "--identity", &path]);
        assert_eq!(back.stdout.lines().count(), 1000, "{}", back.stderr);
        world.write("plain", decrypt(&world, key));
        assert_eq!(untar(&world.path("plain")).len(), 3893);
    }
    // So does one of ssh that is behind a passphrase, and it is said that nobody was there.
    let behind = world.path("behind");
    let mut keygen = Command::new("ssh-keygen");
    tool(
        keygen
            .args(["-q", "-p", "-P", "", "-N", "open sesame", "-f"])
            .arg(&ssh),
    );
    std::fs::rename(&ssh, &behind).unwrap();
    let behind = behind.display().to_string();
    let refused = world.run(&["restore", "x", "--stdout", "--identity", &behind]);
    assert_eq!(refused.code, Some(3), "{}", refused.words());
    assert!(
        refused.stderr.contains("no terminal is there"),
        "{}",
        refused.stderr
    );
    answered(
        &world,
        "restore x --output behind.back --identity behind",
        "open sesame",
    );
    assert_eq!(
        std::fs::read(world.path("behind.back")).unwrap().len(),
        3893
    );
    // One of age's that is read with a passphrase needs a person.
    let locked = world.path("locked").display().to_string();
    let mut age = Command::new("sh");
    let script = "script -qec \"age -p -o locked key\" /dev/null <in >/dev/null";
    world.write("in", "open sesame\nopen sesame\n");
    tool(age.arg("-c").arg(script).current_dir(world.folder.path()));
    let refused = world.run(&["restore", "x", "--stdout", "--identity", &locked]);
    assert_eq!(refused.code, Some(3), "{}", refused.words());
    let restore = "restore x --output back --identity locked";
    answered(&world, restore, "open sesame");
    assert_eq!(std::fs::read(world.path("back")).unwrap().len(), 3893);
}

/// Runs `tapline ARGS` on a terminal, at which somebody types `answer` when asked for a passphrase.
fn answered(world: &World, args: &str, answer: &str) {
    let mut script = Command::new("script");
    let mut running = script
        .args(["-qec", &format!("{TAPLINE} {args}"), "/dev/null"])
        .current_dir(world.folder.path())
        .env("AWS_SHARED_CREDENTIALS_FILE", world.path("credentials"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut shown, mut said) = (running.stdout.take().unwrap(), Vec::new());
    let mut byte = [0];
    // What is typed before the question is thrown away.
    while !String::from_utf8_lossy(&said).contains("assphrase") {
        assert_eq!(shown.read(&mut byte).unwrap(), 1, "nobody was asked");
        said.push(byte[0]);
    }
    let mut typed = running.stdin.take().unwrap();
    writeln!(typed, "{answer}").unwrap();
    shown.read_to_end(&mut said).unwrap();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(running.wait().unwrap().success(), "{said}");
    assert!(!said.contains(answer), "the terminal shows it: {said}");
}

#[test]
fn one_recipient_alone_is_warned_of_and_both_ways_are_refused() {
    let (world, public) = world("[\"seq\", \"9\"]", "");
    let checked = world.run(&["check"]);
    good(&checked);
    assert!(
        checked.words().contains("for nobody else"),
        "{}",
        checked.words()
    );
    // Named twice, it is one all the same.
    world.write("twice", format!("{public}\n{public}\n"));
    let twice = inventory("[\"seq\", \"9\"]", &public, "")
        .replace("encrypt_to = [", "encrypt_to = [{ file = \"twice\" }, ");
    world.inventory(&twice);
    let checked = world.run(&["check"]).words();
    assert!(checked.contains("for nobody else"), "{checked}");
    world.inventory(&inventory(
        "[\"seq\"]",
        &public,
        "passphrase = { env = \"P\" }",
    ));
    let refused = world.run(&["check"]);
    assert_eq!(refused.code, Some(3));
    assert!(
        refused.stderr.contains("exclude each other"),
        "{}",
        refused.stderr
    );
    let secret = std::fs::read_to_string(world.path("key")).unwrap();
    let secret = secret.lines().last().unwrap();
    world.inventory(&inventory("[\"seq\"]", secret, ""));
    let refused = world.run(&["backup"]);
    assert_eq!(refused.code, Some(3));
    assert!(refused.stderr.contains("private key") && !refused.words().contains(secret));
}

#[test]
fn a_passphrase_locks_and_opens_and_stock_age_reads_it() {
    let world = World::new(
        "[databases.x]\nengine = \"command\"\ncommand = [\"seq\", \"1000\"]\n\
         passphrase = { file = \"phrase\" }\n",
    );
    world.write("phrase", "open sesame\n");
    good(&world.run(&["backup"]));
    // The host that locks it can open it; another needs to be told.
    good(&world.run(&["verify"]));
    assert_eq!(
        world
            .run(&["restore", "x", "--stdout"])
            .stdout
            .lines()
            .count(),
        1000
    );
    world.write("wrong", "close sesame\n");
    let refused = world.run(&["restore", "x", "--stdout", "--passphrase-file", "wrong"]);
    assert_eq!(refused.code, Some(3));
    assert!(
        refused.stderr.contains("its passphrase is needed"),
        "{}",
        refused.stderr
    );
    let mut asked = world.tapline(&["restore", "x", "--stdout", "--passphrase-env", "PHRASE"]);
    let asked = Run::from(asked.env("PHRASE", "open sesame").output().unwrap());
    assert_eq!(asked.stdout.lines().count(), 1000, "{}", asked.stderr);
    // On another host nothing but the bucket is there, and a person.
    let from = "restore x --output asked --from s3://bucket/backups --region us-east-1";
    let from = format!("{from} --endpoint {}", world.server.endpoint());
    world.write(
        "credentials",
        format!("[default]\naws_access_key_id={ACCESS_KEY}\naws_secret_access_key={SECRET_KEY}\n"),
    );
    std::fs::rename(world.path("tapline.toml"), world.path("elsewhere")).unwrap();
    answered(&world, &from, "open sesame");
    assert_eq!(std::fs::read(world.path("asked")).unwrap().len(), 3893);
    std::fs::rename(world.path("elsewhere"), world.path("tapline.toml")).unwrap();
    // What age could not be given on a terminal locks nothing.
    world.write("phrase", "open\nsesame\n");
    let refused = world.run(&["backup"]);
    assert_eq!(refused.code, Some(3), "{}", refused.words());
    assert!(refused.stderr.contains("line break") && !refused.words().contains("sesame"));
    world.download("x");
    let script = "(sleep 1; echo open sesame) | script -qec 'age -d -o plain archive' /dev/null";
    let mut age = Command::new("sh");
    tool(age.arg("-c").arg(script).current_dir(world.folder.path()));
    assert_eq!(untar(&world.path("plain")).len(), 3893);
}

#[test]
fn an_encrypted_postgres_database_comes_back_with_what_is_said_about_it() {
    let server = Postgres::start();
    server.sql("postgres", "create database shop connection limit 7");
    server.sql(
        "postgres",
        &format!("comment on database shop is '{MARKER}'"),
    );
    server.sql(
        "shop",
        "create table t (x int); insert into t select generate_series(1, 5000)",
    );
    let world = World::new("");
    let public = keygen(&world, "key");
    world.write("password", PASSWORD);
    world.inventory(&format!(
        "[defaults]\nencrypt_to = [\"{public}\"]\n[databases.shop]\nengine = \"postgres\"\n\
         host = \"127.0.0.1\"\nport = {}\nuser = \"admin\"\npassword = {{ file = \"password\" }}\n",
        server.port()
    ));
    for mode in ["streamed", "staged"] {
        good(&world.run(&["backup", "--mode", mode]));
        for key in world.server.store().keys() {
            let bytes = world.server.store().read(&key).unwrap();
            assert!(!String::from_utf8_lossy(&bytes).contains(MARKER), "{key}");
        }
        let identity = identity_file(&world);
        good(&world.run(&["verify", "--drill", "--identity", &identity]));
        // Without a key nothing is touched.
        let refused = world.run(&["restore", "shop", "--overwrite", "--yes"]);
        assert_eq!(refused.code, Some(3), "{}", refused.words());
        server.sql("postgres", "drop database shop");
        good(&world.run(&["restore", "shop", "--identity", &identity]));
        assert_eq!(server.sql("shop", "select count(*) from t").trim(), "5000");
        let said = "select datconnlimit, shobj_description(oid, 'pg_database') \
                    from pg_database where datname = 'shop'";
        let said = server.sql("postgres", said);
        assert!(said.contains('7') && said.contains(MARKER), "{said}");
    }
}

#[test]
fn no_plaintext_key_or_passphrase_is_left_anywhere() {
    let world = World::new("");
    let command = format!("[\"sh\", \"-c\", \"env > env; yes {MARKER} | head -n 200000\"]");
    world.inventory(&format!(
        "[databases.x]\nengine = \"command\"\ncommand = {command}\nlevel = 1\n\
         passphrase = {{ env = \"PHRASE\" }}\nrestore = [\"sh\", \"-c\", \"env > env2; cat > back\"]\n"
    ));
    let phrase = "a-secret-of-the-host-0815";
    let mut backup = world.tapline(&["-vv", "backup", "--report", "report.json"]);
    let backup = Run::from(backup.env("PHRASE", phrase).output().unwrap());
    good(&backup);
    let mut restore = world.tapline(&[
        "-vv",
        "restore",
        "x",
        "--overwrite",
        "--passphrase-env",
        "PHRASE",
    ]);
    let restore = Run::from(restore.env("PHRASE", phrase).output().unwrap());
    good(&restore);
    let restored = std::fs::read_to_string(world.path("back")).unwrap();
    assert_eq!(
        restored.lines().filter(|line| *line == MARKER).count(),
        200_000
    );
    let read = |name: &str| std::fs::read_to_string(world.path(name)).unwrap();
    let said = [
        backup.words(),
        restore.words(),
        read("report.json"),
        read("env"),
        read("env2"),
    ];
    for text in said {
        assert!(!text.contains(phrase), "{text}");
        assert!(!text.replace(&command, "").contains(MARKER), "{text}");
    }
    for key in world.server.store().keys() {
        let bytes = world.server.store().read(&key).unwrap();
        for secret in [MARKER, phrase] {
            let found = bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} is in {key}");
        }
    }
}

#[test]
fn what_a_failed_run_or_check_says_of_the_content_is_not_in_the_store() {
    let command = format!("[\"sh\", \"-c\", \"echo {MARKER} >&2; exit 1\"]");
    let (world, public) = world(&command, "hide_names = true");
    let failed = world.run(&["backup"]);
    assert_eq!(failed.code, Some(1));
    assert!(failed.words().contains(MARKER), "who backs up is told");
    world.inventory(&inventory("[\"seq\", \"9\"]", &public, "hide_names = true"));
    good(&world.run(&["backup"]));
    let volume = world
        .keys("x")
        .into_iter()
        .find(|key| key.ends_with(VOLUME));
    world
        .server
        .store()
        .overwrite(&volume.unwrap(), "cut".into());
    let identity = identity_file(&world);
    assert_eq!(
        world.run(&["verify", "--identity", &identity]).code,
        Some(5)
    );
    let records: Vec<String> = world.server.store().keys();
    let records: Vec<_> = records
        .iter()
        .filter(|key| key.contains("/records/"))
        .collect();
    assert_eq!(records.len(), 2, "{records:?}");
    for key in world.server.store().keys() {
        let bytes = world.server.store().read(&key).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            !text.contains(MARKER) && !text.contains("x.sql"),
            "{key}: {text}"
        );
        assert!(
            !key.contains("/records/") || text.contains("are encrypted"),
            "{key}: {text}"
        );
    }
}

#[test]
fn of_many_flipped_bits_each_is_found_and_no_more_is_given_away_than_age_would() {
    let command = "[\"sh\", \"-c\", \"seq 120000 | sort -R --random-source=/bin/sh\"]";
    let (world, _) = world(command, "restore = [\"sh\", \"-c\", \"cat > given\"]");
    good(&world.run(&["backup"]));
    let keys = world.keys("x");
    let key_of = |end: &str| keys.iter().find(|key| key.ends_with(end)).unwrap();
    let (volume, manifest_key) = (key_of(VOLUME), key_of("manifest.json"));
    let whole = world.server.store().read(volume).unwrap();
    let plain = stock(&world);
    let identity = identity_file(&world);
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..if is_long_run() { 200 } else { 40 } {
        let mut bytes = whole.clone();
        let at = random.usize(..bytes.len());
        bytes[at] ^= 1 << random.u8(..8);
        // The manifest fits it, as well as somebody without a key can make it fit.
        let mut manifest = world.manifest("x");
        let forged = &mut manifest.archive.volumes[0];
        forged.crc64nvme = Checksum::of(ChecksumKind::Crc64Nvme, &bytes).to_base64();
        forged.digest = None;
        world
            .server
            .store()
            .overwrite(manifest_key, manifest.to_json().into());
        world.server.store().overwrite(volume, bytes.clone().into());
        let _ = std::fs::remove_file(world.path("given"));
        let refused = world.quietly(&["restore", "x", "--overwrite", "--identity", &identity]);
        assert!(
            [Some(3), Some(5)].contains(&refused.code),
            "byte {at}: {}",
            refused.words()
        );
        let given = std::fs::read(world.path("given")).unwrap_or_default();
        assert!(
            plain.starts_with(&given) && given.len() < plain.len(),
            "byte {at}"
        );

        let mut age = Command::new("age");
        age.arg("-d").arg("-i").arg(world.path("key"));
        age.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut age = age.spawn().unwrap();
        let mut into = age.stdin.take().unwrap();
        let writer = std::thread::spawn(move || drop(into.write_all(&bytes)));
        let delivered = age.wait_with_output().unwrap();
        writer.join().unwrap();
        assert!(!delivered.status.success(), "byte {at}");
        let most = ungzip(&delivered.stdout).len();
        assert!(given.len() <= most, "byte {at}: {} of {most}", given.len());
    }
}

/// As much as a gzip stream that ends anywhere gives.
fn ungzip(bytes: &[u8]) -> Vec<u8> {
    let (mut all, mut some) = (Vec::new(), [0; 4096]);
    let mut gzip = flate2::read::GzDecoder::new(bytes);
    while let Ok(read) = gzip.read(&mut some) {
        if read == 0 {
            break;
        }
        all.extend_from_slice(&some[..read]);
    }
    all
}
