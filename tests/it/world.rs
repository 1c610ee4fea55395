//! A folder with an inventory, an S3 server, and the `tapline` binary to run against both.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tapline::s3_server::{ACCESS_KEY, S3Server, SECRET_KEY};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::servers::PASSWORD;

pub const TAPLINE: &str = env!("CARGO_BIN_EXE_tapline");

/// Whether this is `tests/long.sh`, which leaves nothing out.
pub fn is_long_run() -> bool {
    std::env::var("TAPLINE_TESTS").is_ok_and(|which| which == "all")
}

pub struct World {
    pub folder: TempDir,
    pub server: S3Server,
    runtime: &'static Runtime,
}

/// One for all servers of all tests: each of its own would be a thread per core and test.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().unwrap())
}

impl World {
    /// An inventory with `databases` below a store that is the server.
    pub fn new(databases: &str) -> Self {
        Self::with(databases, |runtime| {
            runtime.block_on(S3Server::start(false)).unwrap()
        })
    }

    /// An inventory with `databases` below a store that is the server which `start` gives.
    pub fn with(databases: &str, start: impl FnOnce(&Runtime) -> S3Server) -> Self {
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
            server: start(runtime()),
            runtime: runtime(),
        };
        world.inventory(databases);
        world
    }

    /// An inventory of the database `shop` of one server, by its `admin`; `entries` follow the defaults.
    pub fn of_shop(engine: &str, port: u16, entries: &str) -> Self {
        let world = Self::new(&format!(
            "[defaults]\nengine = \"{engine}\"\nhost = \"127.0.0.1\"\nport = {port}\nuser = \"admin\"\n\
             password = {{ file = \"password\" }}\ndatabase = \"shop\"\n{entries}"
        ));
        world.write("password", PASSWORD);
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    /// Makes a script of the folder one that can be run.
    pub fn executable(&self, name: &str) {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.path(name), mode).unwrap();
    }

    pub fn inventory(&self, databases: &str) {
        self.write("access", ACCESS_KEY);
        self.write("secret", SECRET_KEY);
        self.write(
            "tapline.toml",
            format!("{}\n{databases}", store(&self.server.endpoint())),
        );
    }

    /// `tapline ARGS`, not yet started.
    pub fn tapline(&self, args: &[&str]) -> Command {
        // What a runner ignores, as nohup does SIGHUP and a script's background SIGINT, tapline would
        // ignore, too: it means that.
        let mut command = Command::new("env");
        command.args(["--default-signal=HUP,INT,TERM", TAPLINE]);
        command
            .args(args)
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs `tapline ARGS` to its end; what it printed is shown when a test fails.
    pub fn run(&self, args: &[&str]) -> Run {
        let run = self.quietly(args);
        println!(
            "$ tapline {}\n{}{}→ {:?}",
            args.join(" "),
            run.stdout,
            run.stderr,
            run.code
        );
        run
    }

    /// Runs `tapline ARGS` to its end; there is one.
    pub fn quietly(&self, args: &[&str]) -> Run {
        self.at_most(Duration::from_mins(5), args)
    }

    /// Makes a pair of keys in `age.key`: its public half, for `encrypt_to`.
    pub fn age_recipient(&self) -> String {
        self.run(&["keygen", "-o", "age.key"]);
        let pair = std::fs::read_to_string(self.path("age.key")).unwrap();
        let public = pair.lines().nth(1).unwrap();
        public.trim_start_matches("# public key: ").to_owned()
    }

    /// Runs `tapline ARGS` to its end, or kills it when that takes longer: exit code 137.
    pub fn at_most(&self, time: Duration, args: &[&str]) -> Run {
        let tapline = self.tapline(args);
        let mut command = Command::new("timeout");
        command
            .args(["--foreground", "--signal=KILL", &time.as_secs().to_string()])
            .arg(tapline.get_program())
            .args(tapline.get_args())
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        Run::from(command.output().unwrap())
    }

    /// The keys of all objects of `database`.
    pub fn keys(&self, database: &str) -> Vec<String> {
        let prefix = format!("backups/{}", tapline::catalog::database_prefix(database));
        self.server
            .store()
            .keys()
            .into_iter()
            .filter(|key| key.starts_with(&prefix))
            .collect()
    }

    /// The archive of the only backup of `database`, all volumes joined, as a file.
    pub fn download(&self, database: &str) -> PathBuf {
        let keys = self.keys(database);
        assert_eq!(
            keys.iter()
                .filter(|key| key.ends_with("manifest.json"))
                .count(),
            1,
            "{keys:?}"
        );
        let volumes = keys.iter().filter(|key| !key.ends_with("manifest.json"));
        let archive: Vec<u8> = volumes
            .flat_map(|key| self.server.store().read(key).unwrap())
            .collect();
        self.write("archive", archive);
        self.path("archive")
    }

    pub fn manifest(&self, database: &str) -> tapline::catalog::Manifest {
        let key = self
            .keys(database)
            .into_iter()
            .find(|key| key.ends_with("manifest.json"))
            .expect("a backup");
        tapline::catalog::Manifest::from_json(&self.server.store().read(&key).unwrap()).unwrap()
    }

    /// Nothing of a backup is in the store and no upload is open.
    pub fn assert_store_is_clean(&self) {
        assert_eq!(backup_keys(&self.server), Vec::<String>::new());
        assert_eq!(leases(&self.server), Vec::<String>::new());
        assert_eq!(self.server.store().open_uploads(), 0);
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }
}

