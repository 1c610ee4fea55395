//! The inventory as the rest of the program sees it: everything checked, defaults filled in.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lettre::message::Mailbox;

use super::{EncryptionSettings, Schedule};
use crate::archive::{Compression, EntryName};
use crate::catalog::{Mode, Retention};
use crate::notify::template::Template;
use crate::signature::TrustedSigners;
use crate::store::folder::FolderSettings;
use crate::store::s3::S3Settings;

/// How long others wait for a lock of ours when the inventory says nothing.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_mins(10);

/// A whole inventory file.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// The file that it was read from.
    pub path: PathBuf,
    /// `[run]`.
    pub run: RunSettings,
    /// `[staged]`.
    pub staged: StagedSettings,
    /// `[notify]`.
    pub notify: NotifySettings,
    /// `[signatures]`.
    pub signatures: SignatureSettings,
    /// `[hooks]`.
    pub hooks: HookSettings,
    /// `[serve]`.
    pub serve: ServeSettings,
    /// `[stores.NAME]`.
    pub stores: BTreeMap<String, Arc<StoreSettings>>,
    /// The `keep_` rules of stores that have some of their own.
    pub store_rules: BTreeMap<String, Retention>,
    /// `[databases.NAME]`, in the file's order, with `[defaults]` filled in.
    pub databases: Vec<Database>,
    /// What is no error, and yet should be looked at.
    pub warnings: Vec<String>,
}

/// `[staged]`: the pools of a staged run, and where it keeps its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedSettings {
    /// Under which a run makes its folder; the system's folder for temp files when the inventory
    /// says nothing.
    pub dir: PathBuf,
    /// Workers that dump.
    pub dump: usize,
    /// Workers that archive.
    pub archive: usize,
    /// Workers that upload.
    pub upload: usize,
    /// How many databases may wait between two steps.
    pub queue: usize,
    /// Connections of one dump, where the tool can use several (`pg_dump --jobs`).
    pub parallel: usize,
    /// What the files are archived in.
    pub container: Container,
}

/// What a staged backup's files are archived in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// `.tar.gz`, `.tar.zst` or `.tar`.
    Tar,
    /// `.zip`.
    Zip,
}

impl Container {
    /// As the inventory and the manifest name it.
    pub fn name(self) -> &'static str {
        match self {
            Container::Tar => "tar",
            Container::Zip => "zip",
        }
    }
}

/// `[signatures]`: who signs manifests, and who must have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignatureSettings {
    /// The key that signs those of this host.
    pub sign_with: Option<Secret>,
    /// One of these must have signed what is read.
    pub trusted: TrustedSigners,
}

/// `[run]`: how many at once, with how much memory, and how long to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSettings {
    /// Streamed, or staged as the baseline is.
    pub mode: Mode,
    /// Jobs at once; 1 is the sequential mode.
    pub jobs: usize,
    /// Jobs at once on one host; one with `parallel` sessions counts as so many.
    pub jobs_per_host: usize,
    /// Memory of the whole run in bytes, divided among jobs; by default 128 MiB for each job that
    /// can run at once.
    pub memory: Option<u64>,
    /// How long one store operation is tried again before it fails the job.
    pub retry_for: Duration,
    /// With several stores: how long one of them may hold up a backup in the others.
    pub wait_for_store: Duration,
    /// A job in which nothing moved for so long is ended; off by default.
    pub stall_timeout: Option<Duration>,
    /// How long a dump tool may take to exit after it closed its stdout.
    pub exit_timeout: Duration,
    /// How long a login, a discovery query, or a `{ command = […] }` secret may take.
    pub connect_timeout: Duration,
    /// Whether a database is pruned after its own success, by its own policy.
    pub prune_after_backup: bool,
    /// Bytes of archives in a second, of all jobs and stores together.
    pub max_upload_rate: Option<NonZeroU64>,
}

/// `[hooks]`: commands before and after.
#[derive(Debug, Clone, Default)]
pub struct HookSettings {
    /// argv before a run; when it fails there is none.
    pub before_run: Vec<String>,
    /// argv after it.
    pub after_run: Vec<String>,
    /// argv before a database; when it fails that is not backed up.
    pub before: Vec<String>,
    /// argv after it.
    pub after: Vec<String>,
    /// How long each may take.
    pub timeout: Duration,
    /// Environment for them.
    pub env: Vec<(String, Secret)>,
}

/// `[serve]`: what `tapline serve` does beside backups, and when.
#[derive(Debug, Clone, Default)]
pub struct ServeSettings {
    /// Reading back the latest backup of each database.
    pub verify: Option<Schedule>,
    /// Restoring each into a scratch database.
    pub drill: Option<Schedule>,
    /// Removing the backups that no rule keeps.
    pub prune: Option<Schedule>,
    /// Removing what never became a backup.
    pub cleanup: Option<Schedule>,
}

