//! What stands between tapline and a store: proxies, authorities of one's own, slow lines.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tapline::s3_server::{ACCESS_KEY, Op, SECRET_KEY};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::world::{World, store, tool};

const DATABASE: &str = "[databases.x]\nengine = \"command\"\ncommand = [\"head\", \"-c\", \"100000\", \"/dev/urandom\"]\n";
/// A name that no resolver knows: whoever gets there has gone through the proxy.
const NAME: &str = "store.invalid";

/// Makes an authority, `ca.pem`, and a certificate of its own for [`NAME`] and 127.0.0.1.
pub fn certify(folder: &Path) {
    let script = format!(
        "set -e; new='-newkey rsa:2048 -nodes -days 2'
         openssl req -x509 $new -subj /CN=authority -keyout ca.key -out ca.pem
         openssl req $new -subj /CN=store -keyout server.key -out server.csr
         echo subjectAltName=DNS:{NAME},IP:127.0.0.1 >ext
         openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
         -extfile ext -out server.pem
         openssl req -x509 $new -subj /CN=stranger -keyout /dev/null -out stranger.pem"
    );
    tool(
        Command::new("sh")
            .args(["-c", &script])
            .current_dir(folder)
            .stderr(std::process::Stdio::null()),
    );
}

/// Speaks TLS before the world's server. Returns its port.
fn tls(world: &World) -> (u16, AbortOnDropHandle<()>) {
    certify(world.folder.path());
    let certificate = CertificateDer::from_pem_file(world.path("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(world.path("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let server = address(world);
    listen(world, move |socket| {
        let (acceptor, server) = (acceptor.clone(), server.clone());
        async move {
            let mut inside = acceptor.accept(socket).await.ok()?;
            let mut server = TcpStream::connect(server).await.ok()?;
            copy_bidirectional(&mut inside, &mut server).await.ok()?;
            Some(())
        }
    })
}

/// A proxy that leads everybody to `port` here, whatever name was asked for. Returns its port, and
/// the heads of the requests that it got.
fn proxy(world: &World, port: u16) -> (u16, Arc<Mutex<Vec<String>>>, AbortOnDropHandle<()>) {
    let log = Arc::<Mutex<Vec<String>>>::default();
    let heads = log.clone();
    let (at, serving) = listen(world, move |mut socket| {
        let heads = heads.clone();
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(socket.read_u8().await.ok()?);
            }
            let text = String::from_utf8_lossy(&head).into_owned();
            let mut server = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
            if text.starts_with("CONNECT ") {
                socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
            } else {
                server.write_all(&head).await.ok()?;
            }
            heads.lock().unwrap().push(text);
            copy_bidirectional(&mut socket, &mut server).await.ok()?;
            Some(())
        }
    });
    (at, log, serving)
}

fn listen<F: Future<Output = Option<()>> + Send + 'static>(
    world: &World,
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> (u16, AbortOnDropHandle<()>) {
    world.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket));
            }
        });
        (port, AbortOnDropHandle::new(serving))
    })
}

fn address(world: &World) -> String {
    world.server.endpoint().replace("http://", "")
}

/// A backup with these variables; its exit code and all that it said.
fn backup(world: &World, variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = world.tapline(&["backup"]);
    for name in [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "all_proxy",
        "AWS_CA_BUNDLE",
        "SSL_CERT_FILE",
    ] {
        command.env_remove(name);
    }
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let words = [output.stdout, output.stderr].concat();
    let words = String::from_utf8(words).unwrap();
    println!("{variables:?}: {:?}\n{words}", output.status.code());
    (output.status.code(), words)
}

