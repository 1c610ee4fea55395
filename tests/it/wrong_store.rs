//! What people get wrong about a store: a bucket, a key, a proxy, an endpoint. Each is told in one
//! sentence that names the cause and what to do, once, and nothing is said to be left where nothing
//! can be.

use std::process::Command;

use tapline::store::Store;

use super::store_http::{Server, error, reply};
use super::world::{Run, World, store};

const DATABASE: &str = "[databases.x]\nengine = \"command\"\ncommand = [\"echo\", \"hello\"]\n";
/// As many bytes: it is put as one object.
const SMALL: &str = "expected_size = 6\n";
/// Nobody listens there.
const NOWHERE: &str = "http://127.0.0.1:1";

/// Without what the machine's own environment says.
fn alone<'a>(world: &World, command: &'a mut Command) -> &'a mut Command {
    for name in ["HTTP_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    for name in [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_PROFILE",
        "AWS_ENDPOINT_URL",
    ] {
        command.env_remove(name);
    }
    command
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("HOME", world.folder.path())
}

fn run(world: &World, args: &[&str], variables: &[(&str, &str)]) -> Run {
    let mut command = world.tapline(args);
    let output = alone(world, &mut command).envs(variables.iter().copied());
    let run = Run::from(output.output().unwrap());
    println!("{args:?} {variables:?}: {:?}\n{}", run.code, run.words());
    run
}

/// The store's entry without keys of its own.
fn keyless(endpoint: &str) -> String {
    let entry = store(endpoint);
    let lines = entry.split_inclusive('\n');
    lines.filter(|line| !line.contains("_key")).collect()
}

#[test]
fn where_the_store_has_taken_nothing_nothing_is_said_to_be_left() {
    let world = World::new("");
    let endpoint = world.server.endpoint();
    let without = world.block_on(Server::start(0, |_| error(404, "NoSuchBucket")));
    let wrong_bucket = store(&format!("http://{}", without.address));
    let wrong_scheme = store(&endpoint.replace("http://", "https://"));
    let wrong_secret = store(&endpoint).replace("\"secret\"", "\"access\"");
    for (entry, cause, advice) in [
        (
            &wrong_bucket,
            "NoSuchBucket",
            "check the bucket in the store's url",
        ),
        (
            &wrong_secret,
            "SignatureDoesNotMatch",
            "check the store's access_key",
        ),
        (&wrong_scheme, "TLS", "https:// or http://"),
    ] {
        for size in ["", SMALL] {
            world.write("tapline.toml", format!("{entry}{DATABASE}{size}"));
            let failed = run(&world, &["backup"], &[]);
            assert_eq!(failed.code, Some(4));
            let words = failed.words();
            assert!(words.contains(cause) && words.contains(advice), "{words}");
            assert!(!words.contains("may be left"), "{words}");
            assert!(!words.contains(".; "), "{words}");
        }
    }
    world.assert_store_is_clean();
}

