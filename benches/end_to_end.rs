//! From a real PostgreSQL into an S3 server, against the pipelines that people write by hand, in
//! turn.
//!
//! ```sh
//! cargo bench --features demo --bench end_to_end
//! ```
//!
//! `TAPLINE_BENCH_ROWS` (400,000) makes the database larger, `TAPLINE_BENCH_ROUNDS` (5) the figures
//! steadier. Server and S3 server share the machine with what is measured, so the figures compare
//! ways and do not say what a machine can do.

#[path = "../tests/it/servers.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod servers;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use servers::{PASSWORD, Postgres};
use tapline::s3_server::{ACCESS_KEY, SECRET_KEY};

const TAPLINE: &str = env!("CARGO_BIN_EXE_tapline");
const SHOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/shop.sql");

/// A way to get the database into the store.
struct Way {
    name: &'static str,
    /// Programs that must be in `PATH`.
    needs: &'static [&'static str],
    /// A shell's command line; the environment says where everything is.
    script: &'static str,
}

const WAYS: [Way; 4] = [
    Way {
        name: "tapline streamed",
        needs: &[],
        script: "$TAPLINE backup --quiet --no-progress --mode streamed",
    },
    Way {
        name: "tapline staged",
        needs: &[],
        script: "$TAPLINE backup --quiet --no-progress --mode staged",
    },
    Way {
        name: "pg_dump | gzip | aws s3 cp -",
        needs: &["gzip", "aws"],
        script: "pg_dump | gzip | aws s3 cp --quiet - s3://bucket/gzip/$RANDOM.sql.gz",
    },
    Way {
        name: "pg_dump | pigz | rclone rcat",
        needs: &["pigz", "rclone"],
        script: "pg_dump | pigz | rclone rcat --quiet :s3:bucket/pigz/$RANDOM.sql.gz",
    },
];

fn main() {
    if !Path::new("/usr/lib/postgresql").is_dir() {
        println!("skipped: PostgreSQL is not installed");
        return;
    }
    let rows = number("TAPLINE_BENCH_ROWS", 400_000);
    let rounds = number("TAPLINE_BENCH_ROUNDS", 5);
    let postgres = Postgres::start();
    postgres.sql("postgres", "create database shop");
    let mut load = postgres.client("psql", "shop");
    load.args([
        "-Xq",
        "-v",
        "ON_ERROR_STOP=1",
        "-v",
        &format!("rows={rows}"),
        "-f",
        SHOP,
    ])
    .stdout(Stdio::null());
    assert!(
        load.status().expect("psql is installed").success(),
        "the database cannot be made"
    );
    let size = postgres.sql("shop", "select pg_size_pretty(pg_database_size('shop'))");
    println!(
        "a database of {}, {rows} orders, {rounds} rounds",
        size.trim()
    );

    let s3 = S3::start();
    let folder = tempfile::tempdir().expect("a temp folder");
    inventory(folder.path(), &postgres, &s3);
    let ways: Vec<&Way> = WAYS
        .iter()
        .filter(|way| works(way, &postgres, &s3, folder.path()))
        .collect();
    assert!(
        ways.first().is_some_and(|way| way.name == WAYS[0].name),
        "nothing to compare with"
    );
    let mut seconds: Vec<Vec<f64>> = ways.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (way, seconds) in ways.iter().zip(&mut seconds) {
            let start = Instant::now();
            assert!(
                way.begin(&postgres, &s3, folder.path())
                    .wait()
                    .is_ok_and(|status| status.success()),
                "{}",
                way.name
            );
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    println!(
        "{:<32}{:>10}  times as long as streamed: min / median / max",
        "", "median"
    );
    for (way, own) in ways.iter().zip(&seconds) {
        let ratios = own
            .iter()
            .zip(&seconds[0])
            .map(|(own, streamed)| own / streamed);
        let [_, median, _] = spread(own.iter().copied());
        let [least, middle, most] = spread(ratios);
        println!(
            "{:<32}{median:>8.2} s  {least:.2} / {middle:.2} / {most:.2}",
            way.name
        );
    }
}

fn number(variable: &str, default: u32) -> u32 {
    std::env::var(variable).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}: not a number"))
    })
}

/// Runs a way once, uncounted: whether it can be had here.
fn works(way: &Way, postgres: &Postgres, s3: &S3, folder: &Path) -> bool {
    let found = |program: &&&str| {
        Command::new("sh")
            .args(["-c", &format!("command -v {program}")])
            .output()
    };
    let absent = way
        .needs
        .iter()
        .find(|program| !found(program).is_ok_and(|output| output.status.success()));
    if let Some(program) = absent {
        println!("skipped: {}: {program} is not in PATH", way.name);
        return false;
    }
    let ran = way
        .begin(postgres, s3, folder)
        .wait()
        .is_ok_and(|status| status.success());
    if !ran {
        println!("skipped: {}: it failed", way.name);
    }
    ran
}

/// The least, the median and the most.
fn spread(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    [
        values[0],
        values[values.len() / 2],
        values[values.len() - 1],
    ]
}

impl Way {
    fn begin(&self, postgres: &Postgres, s3: &S3, folder: &Path) -> Child {
        // Connected as the client of the database is; no shell but bash has `pipefail` everywhere.
        let mut command = postgres.client("bash", "shop");
        command
            .args(["-o", "pipefail", "-c", self.script])
            .current_dir(folder)
            .stdout(Stdio::null());
        let keys = [
            ("ACCESS_KEY_ID", ACCESS_KEY),
            ("SECRET_ACCESS_KEY", SECRET_KEY),
        ];
        for (name, value) in keys {
            command
                .env(format!("AWS_{name}"), value)
                .env(format!("RCLONE_S3_{name}"), value);
        }
        command
            .env("TAPLINE", TAPLINE)
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_ENDPOINT_URL", &s3.endpoint);
        command
            .env("RCLONE_S3_PROVIDER", "Other")
            .env("RCLONE_S3_ENDPOINT", &s3.endpoint);
        command
            .env("RCLONE_CONFIG", "/dev/null")
            .env("RCLONE_S3_NO_CHECK_BUCKET", "true");
        command.spawn().expect("bash is installed")
    }
}

/// The S3 server, in a process of its own so that its work is not the measured program's; it keeps
/// no bodies.
struct S3 {
    child: Child,
    endpoint: String,
}

impl S3 {
    fn start() -> Self {
        let mut child = Command::new(TAPLINE)
            .args(["__s3-server", "--discard"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program was built");
        let mut endpoint = String::new();
        BufReader::new(child.stdout.take().expect("piped"))
            .read_line(&mut endpoint)
            .expect("it says where it is");
        Self {
            child,
            endpoint: endpoint.trim().to_owned(),
        }
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn inventory(folder: &Path, postgres: &Postgres, s3: &S3) {
    let write =
        |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("a temp folder");
    write("access", ACCESS_KEY);
    write("secret", SECRET_KEY);
    write("password", PASSWORD);
    let (endpoint, port) = (&s3.endpoint, postgres.port());
    write(
        "tapline.toml",
        &format!(
            "[stores.s3]\nurl = \"s3://bucket/backups\"\nendpoint = \"{endpoint}\"\nregion = \"us-east-1\"\n\
             access_key = {{ file = \"access\" }}\nsecret_key = {{ file = \"secret\" }}\n\n\
             [databases.shop]\nengine = \"postgres\"\nhost = \"127.0.0.1\"\nport = {port}\nuser = \"admin\"\n\
             password = {{ file = \"password\" }}\n"
        ),
    );
}