/// The keys of all objects but the notes about runs.
pub fn backup_keys(server: &S3Server) -> Vec<String> {
    let mut keys = server.store().keys();
    keys.retain(|key| !key.contains("/~tapline/"));
    keys
}

/// The keys of the leases that runs have on databases.
pub fn leases(server: &S3Server) -> Vec<String> {
    let mut keys = server.store().keys();
    keys.retain(|key| key.contains("/~tapline/leases/"));
    keys
}

pub fn store(endpoint: &str) -> String {
    format!(
        "[stores.s3]\nurl = \"s3://bucket/backups\"\nendpoint = \"{endpoint}\"\nregion = \"us-east-1\"\n\
         access_key = {{ file = \"access\" }}\nsecret_key = {{ file = \"secret\" }}\n"
    )
}

pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

impl Run {
    /// All that it said.
    pub fn words(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Sends `SIGname`.
pub fn signal(running: &Child, name: &str) {
    let signal = match name {
        "TERM" => Signal::TERM,
        "INT" => Signal::INT,
        "HUP" => Signal::HUP,
        "KILL" => Signal::KILL,
        _ => panic!("no signal of a test: {name}"),
    };
    rustix::process::kill_process(Pid::from_child(running), signal).unwrap();
}

/// Waits for the end of a process that is to end soon, and kills one that does not.
pub fn end_of(running: &mut Child) -> ExitStatus {
    let start = Instant::now();
    while start.elapsed() < Duration::from_mins(2) {
        if let Some(status) = running.try_wait().unwrap() {
            return status;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    running.kill().unwrap();
    running.wait().unwrap();
    panic!("it never ended");
}

/// Runs a stock tool and returns its stdout; it must exit 0.
pub fn tool(command: &mut Command) -> Vec<u8> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// What stock tar makes of an archive's one file.
pub fn untar(archive: &Path) -> Vec<u8> {
    tool(Command::new("tar").arg("xOf").arg(archive))
}

/// An S3 server in a process of its own, and its endpoint.
pub fn server_process(args: &[&str]) -> (Child, String) {
    let mut server = Command::new(TAPLINE)
        .arg("__s3-server")
        .args(args)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut endpoint = String::new();
    BufReader::new(server.stdout.take().unwrap())
        .read_line(&mut endpoint)
        .unwrap();
    (server, endpoint.trim().to_owned())
}

/// Runs a command to its end, which must be a good one, and returns the most memory that it had, in
/// bytes.
pub fn peak_rss(mut command: Command) -> u64 {
    let mut running = command.spawn().unwrap();
    let mut peak = 0;
    while running.try_wait().unwrap().is_none() {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", running.id())).unwrap_or_default();
        let high = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap_or("0 kB");
        peak = high
            .trim()
            .trim_end_matches(" kB")
            .parse::<u64>()
            .unwrap()
            .max(peak);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(running.wait().unwrap().success());
    peak << 10
}

pub fn wait_until(mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_mins(1), "waited in vain");
        std::thread::sleep(Duration::from_millis(20));
    }
}
