//! Real database servers in temp folders, on free ports, with passwords; stopped when dropped.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub const PASSWORD: &str = r#"s3:cr\t "p'w" #x"#;

struct Server {
    folder: TempDir,
    port: u16,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    folder
}

/// `program`, as `user` when the tests run as root (servers refuse to), ended with the test that
/// started it.
fn unprivileged(user: &str, program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if rustix::process::geteuid().is_root() {
        command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
    }
    command.arg(program.as_ref());
    command
}

fn run(command: &mut Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn until_it_answers(mut answers: impl FnMut() -> bool) {
    let start = Instant::now();
    while !answers() {
        assert!(
            start.elapsed() < Duration::from_mins(1),
            "the server does not answer"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

pub struct Postgres(Server);

impl Postgres {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With more options for the server.
    pub fn start_with(options: &[&str]) -> Self {
        let folder = folder();
        let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed");
        let newest = versions
            .map(|version| version.unwrap().path())
            .max()
            .expect("PostgreSQL is installed");
        let program = |name: &str| newest.join("bin").join(name);
        let data = folder.path().join("data");
        let password = folder.path().join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        run(unprivileged("postgres", program("initdb"))
            .args([
                "--username=admin",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--no-sync",
                "-D",
            ])
            .arg(&data)
            .arg("--pwfile")
            .arg(&password));
        let port = free_port();
        let child = unprivileged("postgres", program("postgres"))
            .arg("-D")
            .arg(&data)
            .args([
                "-p",
                &port.to_string(),
                "-c",
                "fsync=off",
                "-c",
                "listen_addresses=127.0.0.1",
                "-k",
            ])
            .arg(folder.path())
            .args(options)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let server = Self(Server {
            folder,
            port,
            child,
        });
        until_it_answers(|| {
            server
                .client("psql", "postgres")
                .args(["-c", "select 1"])
                .output()
                .unwrap()
                .status
                .success()
        });
        server
    }

    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// A client program, connected to `database`.
    pub fn client(&self, program: &str, database: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.0.port.to_string())
            .env("PGUSER", "admin")
            .env("PGPASSWORD", PASSWORD)
            .env("PGDATABASE", database)
            .stdin(Stdio::null());
        command
    }

    /// Waits for rows to be on their way into a table, in the server and in a database of its own:
    /// asking again and again from here may come too late, and a session in a database uses it.
    pub fn wait_for_copy(&self) {
        let wait = "do $$ declare patience timestamptz := clock_timestamp() + interval '30 s';
             begin loop
               exit when exists (select from pg_stat_progress_copy where command = 'COPY FROM')
                 or clock_timestamp() > patience;
               perform pg_sleep(0.002), pg_stat_clear_snapshot();
             end loop; end $$";
        self.sql("postgres", wait);
    }

    pub fn sql(&self, database: &str, text: &str) -> String {
        run(self
            .client("psql", database)
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", text]))
    }
}

pub struct Mariadb(Server);

impl Mariadb {
    pub fn start() -> Self {
        let folder = folder();
        let data = folder.path().join("data");
        // A server that starts removes every server's temporary tables from a folder they share.
        run(unprivileged("mysql", "mariadb-install-db")
            .env("TMPDIR", folder.path())
            .arg("--no-defaults")
            .arg(format!("--datadir={}", data.display()))
            .args(["--auth-root-authentication-method=normal", "--skip-test-db"]));
        let port = free_port();
        let server = [
            "/usr/sbin/mariadbd",
            "/usr/libexec/mariadbd",
            "/usr/bin/mariadbd",
        ];
        let program = server
            .into_iter()
            .map(PathBuf::from)
            .find(|path| path.is_file())
            .expect("MariaDB is installed");
        let child = unprivileged("mysql", program)
            .env("TMPDIR", folder.path())
            .arg("--no-defaults")
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", folder.path().join("s").display()))
            .arg(format!(
                "--pid-file={}",
                folder.path().join("pid").display()
            ))
            .args([
                &format!("--port={port}"),
                "--bind-address=127.0.0.1",
                "--event-scheduler=ON",
            ])
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let server = Self(Server {
            folder,
            port,
            child,
        });
        until_it_answers(|| {
            server
                .client()
                .args(["-e", "select 1"])
                .output()
                .unwrap()
                .status
                .success()
        });
        let password = PASSWORD.replace('\\', r"\\").replace('\'', r"\'");
        server.sql(&format!(
            "create user admin@'%' identified by '{password}'; grant all on *.* to admin@'%'"
        ));
        server
    }

    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// The client, as root over the socket.
    pub fn client(&self) -> Command {
        let mut command = Command::new("mariadb");
        command.args([
            "--no-defaults",
            "--user=root",
            "--batch",
            "--skip-column-names",
        ]);
        command.args(["--default-character-set=utf8mb4"]);
        command
            .arg(format!(
                "--socket={}",
                self.0.folder.path().join("s").display()
            ))
            .stdin(Stdio::null());
        command
    }

    pub fn sql(&self, text: &str) -> String {
        run(self.client().args(["-e", text]))
    }
}