/// `[notify]`: who is told how a run went.
#[derive(Debug, Clone, Default)]
pub struct NotifySettings {
    /// Whether `webhook` and `command` are told of a run in which something failed.
    pub on_failure: bool,
    /// Of the first good run after one in which something failed.
    pub on_recovery: bool,
    /// Of every good run.
    pub on_success: bool,
    /// A healthchecks service's URL for this run: `/start`, nothing and `/fail` are added to it.
    pub ping: Option<Address>,
    /// Where a notice is posted to, as JSON.
    pub webhook: Option<Address>,
    /// Headers of that, by name.
    pub headers: Vec<(String, Secret)>,
    /// How that wants to be told; as our own JSON when absent.
    pub template: Option<Template>,
    /// A mail server and whom it is to tell.
    pub email: Option<MailSettings>,
    /// argv that reads a notice from its stdin, as JSON.
    pub command: Vec<String>,
}

impl NotifySettings {
    /// Whether anybody is to be told at all.
    pub fn names_anybody(&self) -> bool {
        self.ping.is_some()
            || self.webhook.is_some()
            || self.email.is_some()
            || !self.command.is_empty()
    }
}

/// `notify.email`
#[derive(Debug, Clone)]
pub struct MailSettings {
    /// Its name, which its certificate must have.
    pub server: String,
    /// Its port.
    pub port: u16,
    /// How what is said is kept secret.
    pub tls: MailTls,
    /// Authorities of one's own, beside the machine's.
    pub ca_file: Option<PathBuf>,
    /// Who writes.
    pub from: Mailbox,
    /// Who is to read it.
    pub to: Vec<Mailbox>,
    /// User and password.
    pub login: Option<(String, Secret)>,
}

/// How a mail server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailTls {
    /// In the open until it has agreed to TLS, and not a word more without.
    Starttls,
    /// By TLS from the first byte.
    Tls,
    /// In the open.
    None,
}

/// A URL that may be a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// As it stands in the inventory.
    Text(String),
    /// Kept elsewhere.
    Secret(Secret),
}

/// `[stores.NAME]`.
#[expect(
    clippy::large_enum_variant,
    reason = "there are a few, each behind an Arc"
)]
#[derive(Debug, Clone)]
pub enum StoreSettings {
    /// `url = "s3://BUCKET/PREFIX"`
    S3 {
        /// Bucket, server, and how to write there.
        s3: S3Settings,
        /// Where its access key comes from; the standard AWS chain when absent.
        keys: Option<StoreKeys>,
    },
    /// `url = "file:///FOLDER"`
    Folder(FolderSettings),
}

impl StoreSettings {
    /// Before every key, with no slash at either end; may be empty.
    pub fn prefix(&self) -> &str {
        match self {
            Self::S3 { s3, .. } => &s3.prefix,
            Self::Folder(folder) => &folder.prefix,
        }
    }

    /// The same store, with `under` behind the prefix.
    pub fn put_under(&mut self, under: &str) {
        let prefix = match self {
            Self::S3 { s3, .. } => &mut s3.prefix,
            Self::Folder(folder) => &mut folder.prefix,
        };
        let joined = format!("{prefix}/{under}");
        joined.trim_matches('/').clone_into(prefix);
    }

    /// The server's address, where it is not AWS's own.
    pub fn endpoint(&self) -> Option<&str> {
        match self {
            Self::S3 { s3, .. } => s3.endpoint.as_deref(),
            Self::Folder(_) => None,
        }
    }

    /// Where the access key comes from.
    pub fn keys(&self) -> Option<&StoreKeys> {
        match self {
            Self::S3 { keys, .. } => keys.as_ref(),
            Self::Folder(_) => None,
        }
    }
}

/// Where a store's access key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreKeys {
    /// `access_key`
    pub access: Secret,
    /// `secret_key`
    pub secret: Secret,
    /// `session_token`, of temporary credentials.
    pub session: Option<Secret>,
}

/// Where a secret comes from. Never the secret itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Where it comes from.
    pub from: SecretFrom,
    /// `file:line: key`, for messages.
    pub place: String,
}

/// The ways to give a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretFrom {
    /// `{ env = "X" }`
    Env(String),
    /// `{ file = "p" }`, trailing line break removed; relative to the inventory's folder.
    File(PathBuf),
    /// `{ command = […] }`, its stdout with the trailing line break removed.
    Command(Vec<String>),
}

/// Which engine dumps a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// `pg_dump`, `pg_dumpall`.
    Postgres,
    /// `mysqldump` first, `mariadb-dump` when that is all there is.
    Mysql,
    /// `mariadb-dump` first.
    Mariadb,
    /// Our own page dump.
    Sqlite,
    /// Any argv.
    Command,
}

impl EngineKind {
    /// The engine of that name, if there is one.
    pub fn named(name: &str) -> Option<Self> {
        use EngineKind::{Command, Mariadb, Mysql, Postgres, Sqlite};
        [Postgres, Mysql, Mariadb, Sqlite, Command]
            .into_iter()
            .find(|kind| kind.name() == name)
    }