#[test]
fn a_store_is_reached_through_the_proxy_that_the_environment_names() {
    let world = World::new("");
    let (tls, _tls) = tls(&world);
    let (at, log, _proxy) = proxy(&world, tls);
    let far = store(&format!("https://{NAME}:{tls}"));
    let settings = format!("{far}ca_file = \"ca.pem\"\n{DATABASE}");
    world.write("tapline.toml", &settings);
    let through = format!("http://guest:sesame@127.0.0.1:{at}");
    let (code, words) = backup(&world, &[("HTTPS_PROXY", &through)]);
    assert!(code == Some(0) && !words.contains("sesame"));
    let heads = std::mem::take(&mut *log.lock().unwrap());
    let connect = format!("CONNECT {NAME}:{tls} HTTP/1.1\r\n");
    assert!(heads.iter().all(|head| head.starts_with(&connect)));
    // guest:sesame
    let login = "proxy-authorization: basic z3vlc3q6c2vzyw1l";
    assert!(!heads.is_empty() && heads.iter().all(|head| head.to_lowercase().contains(login)));

    // What is excluded goes directly, and there is no such host.
    let direct = format!("[run]\nretry_for = \"1s\"\n{settings}");
    world.write("tapline.toml", direct);
    let (code, _) = backup(&world, &[("HTTPS_PROXY", &through), ("NO_PROXY", NAME)]);
    assert!(code == Some(4) && log.lock().unwrap().is_empty());

    // Without TLS the proxy gets the requests themselves.
    let (at, log, _proxy) = proxy(
        &world,
        address(&world).rsplit_once(':').unwrap().1.parse().unwrap(),
    );
    let plain = format!("{}{DATABASE}", store(&format!("http://{NAME}:1")));
    world.write("tapline.toml", plain);
    let (code, _) = backup(&world, &[("HTTP_PROXY", &format!("http://127.0.0.1:{at}"))]);
    assert_eq!(code, Some(0));
    let heads = log.lock().unwrap().clone();
    let absolute = format!(" http://{NAME}:1/bucket/");
    assert!(
        heads.iter().any(|head| head.contains(&absolute)),
        "{heads:?}"
    );
}

#[test]
fn an_authority_of_ones_own_is_trusted_by_key_and_by_environment_and_nobody_else_is() {
    let world = World::new("");
    let (tls, _tls) = tls(&world);
    let here = store(&format!("https://127.0.0.1:{tls}"));
    let inventory = |key: &str| world.write("tapline.toml", format!("{here}{key}\n{DATABASE}"));
    let pem = |name: &str| world.path(name).display().to_string();
    inventory("ca_file = \"ca.pem\"");
    assert_eq!(backup(&world, &[]).0, Some(0));
    inventory("");
    for variable in ["AWS_CA_BUNDLE", "SSL_CERT_FILE"] {
        assert_eq!(
            backup(&world, &[(variable, &pem("ca.pem"))]).0,
            Some(0),
            "{variable}"
        );
    }
    // No patience makes a certificate a good one: it fails at once, and says why.
    let refused = |variables: &[(&str, &str)]| {
        let start = Instant::now();
        let (code, words) = backup(&world, variables);
        assert_eq!(code, Some(4), "{variables:?}");
        assert!(words.contains("certificate"), "{words}");
        assert!(start.elapsed() < Duration::from_secs(20), "{variables:?}");
    };
    refused(&[]);
    refused(&[("AWS_CA_BUNDLE", &pem("stranger.pem"))]);
    inventory("ca_file = \"stranger.pem\"");
    refused(&[("AWS_CA_BUNDLE", &pem("ca.pem"))]);
}

#[test]
fn the_endpoint_may_come_from_the_environment() {
    for variable in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"] {
        let world = World::new("");
        let settings = format!(
            "[stores.s3]\nurl = \"s3://bucket/backups\"\nregion = \"us-east-1\"\n\
             path_style = true\n{DATABASE}"
        );
        world.write("tapline.toml", settings);
        let endpoint = world.server.endpoint();
        let login = [
            (variable, endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ];
        assert_eq!(backup(&world, &login).0, Some(0), "{variable}");
        assert_eq!(world.keys("x").len(), 2, "{variable}");
    }
}

/// That a part may take longer than any timeout is `store_http`'s to show.
#[test]
fn a_line_of_100_kb_a_second_stores_a_backup_with_the_first_try() {
    let world = World::new(
        "[databases.x]\nengine = \"command\"\ncompression = \"none\"\n\
         command = [\"head\", \"-c\", \"400000\", \"/dev/urandom\"]\n",
    );
    world.server.link().slow(100_000);
    let start = Instant::now();
    assert_eq!(world.run(&["backup"]).code, Some(0));
    assert!(start.elapsed() > Duration::from_secs(3), "it was not slow");
    let asked = world.server.log().all();
    assert_eq!(asked.iter().filter(|asked| asked.op == Op::Part).count(), 1);
}
