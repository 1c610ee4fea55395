//! Who is told how a run went, by a web server of this test's own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::world::{Run, World, end_of, signal, wait_until};

const SHOP: &str = "[databases.shop]\nengine = \"command\"\n\
    command = [\"sh\", \"-c\", \"test ! -e broken && seq 9\"]\n";

#[derive(Debug, Clone)]
struct Posted {
    path: String,
    head: String,
    body: String,
}

/// A web server that notes what is posted to it and answers with `statuses` in turn, the last one
/// for ever; 0 is no answer at all.
struct Web {
    address: String,
    posted: Arc<Mutex<Vec<Posted>>>,
}

impl Web {
    fn answering(statuses: &'static [u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let posted = Arc::<Mutex<Vec<Posted>>>::default();
        let notes = posted.clone();
        std::thread::spawn(move || {
            for (at, socket) in listener.incoming().enumerate() {
                let status = statuses[at.min(statuses.len() - 1)];
                let (notes, socket) = (notes.clone(), socket.unwrap());
                std::thread::spawn(move || answer(socket, status, &notes));
            }
        });
        Self { address, posted }
    }

    fn posted(&self) -> Vec<Posted> {
        self.posted.lock().unwrap().clone()
    }

    fn paths(&self) -> Vec<String> {
        self.posted()
            .into_iter()
            .map(|posted| posted.path)
            .collect()
    }

    fn forget(&self) {
        self.posted.lock().unwrap().clear();
    }
}

fn answer(mut socket: TcpStream, status: u16, notes: &Mutex<Vec<Posted>>) {
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or_default() == 0 {
            return;
        }
    }
    let length = head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length: ")?
                .parse()
                .ok()
        })
        .unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let body = String::from_utf8(body).unwrap();
    notes.lock().unwrap().push(Posted { path, head, body });
    if status == 0 {
        std::thread::sleep(Duration::from_mins(1));
    }
    let answer = format!(
        "HTTP/1.1 {status} X\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\
         connection: close\r\n\r\n"
    );
    let _ = socket.write_all(answer.as_bytes());
}

/// `tapline ARGS` with its own folder for state.
fn command(world: &World, args: &[&str]) -> Command {
    let mut command = world.tapline(args);
    command
        .env_remove("STATE_DIRECTORY")
        .env("XDG_STATE_HOME", world.folder.path().join("state"))
        .env("TEST_PING", "not a URL at all, sesame");
    command
}

fn run(world: &World, args: &[&str]) -> Run {
    let run = Run::from(command(world, args).output().unwrap());
    println!("$ tapline {args:?}\n{}→ {:?}", run.words(), run.code);
    run
}

fn json(posted: &Posted) -> Value {
    serde_json::from_str(&posted.body).unwrap()
}

#[test]
fn a_ping_is_told_of_the_begin_and_of_the_end_with_the_report() {
    let web = Web::answering(&[200]);
    let world = World::new(&format!(
        "[notify]\nping = \"http://{}/uuid?rid=1\"\n{SHOP}",
        web.address
    ));
    assert_eq!(run(&world, &["backup"]).code, Some(0));
    assert_eq!(web.paths(), ["/uuid/start?rid=1", "/uuid?rid=1"]);
    assert!(web.posted()[1].body.contains("1 of 1 stored"));
    web.forget();
    world.write("broken", "");
    assert_eq!(run(&world, &["backup"]).code, Some(1));
    assert_eq!(web.paths(), ["/uuid/start?rid=1", "/uuid/fail?rid=1"]);
    let body = &web.posted()[1].body;
    assert!(body.contains("0 of 1 stored, 1 failed") && body.contains("exited with status 1"));
    web.forget();
    // Nothing is done, and nothing told.
    assert_eq!(run(&world, &["backup", "--dry-run"]).code, Some(0));
    assert_eq!(run(&world, &["list"]).code, Some(0));
    assert_eq!(web.paths(), Vec::<String>::new());
    // A run that does not come as far as its jobs has failed, too.
    std::fs::remove_file(world.path("secret")).unwrap();
    assert_eq!(run(&world, &["backup"]).code, Some(3));
    assert_eq!(web.paths(), ["/uuid/start?rid=1", "/uuid/fail?rid=1"]);
    assert!(
        web.posted()[1]
            .body
            .contains("stores.s3.secret_key: cannot read")
    );
}