    /// As the inventory and the manifest name it.
    pub fn name(self) -> &'static str {
        match self {
            EngineKind::Postgres => "postgres",
            EngineKind::Mysql => "mysql",
            EngineKind::Mariadb => "mariadb",
            EngineKind::Sqlite => "sqlite",
            EngineKind::Command => "command",
        }
    }
}

/// `[databases.NAME]`, defaults filled in.
#[derive(Debug, Clone)]
pub struct Database {
    /// Its name in the inventory; of a discovered one `NAME/DATABASE`.
    pub name: String,
    /// `file:line: databases.NAME`, for messages.
    pub place: String,
    /// Engine.
    pub engine: EngineKind,
    /// Host; the client's default when neither this nor `socket` is given.
    pub host: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// Unix socket: a folder for PostgreSQL, a file for MariaDB and MySQL.
    pub socket: Option<PathBuf>,
    /// User.
    pub user: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// Which databases of the server.
    pub database: Selection,
    /// PostgreSQL: `plain` or `custom`.
    pub dump_format: DumpFormat,
    /// PostgreSQL: sessions that dump it at once. Only a plain dump of one database is made by more
    /// than one.
    pub parallel: usize,
    /// Extra options for the dump tool, appended to ours.
    pub options: Vec<String>,
    /// The dump tool to run instead of the one found in `PATH`.
    pub dump_tool: Option<PathBuf>,
    /// The folder with the server's client programs, instead of the ones found in `PATH`.
    pub tools: Option<PathBuf>,
    /// PostgreSQL: the entry of the service file to take what the inventory does not say from.
    pub service: Option<String>,
    /// How the connection is encrypted, and who is trusted.
    pub tls: Tls,
    /// SQLite: the file.
    pub path: Option<PathBuf>,
    /// SQLite: how long those who write to a database that is not in WAL mode wait for its dump.
    pub lock_timeout: Duration,
    /// `command`: argv that writes the dump to its stdout.
    pub command: Vec<String>,
    /// `command`: argv that reads the dump from its stdin.
    pub restore: Vec<String>,
    /// Extra environment for the dump tool.
    pub env: BTreeMap<String, Secret>,
    /// Whether a dump without a byte is a good one.
    pub allow_empty: bool,
    /// Whether a warning fails the backup.
    pub strict: bool,
    /// How often a failed dump is run again.
    pub retries: u32,
    /// Fingerprints of the sources that this one was before its server's identity changed.
    pub formerly: Vec<String>,
    /// File name of the dump in the archive; the engine's choice when absent.
    pub file_name: Option<EntryName>,
    /// Compression.
    pub compression: Compression,
    /// Level, checked against the compression.
    pub level: i32,
    /// Who alone can read its backups; everybody when absent.
    pub encryption: Option<EncryptionSettings>,
    /// Names of its stores: one, or several that get the same backup at once.
    pub stores: Vec<String>,
    /// Expected size of the dump, in bytes; the engine's estimate when absent.
    pub expected_size: Option<u64>,
    /// How often a backup of it is to be made; `tapline status` says when one is overdue.
    pub expect_every: Option<Duration>,
    /// When `tapline serve` backs it up.
    pub schedule: Option<Schedule>,
    /// Which of its backups `tapline prune` keeps.
    pub retention: Retention,
}

/// A connection's encryption; `sslmode` and `sslrootcert` for PostgreSQL, `ssl_mode` and `ssl_ca`
/// for MySQL and MariaDB, and so on. What is absent is the client's default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// In the words of the engine's own client.
    pub mode: Option<String>,
    /// Who vouches for the server.
    pub ca: Option<PathBuf>,
    /// The client's certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

impl Tls {
    /// The modes of the engine's clients.
    pub fn modes(kind: EngineKind) -> &'static [&'static str] {
        match kind {
            EngineKind::Postgres => &[
                "disable",
                "allow",
                "prefer",
                "require",
                "verify-ca",
                "verify-full",
            ],
            EngineKind::Mysql | EngineKind::Mariadb => &[
                "disabled",
                "preferred",
                "required",
                "verify_ca",
                "verify_identity",
            ],
            EngineKind::Sqlite | EngineKind::Command => &[],
        }
    }
}

/// `database = …`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// One database of the server, by name; by default the inventory's name of it.
    One(String),
    /// `"*"`: every database of the server but those in `exclude`.
    All {
        /// Names left out; a trailing `*` is a wildcard.
        exclude: Vec<String>,
    },
    /// `globals = true`: roles and tablespaces by `pg_dumpall --globals-only`, users and roles with
    /// their grants by `mariadb-dump --system=users`.
    Globals,
    /// SQLite and `command`: the question does not arise.
    Whole,
}

impl Selection {
    /// Whether `exclude` leaves out the server's database called `name`.
    pub fn excludes(&self, name: &str) -> bool {
        let Selection::All { exclude } = self else {
            return false;
        };
        exclude
            .iter()
            .any(|pattern| match pattern.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => name == pattern,
            })
    }
}

/// A PostgreSQL dump's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DumpFormat {
    /// SQL text.
    Plain,
    /// `pg_dump --format=custom`, for `pg_restore`.
    Custom,
}
