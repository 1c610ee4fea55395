//! Notices by mail, to a real mail server, and webhooks as each service wants them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::networks::certify;
use super::world::World;

const BROKEN: &str = "[databases.shop]\nengine = \"command\"\n\
    command = [\"sh\", \"-c\", \"test ! -e broken && seq 9\"]\n";

/// aiosmtpd, with TLS by the world's own authority.
struct MailServer {
    process: Child,
    port: u16,
}

impl MailServer {
    fn start(world: &World, mode: &str) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/smtpd.py");
        // Debian's own: python3-aiosmtpd is of that.
        let mut process = Command::new("/usr/bin/python3")
            .arg(script)
            .arg(world.folder.path())
            .arg(mode)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = process.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let port = line.trim().parse().expect("the mail server says its port");
        Self { process, port }
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn inventory(port: u16, more: &str) -> String {
    format!(
        "[notify]\non = [\"failure\", \"recovery\"]\nemail = {{ server = \"127.0.0.1\", \
         port = {port}, from = \"Tapline <tapline@example.com>\", \
         to = [\"a@example.com\", \"B <b@example.com>\"], user = \"me\", \
         password = {{ file = \"mail-password\" }}{more} }}\n{BROKEN}"
    )
}

fn world(mode: &str, keys: &str) -> (World, MailServer) {
    let world = World::new(BROKEN);
    certify(world.folder.path());
    world.write("mail-password", "sesame-mail\n");
    let server = MailServer::start(&world, mode);
    world.inventory(&inventory(server.port, keys));
    (world, server)
}

#[test]
fn a_failure_and_its_recovery_are_mailed_by_starttls_and_by_tls() {
    for (mode, tls) in [("starttls", ""), ("tls", ", tls = \"tls\"")] {
        let (world, _server) = world(mode, &format!(", ca_file = \"ca.pem\"{tls}"));
        let mail = |number: usize| {
            let text = std::fs::read_to_string(world.path(&format!("mail-{number}")));
            text.unwrap_or_default().replace("\r\n", "\n")
        };
        assert_eq!(world.run(&["backup"]).code, Some(0));
        assert_eq!(mail(0), "", "a success is not told");
        world.write("broken", "");
        let failed = world.run(&["backup"]);
        assert_eq!(failed.code, Some(1));
        let told = mail(0);
        for words in [
            "X-Tls: True\nX-User: me\nX-To: ['a@example.com', 'b@example.com']\n",
            "X-From: tapline@example.com\n",
            "Subject: tapline on ",
            ": backup of shop failed\n",
            "0 of 1 stored, 1 failed",
            "exited with status 1",
        ] {
            assert!(told.contains(words), "{mode}: {words}: {told}");
        }
        std::fs::remove_file(world.path("broken")).unwrap();
        assert_eq!(world.run(&["backup"]).code, Some(0));
        assert!(
            mail(1).contains(": all backups are good again\n"),
            "{}",
            mail(1)
        );
        let tried = world.run(&["notify", "--test"]);
        assert_eq!(tried.code, Some(0));
        assert!(
            tried
                .stdout
                .contains("ok    notify.email: 127.0.0.1 took it: 250")
        );
        assert!(mail(2).contains("this is a test"));
        assert!(!failed.words().contains("sesame") && !tried.words().contains("sesame"));
    }
}

#[test]
fn a_mail_that_is_not_taken_is_reported_and_fails_nothing() {
    let cases = [
        // Nobody who is not trusted is told anything.
        ("starttls", "", "sesame-mail", "certificate"),
        ("starttls", ", ca_file = \"ca.pem\"", "sesame-wrong", "535"),
        (
            "refuse",
            ", ca_file = \"ca.pem\"",
            "sesame-mail",
            "no room at the inn",
        ),
        (
            "starttls",
            ", ca_file = \"nowhere\"",
            "sesame-mail",
            "ca_file ",
        ),
    ];
    for (mode, more, password, why) in cases {
        let (world, _server) = world(mode, more);
        world.write("mail-password", password);
        world.write("broken", "");
        let run = world.run(&["backup", "-vv"]);
        assert_eq!(run.code, Some(1), "the backup's own code");
        assert!(run.stderr.contains("notify.email: ") && run.stderr.contains(why));
        assert!(!run.words().contains("sesame"), "{why}");
        let tried = world.run(&["notify", "--test"]);
        assert!(tried.code == Some(5) && tried.stderr.contains(why), "{why}");
        assert!(!world.path("mail-0").exists(), "{why}");
        std::fs::remove_file(world.path("broken")).unwrap();
        assert_eq!(world.run(&["backup"]).code, Some(0));
    }
    // Nobody listens.
    let world = World::new(&inventory(1, ""));
    world.write("mail-password", "sesame-mail\n");
    let tried = world.run(&["notify", "--test"]);
    assert!(tried.code == Some(5) && tried.stderr.contains("notify.email: 127.0.0.1: "));
}

#[test]
fn what_is_wrong_about_a_mail_or_a_template_is_said_with_its_place() {
    let world = World::new(BROKEN);
    let mail = "server = \"h\", from = \"a@b.c\", to = [\"a@b.c\"]";
    world.write("own.json", "{ \"text\": \"{{titel}}\" }");
    for (notify, why) in [
        (
            format!("email = {{ {mail}, tls = \"ssl\" }}"),
            "notify.email.tls: must be \"starttls\"",
        ),
        (
            format!("email = {{ {mail}, port = 0 }}"),
            "notify.email.port: must be from 1",
        ),
        (
            format!("email = {{ {mail}, prot = 1 }}"),
            "did you mean `port`?",
        ),
        (
            format!("email = {{ {mail}, user = \"me\" }}"),
            "password is missing",
        ),
        (
            format!("email = {{ {mail}, user = \"me\", password = \"sesame\" }}"),
            "notify.email.password: a secret must not stand",
        ),
        (
            format!(
                "email = {{ {mail}, tls = \"none\", user = \"me\", password = {{ env = \"X\" }} }}"
            ),
            "a password is not sent in the open",
        ),
        (
            "email = { server = \"h\", to = [\"a@b.c\"] }".into(),
            "from is missing",
        ),
        (
            "email = { server = \"h\", from = \"nobody\", to = [\"a@b.c\"] }".into(),
            "notify.email.from: is no address",
        ),
        (
            "email = { server = \"h\", from = \"a@b.c\", to = [] }".into(),
            "to is missing",
        ),
        (
            "template = \"slack\"".into(),
            "notify.template: goes with webhook",
        ),
        (
            "webhook = \"http://h\"\ntemplate = \"slak\"".into(),
            "there is slack, teams, discord, ntfy, gotify",
        ),
        (
            "webhook = \"http://h\"\ntemplate = \"./own.json\"".into(),
            "no \"titel\"",
        ),
        (
            "webhook = \"http://h\"\ntemplate = \"./none.json\"".into(),
            "No such file",
        ),
    ] {
        world.inventory(&format!("[notify]\n{notify}\n{BROKEN}"));
        let told = world.run(&["notify", "--test"]);
        assert!(told.code == Some(3) && told.stderr.contains(why), "{why}");
        assert!(!told.stderr.contains("sesame"));
    }
}