#[test]
fn a_webhook_is_told_of_failures_and_of_the_recovery_and_of_a_success_when_that_is_wanted() {
    let web = Web::answering(&[204]);
    let inventory = |on: &str| {
        format!(
            "[notify]\nwebhook = {{ file = \"hook\" }}\n{on}\
             headers = {{ Authorization = {{ file = \"token\" }} }}\n{SHOP}"
        )
    };
    let world = World::new(&inventory(""));
    world.write("hook", format!("http://{}/services/T0/B0\n", web.address));
    world.write("token", "Bearer sesame\n");
    run(&world, &["backup"]);
    assert_eq!(web.paths(), Vec::<String>::new());
    world.write("broken", "");
    run(&world, &["backup"]);
    run(&world, &["backup"]);
    std::fs::remove_file(world.path("broken")).unwrap();
    run(&world, &["backup"]);
    run(&world, &["backup"]);
    let posted = web.posted();
    let events: Vec<Value> = posted
        .iter()
        .map(|one| json(one)["event"].clone())
        .collect();
    assert_eq!(events, ["failure", "failure", "recovery"]);
    let failure = json(&posted[0]);
    assert_eq!(failure["version"], 1);
    assert_eq!(failure["failures"][0]["database"], "shop");
    let why = failure["failures"][0]["message"].as_str().unwrap();
    assert!(why.contains("exited with status 1"), "{why}");
    let text = failure["text"].as_str().unwrap();
    assert!(text.starts_with("tapline on ") && text.contains(": backup of shop failed\n"));
    assert!(text.contains("0 of 1 stored"));
    assert_eq!(json(&posted[2])["recovered"][0], "shop");
    let head = posted[0].head.to_ascii_lowercase();
    assert!(head.contains("authorization: bearer sesame"));
    assert!(head.contains("content-type: application/json"));
    // A run that did not come as far as its jobs is recovered from, too.
    web.forget();
    std::fs::rename(world.path("secret"), world.path("away")).unwrap();
    run(&world, &["backup"]);
    std::fs::rename(world.path("away"), world.path("secret")).unwrap();
    run(&world, &["backup"]);
    let events: Vec<Value> = web
        .posted()
        .iter()
        .map(|one| json(one)["event"].clone())
        .collect();
    assert_eq!(events, ["failure", "recovery"]);
    world.inventory(&inventory("on = [\"success\"]\n"));
    web.forget();
    run(&world, &["backup"]);
    assert_eq!(json(&web.posted()[0])["event"], "success");
}

#[test]
fn a_command_reads_the_notice_and_sees_no_secret() {
    let world = World::new(&format!(
        "[notify]\ncommand = [\"sh\", \"-c\", \"cat > told; env > seen\"]\n{SHOP}"
    ));
    world.write("broken", "");
    run(&world, &["backup"]);
    let told: Value = serde_json::from_slice(&std::fs::read(world.path("told")).unwrap()).unwrap();
    assert_eq!(told["event"], "failure");
    let seen = std::fs::read_to_string(world.path("seen")).unwrap();
    assert!(seen.contains("PATH=") && !seen.contains("sesame"), "{seen}");
}

#[test]
fn what_cannot_be_told_fails_nothing_and_names_no_more_than_the_host() {
    let refusing = Web::answering(&[404]);
    let moved = Web::answering(&[302]);
    let world = World::new(&format!(
        "[notify]\nping = \"http://{}/sesame\"\nwebhook = \"http://{}/sesame\"\n\
         command = [\"false\"]\non = [\"success\"]\n{SHOP}",
        refusing.address, moved.address
    ));
    let told = run(&world, &["backup", "-vv"]);
    assert_eq!(told.code, Some(0));
    for words in [
        "notify.ping: 127.0.0.1 answered 404",
        "notify.webhook: 127.0.0.1 answered 302",
        "notify.command: false ended with exit status: 1",
    ] {
        assert!(told.stderr.contains(words), "{words}");
    }
    assert!(!told.words().contains("sesame"));
    // A redirect is not followed.
    assert_eq!(moved.paths(), ["/sesame"]);
    world.inventory(&format!(
        "[notify]\nping = {{ env = \"TEST_PING\" }}\n{SHOP}"
    ));
    let told = run(&world, &["backup", "-vv"]);
    assert!(told.code == Some(0) && told.stderr.contains("notify.ping: tapline.toml:"));
    assert!(!told.words().contains("sesame"));
}

