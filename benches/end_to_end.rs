//! From a real PostgreSQL into an S3 server and back, against the pipelines that people write by hand,
//! in turn.
//!
//! ```sh
//! cargo bench --features demo --bench end_to_end
//! ```
//!
//! What is not installed is left out. `TAPLINE_BENCH_ROWS` (400,000) makes the database larger, `TAPLINE_BENCH_ROUNDS` (5) the figures
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

const STREAMED: &str = concat!(
    env!("CARGO_BIN_EXE_tapline"),
    " backup --quiet --no-progress --mode streamed"
);

/// The first of them is what the others are compared with.
const BACKUPS: &[Way] = &[
    Way {
        name: "pg_dump > /dev/null",
        needs: &[],
        script: "pg_dump > /dev/null",
    },
    Way {
        name: "tapline, zstd",
        needs: &[],
        script: "$STREAMED --compression zstd",
    },
    Way {
        name: "tapline, zstd, parallel = 2",
        needs: &[],
        script: "$STREAMED --compression zstd --parallel 2",
    },
    Way {
        name: "tapline, gzip",
        needs: &[],
        script: "$STREAMED",
    },
    Way {
        name: "tapline, gzip, parallel = 2",
        needs: &[],
        script: "$STREAMED --parallel 2",
    },
    Way {
        name: "tapline staged, zstd, -j",
        needs: &[],
        script: "$TAPLINE backup --quiet --no-progress --mode staged --compression zstd",
    },
    Way {
        name: "pg_dump -Fd -j 2 | tar | zstd -1",
        needs: &["aws"],
        script: "pg_dump -Fd -Z0 -j 2 -f parts && tar cf - parts | zstd -q -1 -T0 | \
                 aws s3 cp --quiet - s3://bucket/parts/$RANDOM.tar.zst; kept=$?; rm -rf parts; exit $kept",
    },
    Way {
        name: "pg_dump | zstd -1 -T0 | aws",
        needs: &["zstd", "aws"],
        script: "pg_dump | zstd -q -1 -T0 | aws s3 cp --quiet - s3://bucket/zstd/$RANDOM.sql.zst",
    },
    Way {
        name: "pg_dump | igzip -1 -T 2 | aws",
        needs: &["igzip", "aws"],
        script: "pg_dump | igzip -1 -T 2 | aws s3 cp --quiet - s3://bucket/igzip/$RANDOM.sql.gz",
    },
    Way {
        name: "pg_dump | pigz | rclone rcat",
        needs: &["pigz", "rclone"],
        script: "pg_dump | pigz | rclone rcat --quiet :s3:bucket/pigz/$RANDOM.sql.gz",
    },
    Way {
        name: "pg_dump | gzip | aws",
        needs: &["gzip", "aws"],
        script: "pg_dump | gzip | aws s3 cp --quiet - s3://bucket/gzip/$RANDOM.sql.gz",
    },
    Way {
        name: "restic --stdin-from-command",
        needs: &["restic"],
        script: "export RESTIC_PASSWORD=x RESTIC_REPOSITORY=s3:$AWS_ENDPOINT_URL/bucket/restic$RANDOM; \
                 restic init -q && restic backup -q --stdin-from-command -- pg_dump",
    },
];

