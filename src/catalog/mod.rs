//! What is in a store and what it is called: backup ids, object keys, the manifest that makes a
//! backup exist, records of what became of runs, and which backups a policy keeps.

mod history;
mod id;
mod identity;
mod key;
mod listing;
mod lookup;
mod manifest;
mod properties;
mod record;
mod retention;

pub use history::{StoredSource, describe_sources, stored_sources};
pub use id::BackupId;
pub use identity::SourceIdentity;
pub use key::{
    Located, archive_key, backup_prefix, check_key, copy_lock_key, database_prefix, fan_out_prefix,
    is_check_key, is_lease_key, lease_key, leases_prefix, locate, locate_record, manifest_key,
    signature_key, volume_name,
};
pub use listing::{
    Backup, BackupName, CLOCKS_AGREE, Found, find, find_under, read_manifest, read_manifest_text,
    read_manifests, read_signature,
};
pub use lookup::{LookupError, Named, look_up, look_up_one_source};
pub use manifest::{
    Archive, Encryption, Entry, Manifest, ManifestError, Mode, ParallelDump, PartsDigest, Volume,
};
pub use properties::{Grant, MysqlProperties, PostgresProperties, Properties, Setting};
pub use record::{Record, RecordKind, Records, keep, keep_chore, read_chore, read_records};
pub use retention::{Retention, Rule, Within, plan};
