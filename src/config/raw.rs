//! The inventory as it is written. Everything is optional here; what must be there is the
//! validation's to say.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Inventory {
    #[serde(default)]
    pub run: Run,
    #[serde(default)]
    pub staged: Staged,
    #[serde(default)]
    pub notify: Notify,
    #[serde(default)]
    pub signatures: Signatures,
    #[serde(default)]
    pub hooks: Hooks,
    #[serde(default)]
    pub serve: Serve,
    #[serde(default)]
    pub stores: BTreeMap<Spanned<String>, Store>,
    #[serde(default)]
    pub defaults: Database,
    #[serde(default)]
    pub databases: BTreeMap<Spanned<String>, Database>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Run {
    pub mode: Option<Spanned<String>>,
    pub jobs: Option<Spanned<usize>>,
    pub jobs_per_host: Option<Spanned<usize>>,
    pub memory: Option<Spanned<Size>>,
    pub retry_for: Option<Spanned<String>>,
    pub stall_timeout: Option<Spanned<String>>,
    pub exit_timeout: Option<Spanned<String>>,
    pub connect_timeout: Option<Spanned<String>>,
    pub wait_for_store: Option<Spanned<String>>,
    pub prune_after_backup: Option<bool>,
    pub max_upload_rate: Option<Spanned<Size>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Staged {
    pub dir: Option<PathBuf>,
    pub dump: Option<Spanned<usize>>,
    pub archive: Option<Spanned<usize>>,
    pub upload: Option<Spanned<usize>>,
    pub queue: Option<Spanned<usize>>,
    pub parallel: Option<Spanned<usize>>,
    pub container: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Signatures {
    pub sign_with: Option<Spanned<Secret>>,
    pub trusted_signers: Option<Vec<Spanned<String>>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Notify {
    pub on: Option<Spanned<Vec<String>>>,
    pub ping: Option<Spanned<Address>>,
    pub webhook: Option<Spanned<Address>>,
    pub headers: Option<BTreeMap<Spanned<String>, Spanned<Secret>>>,
    pub template: Option<Spanned<String>>,
    pub email: Option<Spanned<Mail>>,
    pub command: Option<Spanned<Vec<String>>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Mail {
    pub server: Option<Spanned<String>>,
    pub port: Option<Spanned<u16>>,
    pub tls: Option<Spanned<String>>,
    pub ca_file: Option<Spanned<PathBuf>>,
    pub from: Option<Spanned<String>>,
    pub to: Option<Spanned<Vec<Spanned<String>>>>,
    pub user: Option<Spanned<String>>,
    pub password: Option<Spanned<Secret>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Hooks {
    pub before_run: Option<Spanned<Vec<String>>>,
    pub after_run: Option<Spanned<Vec<String>>>,
    pub before: Option<Spanned<Vec<String>>>,
    pub after: Option<Spanned<Vec<String>>>,
    pub timeout: Option<Spanned<String>>,
    pub env: Option<BTreeMap<Spanned<String>, Spanned<Secret>>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Serve {
    pub time_zone: Option<Spanned<String>>,
    pub verify: Option<Spanned<String>>,
    pub drill: Option<Spanned<String>>,
    pub prune: Option<Spanned<String>>,
    pub cleanup: Option<Spanned<String>>,
}

/// A URL, or where it comes from: many are secrets themselves.
#[derive(Deserialize, Clone)]
#[serde(untagged)]
pub(super) enum Address {
    Text(String),
    Secret(Secret),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Store {
    pub url: Spanned<String>,
    pub endpoint: Option<Spanned<String>>,
    pub provider: Option<Spanned<String>>,
    pub region: Option<Spanned<String>>,
    pub path_style: Option<Spanned<bool>>,
    pub ca_file: Option<Spanned<PathBuf>>,
    pub storage_class: Option<Spanned<String>>,
    pub sse: Option<Spanned<String>>,
    pub checksum: Option<Spanned<String>>,
    pub object_lock: Option<Spanned<ObjectLock>>,
    pub max_parts: Option<Spanned<u32>>,
    pub connections: Option<Spanned<u32>>,
    pub max_upload_rate: Option<Spanned<Size>>,
    pub timeout: Option<Spanned<String>>,
    pub access_key: Option<Spanned<Secret>>,
    pub secret_key: Option<Spanned<Secret>>,
    pub session_token: Option<Spanned<Secret>>,
    pub marker: Option<Spanned<String>>,
    pub keep_last: Option<Spanned<u32>>,
    pub keep_hourly: Option<Spanned<u32>>,
    pub keep_daily: Option<Spanned<u32>>,
    pub keep_weekly: Option<Spanned<u32>>,
    pub keep_monthly: Option<Spanned<u32>>,
    pub keep_yearly: Option<Spanned<u32>>,
    pub keep_within: Option<Spanned<String>>,
}

impl Store {
    /// The keys that say nothing of a folder, and where they stand.
    pub fn keys_of_buckets(&self) -> [(&'static str, Option<Range<usize>>); 12] {
        fn at<T>(value: Option<&Spanned<T>>) -> Option<Range<usize>> {
            value.map(Spanned::span)
        }
        [
            ("endpoint", at(self.endpoint.as_ref())),
            ("provider", at(self.provider.as_ref())),
            ("region", at(self.region.as_ref())),
            ("path_style", at(self.path_style.as_ref())),
            ("ca_file", at(self.ca_file.as_ref())),
            ("storage_class", at(self.storage_class.as_ref())),
            ("sse", at(self.sse.as_ref())),
            ("object_lock", at(self.object_lock.as_ref())),
            ("checksum", at(self.checksum.as_ref())),
            ("access_key", at(self.access_key.as_ref())),
            ("secret_key", at(self.secret_key.as_ref())),
            ("session_token", at(self.session_token.as_ref())),
        ]
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ObjectLock {
    pub mode: Spanned<String>,
    pub days: Spanned<u32>,
}

#[expect(clippy::struct_field_names, reason = "the key is called so")]
/// A database's keys; in `[defaults]` as in `[databases.NAME]`.
#[derive(Deserialize, Default, Clone)]
#[serde(deny_unknown_fields)]
pub(super) struct Database {
    pub engine: Option<Spanned<String>>,
    pub host: Option<Spanned<String>>,
    pub port: Option<Spanned<u16>>,
    pub socket: Option<Spanned<PathBuf>>,
    pub user: Option<Spanned<String>>,
    pub password: Option<Spanned<Secret>>,
    pub database: Option<Spanned<String>>,
    pub exclude: Option<Spanned<Vec<String>>>,
    pub globals: Option<Spanned<bool>>,
    pub format: Option<Spanned<String>>,
    pub parallel: Option<Spanned<usize>>,
    pub options: Option<Spanned<Vec<String>>>,
    pub dump_tool: Option<Spanned<PathBuf>>,
    pub tools: Option<Spanned<PathBuf>>,
    pub service: Option<Spanned<String>>,
    pub sslmode: Option<Spanned<String>>,
    pub sslrootcert: Option<Spanned<PathBuf>>,
    pub sslcert: Option<Spanned<PathBuf>>,
    pub sslkey: Option<Spanned<PathBuf>>,
    pub ssl_mode: Option<Spanned<String>>,
    pub ssl_ca: Option<Spanned<PathBuf>>,
    pub ssl_cert: Option<Spanned<PathBuf>>,
    pub ssl_key: Option<Spanned<PathBuf>>,
    pub path: Option<Spanned<PathBuf>>,
    pub lock_timeout: Option<Spanned<String>>,
    pub command: Option<Spanned<Vec<String>>>,
    pub restore: Option<Spanned<Vec<String>>>,
    pub env: Option<Spanned<BTreeMap<String, Spanned<Secret>>>>,
    pub file_name: Option<Spanned<String>>,
    pub allow_empty: Option<Spanned<bool>>,
    pub strict: Option<Spanned<bool>>,
    pub retries: Option<Spanned<u32>>,
    pub formerly: Option<Spanned<Vec<String>>>,
    pub compression: Option<Spanned<String>>,
    pub level: Option<Spanned<i32>>,
    pub encrypt_to: Option<Spanned<Vec<Spanned<RecipientFrom>>>>,
    pub passphrase: Option<Spanned<Secret>>,
    pub hide_names: Option<Spanned<bool>>,
    pub store: Option<Spanned<String>>,
    pub stores: Option<Spanned<Vec<Spanned<String>>>>,
    pub expected_size: Option<Spanned<Size>>,
    pub expect_every: Option<Spanned<String>>,
    pub schedule: Option<Spanned<String>>,
    pub time_zone: Option<Spanned<String>>,
    pub jitter: Option<Spanned<String>>,
    pub keep_last: Option<Spanned<u32>>,
    pub keep_hourly: Option<Spanned<u32>>,
    pub keep_daily: Option<Spanned<u32>>,
    pub keep_weekly: Option<Spanned<u32>>,
    pub keep_monthly: Option<Spanned<u32>>,
    pub keep_yearly: Option<Spanned<u32>>,
    pub keep_within: Option<Spanned<String>>,
}

/// A public key, or where some come from.
#[derive(Deserialize, Clone)]
#[serde(untagged)]
pub(super) enum RecipientFrom {
    Key(String),
    Table(BTreeMap<String, toml::Value>),
}

/// A number of bytes, or text such as `16MiB`.
#[derive(Deserialize, Clone)]
#[serde(untagged)]
pub(super) enum Size {
    Bytes(u64),
    Text(String),
}

/// A secret's place. Whatever else stands there is forgotten at once, because it may be the secret
/// itself.
#[derive(Deserialize, Clone)]
#[serde(untagged)]
pub(super) enum Secret {
    From(BTreeMap<String, toml::Value>),
    Other(serde::de::IgnoredAny),
}