#[test]
fn a_service_that_is_down_for_a_moment_is_told_and_one_that_hangs_keeps_nobody_long() {
    let shaky = Web::answering(&[503, 500, 200]);
    let world = World::new(&format!(
        "[notify]\nwebhook = \"http://{}/x\"\non = [\"success\"]\n{SHOP}",
        shaky.address
    ));
    let told = run(&world, &["backup"]);
    assert!(told.code == Some(0) && !told.stderr.contains("notify"));
    assert_eq!(shaky.posted().len(), 3);
    let hanging = Web::answering(&[0]);
    world.inventory(&format!(
        "[notify]\nwebhook = \"http://{}/x\"\non = [\"success\"]\n{SHOP}",
        hanging.address
    ));
    let start = Instant::now();
    let told = run(&world, &["backup"]);
    assert!(told.code == Some(0) && told.stderr.contains("not done within 10 s"));
    let took = start.elapsed().as_secs();
    assert!((10..60).contains(&took), "{took}");
    // Nor does it keep one who has had enough.
    let mut running = command(&world, &["backup"]).spawn().unwrap();
    hanging.forget();
    wait_until(|| !hanging.posted().is_empty());
    let start = Instant::now();
    signal(&running, "TERM");
    assert_eq!(end_of(&mut running).code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(9));
}

#[test]
fn where_nobody_is_to_be_told_nothing_is_noted() {
    let world = World::new(SHOP);
    world.write("broken", "");
    assert_eq!(run(&world, &["backup"]).code, Some(1));
    assert!(!world.path("state").exists());
}

#[test]
fn notices_can_be_tried() {
    let web = Web::answering(&[200, 200, 403]);
    let world = World::new(&format!(
        "[notify]\nping = \"http://{0}/p\"\nwebhook = \"http://{0}/w\"\n{SHOP}",
        web.address
    ));
    assert_eq!(run(&world, &["notify", "--test"]).code, Some(0));
    let mut paths = web.paths();
    paths.sort();
    assert_eq!(paths, ["/p", "/w"]);
    let told = run(&world, &["notify", "--test"]);
    assert!(told.code == Some(5) && told.stderr.contains("answered 403"));
    assert_eq!(run(&world, &["notify"]).code, Some(2));
    for (notify, why) in [
        ("", "nobody is to be told"),
        (
            "ping = \"ftp://sesame\"\n",
            "notify.ping: must begin with https://",
        ),
        (
            "webhook = \"http://me:sesame@h\"\n",
            "notify.webhook: has a user in it",
        ),
        ("on = [\"always\"]\n", "notify.on: holds \"failure\""),
        ("command = []\n", "notify.command: is empty"),
        ("pings = \"x\"\n", "did you mean `ping`?"),
        (
            "webhook = \"http://h\"\nheaders = { A = \"sesame\" }\n",
            "notify.headers.A: a secret must not stand",
        ),
    ] {
        world.inventory(&format!("[notify]\n{notify}{SHOP}"));
        let told = run(&world, &["notify", "--test"]);
        assert!(told.code == Some(3) && told.stderr.contains(why), "{why}");
        assert!(!told.stderr.contains("sesame"));
    }
}

#[test]
fn a_webhook_is_told_as_its_service_wants_it() {
    let web = Web::answering(&[200]);
    let world = World::new(SHOP);
    world.write("broken", "");
    world.write(
        "own.json",
        r#"{ "json": { "it": ["{{event}} on {{host}}: {{report:9}}"] } }"#,
    );
    let told = |template: &str| {
        web.forget();
        world.inventory(&format!(
            "[notify]\nwebhook = \"http://{}/hook\"\ntemplate = \"{template}\"\n{SHOP}",
            web.address
        ));
        assert_eq!(run(&world, &["backup"]).code, Some(1));
        let posted = web.posted();
        assert_eq!(posted.len(), 1, "{template}");
        posted[0].clone()
    };
    let title = |value: &Value| value.as_str().unwrap().ends_with(": backup of shop failed");
    let slack = json(&told("slack"));
    assert!(title(&slack["text"]) && title(&slack["blocks"][0]["text"]["text"]));
    let section = slack["blocks"][1]["text"]["text"].as_str().unwrap();
    assert!(section.contains("0 of 1 stored, 1 failed"), "{section}");
    let discord = json(&told("discord"));
    assert_eq!(discord["embeds"][0]["color"], 0x00d8_3316);
    let teams = json(&told("teams"));
    assert!(title(
        &teams["attachments"][0]["content"]["body"][0]["text"]
    ));
    let gotify = json(&told("gotify"));
    assert!(title(&gotify["title"]) && gotify["priority"] == 8);
    let ntfy = told("ntfy");
    let head = ntfy.head.to_ascii_lowercase();
    assert!(head.contains("priority: high\r\n") && head.contains("tags: rotating_light\r\n"));
    assert!(head.contains(": backup of shop failed\r\n") && head.contains("text/plain"));
    assert!(ntfy.body.contains("0 of 1 stored, 1 failed"));
    let own = json(&told("./own.json"));
    let own = own["it"][0].as_str().unwrap();
    assert!(own.starts_with("failure on "), "{own}");
}