/// From a server that keeps what it gets, into a database that is made for it.
const RESTORES: &[Way] = &[
    Way {
        name: "aws | tar xzO | psql",
        needs: &["aws"],
        script: "psql -Xqc 'drop database if exists back' -c 'create database back' postgres && \
                 aws s3 cp --quiet s3://bucket/backups/shop/$SERIAL/shop.tar.gz - | tar xzO | psql -Xq -v ON_ERROR_STOP=1 back",
    },
    Way {
        name: "tapline, the same archive",
        needs: &[],
        script: "psql -Xqc 'drop database if exists back' postgres && \
                 $TAPLINE restore -q shop@$SERIAL --to back --yes",
    },
    Way {
        name: "tapline --jobs 2, parallel = 2",
        needs: &[],
        script: "psql -Xqc 'drop database if exists back' postgres && \
                 $TAPLINE restore -q shop@$PARALLEL --to back --yes --jobs 2",
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
    load.args(["-Xq", "-v", "ON_ERROR_STOP=1", "-v"])
        .args([&format!("rows={rows}"), "-f", SHOP])
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

    let bench = Bench::new(&postgres, &["--discard"]);
    bench.compare("backup", BACKUPS, rounds);
    let bench = Bench::new(&postgres, &[]).with_backups();
    bench.compare("restore", RESTORES, rounds);
}

/// Everything that a way needs, and what its script finds in its environment.
struct Bench<'a> {
    postgres: &'a Postgres,
    s3: S3,
    folder: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

impl<'a> Bench<'a> {
    fn new(postgres: &'a Postgres, server: &[&str]) -> Self {
        let (s3, folder) = (
            S3::start(server),
            tempfile::tempdir().expect("a temp folder"),
        );
        inventory(folder.path(), postgres, &s3);
        Self {
            postgres,
            s3,
            folder,
            variables: Vec::new(),
        }
    }

    /// Two backups that can be restored.
    fn with_backups(mut self) -> Self {
        for (name, script) in [
            ("SERIAL", "$STREAMED"),
            ("PARALLEL", "$STREAMED --parallel 2"),
        ] {
            let report = format!("{script} --report report.json");
            assert!(self.run(&report), "{report}");
            let report = std::fs::read(self.folder.path().join("report.json"));
            let report: serde_json::Value =
                serde_json::from_slice(&report.expect("it was written")).expect("JSON");
            let id = report["jobs"][0]["backup_id"].as_str().expect("an id");
            self.variables.push((name, id.to_owned()));
        }
        self
    }

    /// Runs all ways in turn, and prints how long each takes and how that is to the first.
    fn compare(&self, what: &str, ways: &[Way], rounds: u32) {
        let ways: Vec<&Way> = ways.iter().filter(|way| self.can(way)).collect();
        let mut seconds: Vec<Vec<f64>> = ways.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds {
            for (way, seconds) in ways.iter().zip(&mut seconds) {
                let start = Instant::now();
                assert!(self.run(way.script), "{}", way.name);
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
        println!(
            "{what:<36}{:>10}  times as long as the first: min / median / max",
            "median"
        );
        for (way, own) in ways.iter().zip(&seconds) {
            let ratios = own.iter().zip(&seconds[0]).map(|(own, first)| own / first);
            let [_, median, _] = spread(own.iter().copied());
            let [least, middle, most] = spread(ratios);
            println!(
                "{:<36}{median:>8.2} s  {least:.2} / {middle:.2} / {most:.2}",
                way.name
            );
        }
    }

    /// Runs a way once, uncounted: whether it can be had here.
    fn can(&self, way: &Way) -> bool {
        for program in way.needs {
            if !self.run(&format!("command -v {program}")) {
                println!("skipped: {}: {program} is not in PATH", way.name);
                return false;
            }
        }
        let ran = self.run(way.script);
        if !ran {
            println!("skipped: {}: it failed", way.name);
        }
        ran
    }

    /// Whether a script ends well.
    fn run(&self, script: &str) -> bool {
        // Connected as the client of the database is; no shell but bash has `pipefail` everywhere.
        let mut command = self.postgres.client("bash", "shop");
        command
            .args(["-o", "pipefail", "-c", script])
            .current_dir(self.folder.path())
            .stdout(Stdio::null());
        for (name, value) in [
            ("ACCESS_KEY_ID", ACCESS_KEY),
            ("SECRET_ACCESS_KEY", SECRET_KEY),
        ] {
            command
                .env(format!("AWS_{name}"), value)
                .env(format!("RCLONE_S3_{name}"), value);
        }
        let status = command
            .env("TAPLINE", TAPLINE)
            .env("STREAMED", STREAMED)
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_ENDPOINT_URL", &self.s3.endpoint)
            .env("RCLONE_S3_PROVIDER", "Other")
            .env("RCLONE_S3_ENDPOINT", &self.s3.endpoint)
            .env("RCLONE_CONFIG", "/dev/null")
            .env("RCLONE_S3_NO_CHECK_BUCKET", "true")
            .envs(self.variables.iter().map(|(name, id)| (name, id)))
            .status();
        status.expect("bash is installed").success()
    }
}

fn number(variable: &str, default: u32) -> u32 {
    std::env::var(variable).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}: not a number"))
    })
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

/// The S3 server, in a process of its own so that its work is not the measured program's.
struct S3 {
    child: Child,
    endpoint: String,
}

impl S3 {
    fn start(options: &[&str]) -> Self {
        let mut child = Command::new(TAPLINE)
            .arg("__s3-server")
            .args(options)
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
