//! Real database servers in temp folders, with passwords. There are two PostgreSQL and two MariaDB
//! for all tests of a run, started by whoever finds none free. A test has one to itself, finds it as
//! new, and may do with it what it likes: what it has made there is removed when it gives the
//! server back. Only a test that needs two at once, or other options, starts one of its own.
//!
//! Whoever needs both takes PostgreSQL first, so that no two tests wait for each other.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Condvar, LazyLock, Mutex};
use std::time::{Duration, Instant};

pub const PASSWORD: &str = r#"s3:cr\t "p'w" #x"#;

/// How many servers of a kind all tests share.
const SHARED: usize = 2;

/// A server's parent: it holds one end of a pipe whose other end the tests hold, so it learns of
/// their end whatever ends them, and takes the server and its folder along. A signal at the end of
/// the thread that started the server would come when a test is over, and is the second net here,
/// for when this shell is killed.
const GUARD: &str = r#"
folder=$1 signal=$2
shift 2
exec 3<&0
"$@" </dev/null 3<&- >/dev/null 2>"$folder/log" &
server=$!
exec 2>/dev/null
{ read -r end <&3; [ -e "$folder/over" ] || kill -s "$signal" $server; } &
wait $server
: >"$folder/over"
wait
rm -rf "$folder"
"#;

struct Server {
    folder: PathBuf,
    port: u16,
    guard: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

impl Server {
    /// Starts what `command` makes of a port, and waits until it answers. Ports are tried below
    /// those that the system gives to whoever asks for any; a server whose port is taken ends.
    fn start(
        folder: &Path,
        signal: &str,
        command: impl Fn(u16) -> Command,
        answers: impl Fn() -> bool,
    ) -> Self {
        for _ in 0..20 {
            let port = fastrand::u16(10_000..32_000);
            let over = folder.join("over");
            let _ = std::fs::remove_file(&over);
            let command = command(port);
            let guard = Command::new("sh")
                .args(["-c", GUARD, "guard"])
                .arg(folder)
                .arg(signal)
                .arg(command.get_program())
                .args(command.get_args())
                .env("TMPDIR", folder)
                .stdin(Stdio::piped())
                // A Ctrl-C at the tests is not for it.
                .process_group(0)
                .spawn()
                .unwrap();
            let mut server = Self {
                folder: folder.to_owned(),
                port,
                guard,
            };
            let start = Instant::now();
            while start.elapsed() < Duration::from_mins(1) {
                if answers() {
                    return server;
                }
                if over.exists() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            println!("no server on port {port}: {log}");
            // Its folder serves the next try.
            let _ = server.guard.kill();
        }
        panic!("no server could be started in {}", folder.display());
    }
}

/// The servers of one kind that all tests share.
struct Pool {
    /// Those that no test has; `None` is one that is not started yet, or was ended.
    free: Mutex<Vec<Option<Server>>>,
    freed: Condvar,
}

impl Pool {
    /// None of them is started yet.
    fn new() -> Self {
        Self {
            free: Mutex::new((0..SHARED).map(|_| None).collect()),
            freed: Condvar::new(),
        }
    }

    /// Waits for a server, one that runs rather than another one.
    fn take(&'static self, start: impl FnOnce() -> Server) -> Tenancy {
        let free = self.free.lock().unwrap();
        let mut free = self.freed.wait_while(free, |free| free.is_empty()).unwrap();
        let at = free.iter().position(Option::is_some).unwrap_or(0);
        let mut lent = Lent {
            server: free.swap_remove(at),
            pool: self,
        };
        drop(free);
        lent.server.get_or_insert_with(start);
        Tenancy::Shared(lent)
    }
}

/// A server of a pool, while a test has it.
struct Lent {
    server: Option<Server>,
    pool: &'static Pool,
}

/// A test that failed gives it back, too.
impl Drop for Lent {
    fn drop(&mut self) {
        self.pool.free.lock().unwrap().push(self.server.take());
        self.pool.freed.notify_one();
    }
}

/// What a test holds: one of the servers that all share, or one of its own.
enum Tenancy {
    Shared(Lent),
    Own(Server),
}

impl Tenancy {
    fn server(&self) -> &Server {
        match self {
            Self::Shared(lent) => lent.server.as_ref().expect("it was started"),
            Self::Own(server) => server,
        }
    }