#[test]
fn check_asks_nothing_more_where_there_is_no_s3_server() {
    let world = World::new("");
    let page = "<html>Welcome to nginx</html>";
    let server = world.block_on(Server::start(0, |_| reply(404, "", page)));
    let there = format!("http://{}", server.address);
    for (endpoint, told) in [
        (
            NOWHERE,
            "Connection refused (os error 111); check the host and the port",
        ),
        (
            &there,
            "Welcome to nginx</html>\"; check the store's endpoint",
        ),
    ] {
        world.write("tapline.toml", format!("{}{DATABASE}", store(endpoint)));
        let checked = run(&world, &["check"], &[]);
        assert_eq!(checked.code, Some(5));
        let of_store: Vec<_> = checked
            .stdout
            .lines()
            .filter(|line| line.contains("store s3"))
            .collect();
        assert_eq!(of_store.len(), 1, "{of_store:?}");
        assert!(of_store[0].contains(told), "{of_store:?}");
    }
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn a_proxy_that_is_not_there_is_named_and_not_the_store() {
    let world = World::new("");
    world.write(
        "tapline.toml",
        format!("{}{DATABASE}", store(&world.server.endpoint())),
    );
    let proxy = ("HTTP_PROXY", "http://guest:sesame@127.0.0.1:1");
    let words = run(&world, &["check"], &[proxy]).words();
    for part in [
        "through the proxy 127.0.0.1:1: ",
        "; check HTTPS_PROXY, HTTP_PROXY and NO_PROXY",
    ] {
        assert!(words.contains(part), "{words}");
    }
    assert!(!words.contains("sesame"));
    // Of an address, too.
    let around = run(&world, &["check"], &[proxy, ("NO_PROXY", "localhost, *")]);
    assert_eq!(around.code, Some(0));
}

#[test]
fn why_there_are_no_credentials_is_said_in_one_line_with_the_variable_that_led_there() {
    let world = World::new("");
    let entry = keyless(&world.server.endpoint());
    world.write("tapline.toml", format!("{entry}{DATABASE}"));
    std::fs::create_dir(world.path(".aws")).unwrap();
    world.write(
        ".aws/config",
        "[profile fails]\ncredential_process = sh -c \"echo log in again >&2; exit 3\"\n\
         [profile prints]\ncredential_process = echo hello\n",
    );
    for (variable, told) in [
        (
            ("AWS_PROFILE", "nosuch"),
            "(AWS_PROFILE is nosuch); set the store's",
        ),
        (
            ("AWS_PROFILE", "fails"),
            "log in again (AWS_PROFILE is fails); set the store's",
        ),
        (
            ("AWS_PROFILE", "prints"),
            "(AWS_PROFILE is prints); set the store's",
        ),
        (
            ("AWS_ACCESS_KEY_ID", "k"),
            "AWS_ACCESS_KEY_ID is set, and AWS_SECRET_ACCESS_KEY is not",
        ),
        (
            ("PATH", "/usr/bin:/bin"),
            "there are no credentials; set the store's access_key",
        ),
    ] {
        let checked = run(&world, &["check"], &[variable]);
        let line = checked
            .stdout
            .lines()
            .find(|line| line.contains("store s3 put"));
        let line = line.expect("a line");
        assert!(line.contains(told), "{told:?} is not in {line:?}");
        assert!(!line.contains("s3:PutObject"), "{line}");
    }
}

#[test]
fn an_endpoint_of_the_environment_that_is_none_is_named() {
    let world = World::new("");
    world.write(
        "tapline.toml",
        format!("[stores.s3]\nurl = \"s3://bucket\"\n{DATABASE}"),
    );
    let failed = run(
        &world,
        &["backup"],
        &[("AWS_ENDPOINT_URL", "127.0.0.1:9000")],
    );
    assert_eq!(failed.code, Some(3));
    assert!(
        failed
            .words()
            .contains("AWS_ENDPOINT_URL, or endpoint_url of a profile, is no URL")
    );
}

#[test]
fn a_program_that_gives_no_secret_is_named_with_what_it_said() {
    let world = World::new("");
    for (program, told) in [
        ("[\"false\"]", "false: exit status: 1: and said nothing"),
        (
            "[\"sh\", \"-c\", \"echo locked >&2; exit 3\"]",
            "sh: exit status: 3: locked",
        ),
    ] {
        let entry = store(&world.server.endpoint());
        let entry = entry.replace(
            "{ file = \"access\" }",
            &format!("{{ command = {program} }}"),
        );
        world.write("tapline.toml", format!("{entry}{DATABASE}"));
        let failed = run(&world, &["backup"], &[]);
        assert_eq!(failed.code, Some(3));
        assert!(
            failed.stderr.trim_end().ends_with(told),
            "{}",
            failed.stderr
        );
    }
}

/// What a server answers, and what a person is to do about it.
#[tokio::test]
async fn an_answer_is_told_with_what_to_do_about_it() {
    let said = |code: &str, words: &str| {
        format!("<Error><Code>{code}</Code><Message>{words}</Message></Error>")
    };
    for (status, headers, body, told) in [
        (
            301,
            "x-amz-bucket-region: eu-central-1",
            said("PermanentRedirect", "Use the\n  other endpoint."),
            "PermanentRedirect: Use the other endpoint (the bucket's region is eu-central-1); \
             check the store's region and endpoint",
        ),
        (
            307,
            "Location: https://other.example.com/bucket?X-Amz-Signature=secret",
            String::new(),
            "(it leads to https://other.example.com/bucket); check the store's region and endpoint",
        ),
        (
            400,
            "",
            said("AuthorizationHeaderMalformed", "expecting 'eu-west-1'"),
            "expecting 'eu-west-1'; check the store's region and endpoint",
        ),
        (
            403,
            "",
            said("RequestTimeTooSkewed", "The difference is too large."),
            "The difference is too large; set this machine's clock",
        ),
        (
            400,
            "",
            said("ExpiredToken", "The token has expired."),
            "expired; renew the session that the store's credentials are of",
        ),
        (
            403,
            "",
            said("QuotaExceeded", "no more"),
            "no more; make room there, or raise the quota",
        ),
        (
            407,
            "",
            "who are you?".into(),
            "\"who are you?\"; check HTTPS_PROXY, HTTP_PROXY and NO_PROXY in the environment",
        ),
        (
            403,
            "",
            "<html>Forbidden</html>".into(),
            "; check the store's endpoint: what answers there may be no S3 server",
        ),
        (
            403,
            "",
            said("AccessDenied", "Access Denied."),
            "Access Denied; check the store's access_key and secret_key",
        ),
    ] {
        let text = reply(status, headers, &body);
        let server = Server::start(0, move |_| text.clone()).await;
        let failed = server.store().await.list("", None).await.unwrap_err();
        let words = failed.to_string();
        assert!(words.contains(told), "{told:?} is not in {words:?}");
        assert!(!words.contains("=secret"), "{words}");
    }
}

#[test]
fn an_endpoint_for_s3_alone_is_one_like_any_other() {
    let world = World::new("");
    let entry = store("").replace("endpoint = \"\"\n", "");
    world.write("tapline.toml", format!("{entry}{DATABASE}"));
    // Only with the bucket in the path: no resolver knows a host below this one.
    let endpoint = world.server.endpoint().replace("127.0.0.1", "localhost");
    let stored = run(&world, &["backup"], &[("AWS_ENDPOINT_URL_S3", &endpoint)]);
    assert_eq!(stored.code, Some(0));
    assert_eq!(world.keys("x").len(), 2);
}