    /// Gives it back as new, or else ends it: the next one starts another.
    fn give_back(&mut self, is_as_new: bool) {
        if let Self::Shared(lent) = self
            && !is_as_new
        {
            lent.server = None;
        }
    }
}

/// Where the servers are installed that are tried: in a folder of its own, where `tests/engines.sh` has
/// unpacked another release's.
fn root() -> PathBuf {
    std::env::var_os("TAPLINE_TESTS_ROOT").map_or("/".into(), PathBuf::from)
}

/// The folder of the newest PostgreSQL below `root`.
fn newest_postgres(root: &Path) -> PathBuf {
    let versions = std::fs::read_dir(root.join("usr/lib/postgresql"));
    let versions = versions.expect("PostgreSQL is installed");
    let newest = versions.map(|version| version.unwrap().path()).max();
    newest.expect("PostgreSQL is installed")
}

/// The first of these programs that is there, below `root`.
fn first_below(root: &Path, programs: &[&str]) -> PathBuf {
    let mut paths = programs.iter().map(|program| root.join(program));
    let found = paths.find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("none of {programs:?} is in {}", root.display()))
}

fn folder() -> PathBuf {
    let folder = tempfile::tempdir().unwrap().keep();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    folder
}

/// `program`, as `user` when the tests run as root (servers refuse to), ended with its parent.
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

/// Whether `command` makes its way through all of `script`.
fn runs_through(command: &mut Command, script: &str) -> bool {
    let mut running = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let written = running.stdin.take().unwrap().write_all(script.as_bytes());
    running.wait().unwrap().success() && written.is_ok()
}

pub struct Postgres(Tenancy);

static POSTGRES: LazyLock<Pool> = LazyLock::new(Pool::new);

/// Makes a server as new.
const POSTGRES_AS_NEW: &str = r"
\set ON_ERROR_STOP on
select pg_terminate_backend(pid) from pg_stat_activity
  where backend_type = 'client backend' and pid <> pg_backend_pid();
select format('alter database %I is_template false', datname) from pg_database
  where datistemplate and datname not in ('template0', 'template1') \gexec
select format('drop database %I with (force)', datname) from pg_database
  where datname not in ('template0', 'template1') \gexec
create database postgres;
select format('drop owned by %I', rolname), format('drop role %I', rolname) from pg_roles
  where rolname !~ '^pg_' and rolname <> 'admin' \gexec
alter role all reset all;
alter role admin reset all;
alter system reset all;
select pg_reload_conf();
";

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Tenancy::Shared(_) = self.0 {
            let mut psql = self.client("psql", "template1");
            let is_as_new = runs_through(psql.args(["-Xq", "-f", "-"]), POSTGRES_AS_NEW);
            self.0.give_back(is_as_new);
        }
    }
}

impl Postgres {
    /// The one of all tests.
    pub fn start() -> Self {
        Self(POSTGRES.take(|| Self::launch(&root(), &[])))
    }

    /// One of its own, with more options.
    pub fn start_with(options: &[&str]) -> Self {
        Self(Tenancy::Own(Self::launch(&root(), options)))
    }

    /// One of its own, of this machine's release, whichever is tried.
    pub fn start_of_release() -> Self {
        Self(Tenancy::Own(Self::launch(Path::new("/"), &[])))
    }

    fn launch(root: &Path, options: &[&str]) -> Server {
        let folder = folder();
        let newest = newest_postgres(root);
        let program = |name: &str| newest.join("bin").join(name);
        let data = folder.join("data");
        let password = folder.join("password");
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
        let command = |port: u16| {
            let mut command = unprivileged("postgres", program("postgres"));
            command.arg("-D").arg(&data).arg("-k").arg(&folder).args([
                "-p",
                &port.to_string(),
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "fsync=off",
                "-c",
                "full_page_writes=off",
                // Its compiler costs more than it saves in anything that a test asks.
                "-c",
                "jit=off",
            ]);
            command.args(options);
            command
        };
        // It says so itself: the last line of this file.
        let is_ready = || {
            let state = std::fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
            state.lines().last().unwrap_or_default().trim() == "ready"
        };
        // Its processes end with it at this signal, at once.
        Server::start(&folder, "QUIT", command, is_ready)
    }

    pub fn port(&self) -> u16 {
        self.0.server().port
    }

    /// A client program, connected to `database`.
    pub fn client(&self, program: &str, database: &str) -> Command {
        // Debian's in `PATH` is a Perl script that looks for this one.
        let of_release = newest_postgres(Path::new("/")).join("bin").join(program);
        let is_of_release = root() == Path::new("/") && of_release.is_file();
        let mut command = Command::new(if is_of_release {
            of_release.as_path()
        } else {
            Path::new(program)
        });
        command
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.port().to_string())
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

pub struct Mariadb(Tenancy);

static MARIADB: LazyLock<Pool> = LazyLock::new(Pool::new);

/// The statements that end everybody else's sessions.
const MARIADB_SESSIONS: &str = "select concat('kill ', id, ';') from information_schema.processlist
    where id <> connection_id() and user not in ('system user', 'event_scheduler')";

/// The statements that then make a server as new.
const MARIADB_AS_NEW: &str = "
select 'set lock_wait_timeout = 20;';
select concat('drop database `', replace(schema_name, '`', '``'), '`;')
    from information_schema.schemata
    where schema_name not in ('mysql', 'information_schema', 'performance_schema', 'sys');
select concat('drop ', if(is_role = 'Y', 'role ', 'user '), quote(user),
    if(is_role = 'Y', '', concat('@', quote(host))), ';') from mysql.user
    where user not in ('root', 'mysql', 'mariadb.sys', 'admin', 'PUBLIC');
select concat('set global ', variable_name, ' = default;')
    from information_schema.system_variables where global_value_origin = 'SQL'";

impl Drop for Mariadb {
    fn drop(&mut self) {
        if let Tenancy::Shared(_) = self.0 {
            let carry_out = |statements: &str| {
                let asked = self.client().args(["-e", statements]).output().unwrap();
                let statements = String::from_utf8_lossy(&asked.stdout).into_owned();
                asked.status.success() && runs_through(&mut self.client(), &statements)
            };
            // One that has just ended by itself cannot be ended.
            carry_out(MARIADB_SESSIONS);
            let is_as_new = carry_out(MARIADB_AS_NEW);
            self.0.give_back(is_as_new);
        }
    }
}

impl Mariadb {
    /// The one of all tests.
    pub fn start() -> Self {
        Self(MARIADB.take(|| Self::launch(&root())))
    }

    /// One of its own, of this machine's release, whichever is tried.
    pub fn start_of_release() -> Self {
        Self(Tenancy::Own(Self::launch(Path::new("/"))))
    }

    fn launch(root: &Path) -> Server {
        let folder = folder();
        let data = folder.join("data");
        let base = format!("--basedir={}", root.join("usr").display());
        let install = root.join("usr/bin/mariadb-install-db");
        // A server that starts removes every server's temporary tables from a folder they share.
        run(unprivileged("mysql", install)
            .env("TMPDIR", &folder)
            .arg("--no-defaults")
            .arg(&base)
            .arg(format!("--datadir={}", data.display()))
            .args(["--auth-root-authentication-method=normal", "--skip-test-db"]));
        let places = [
            "usr/sbin/mariadbd",
            "usr/libexec/mariadbd",
            "usr/bin/mariadbd",
        ];
        let program = first_below(root, &places);
        let socket = folder.join("s");
        let command = |port: u16| {
            let mut command = unprivileged("mysql", &program);
            command
                .arg("--no-defaults")
                .arg(&base)
                .arg(format!("--datadir={}", data.display()))
                .arg(format!("--socket={}", socket.display()))
                .arg(format!("--pid-file={}", folder.join("pid").display()))
                .arg(format!("--port={port}"))
                .args([
                    "--bind-address=127.0.0.1",
                    "--event-scheduler=ON",
                    "--innodb-flush-log-at-trx-commit=0",
                ]);
            command
        };
        let answers = || UnixStream::connect(&socket).is_ok();
        let server = Server::start(&folder, "KILL", command, answers);
        let password = PASSWORD.replace('\\', r"\\").replace('\'', r"\'");
        run(Self::root(&folder).args([
            "-e",
            &format!(
                "create user admin@'%' identified by '{password}'; grant all on *.* to admin@'%'"
            ),
        ]));
        server
    }

    pub fn port(&self) -> u16 {
        self.0.server().port
    }

    /// The client, as root over the socket.
    pub fn client(&self) -> Command {
        Self::root(&self.0.server().folder)
    }

    fn root(folder: &Path) -> Command {
        let mut command = Command::new("mariadb");
        command
            .args([
                "--no-defaults",
                "--skip-ssl",
                "--user=root",
                "--batch",
                "--skip-column-names",
                "--default-character-set=utf8mb4",
            ])
            .arg(format!("--socket={}", folder.join("s").display()))
            .stdin(Stdio::null());
        command
    }

    pub fn sql(&self, text: &str) -> String {
        run(self.client().args(["-e", text]))
    }
}

/// Oracle's MySQL, which is where `tests/engines.sh` has unpacked it; each test starts one.
pub struct Mysql(Server);

impl Mysql {
    pub fn start(options: &[&str]) -> Self {
        let (root, folder) = (root(), folder());
        let (data, socket) = (folder.join("data"), folder.join("s"));
        let mysqld = || {
            let mut command = unprivileged("mysql", root.join("usr/sbin/mysqld"));
            command
                .arg("--no-defaults")
                .arg(format!("--basedir={}", root.join("usr").display()))
                .arg(format!("--datadir={}", data.display()))
                .arg(format!("--secure-file-priv={}", folder.display()));
            command
        };
        run(mysqld().arg("--initialize-insecure"));
        let command = |port: u16| {
            let mut command = mysqld();
            command
                .arg(format!("--socket={}", socket.display()))
                .arg(format!("--pid-file={}", folder.join("pid").display()))
                .arg(format!("--port={port}"))
                .args(["--bind-address=127.0.0.1", "--mysqlx=OFF"])
                .arg("--innodb-flush-log-at-trx-commit=0")
                .args(options);
            command
        };
        let answers = || UnixStream::connect(&socket).is_ok();
        let server = Self(Server::start(&folder, "KILL", command, answers));
        let password = PASSWORD.replace('\\', r"\\").replace('\'', r"\'");
        server.sql(&format!(
            "create user admin@'%' identified by '{password}';
             grant all on *.* to admin@'%' with grant option"
        ));
        server
    }

    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// Its own client, as root over the socket.
    pub fn client(&self) -> Command {
        let mut command = Command::new(root().join("usr/bin/mysql"));
        command
            .args(["--no-defaults", "--user=root", "--batch"])
            .args(["--skip-column-names", "--default-character-set=utf8mb4"])
            .arg(format!("--socket={}", self.0.folder.join("s").display()))
            .stdin(Stdio::null());
        command
    }

    pub fn sql(&self, text: &str) -> String {
        run(self.client().args(["-e", text]))
    }
}
