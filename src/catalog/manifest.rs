//! The manifest: what a backup is, written last. A backup exists if and only if its manifest does.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{BackupId, Properties, SourceIdentity};
use crate::archive::{Compression, EntryName};
use crate::store::{Checksum, ChecksumKind};

/// The newest manifest format that this program reads, and the one it writes.
const FORMAT: u32 = 1;

/// One backup, as its `manifest.json` says. Holds no secret and no address of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format.
    pub format: u32,
    /// The version of tapline that wrote it.
    pub tapline: String,
    /// Name of the database in the inventory.
    pub database: String,
    /// The backup.
    pub backup_id: BackupId,
    /// The engine, such as `postgres`.
    pub engine: String,
    /// The source that was dumped; a manifest that does not say it may be of any.
    #[serde(default)]
    pub source: Option<SourceIdentity>,
    /// What is said about the database itself and comes back with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub properties: Option<Properties>,
    /// How many warnings there were: what a good dump lacks, and what its tool said on stderr.
    #[serde(default)]
    pub warnings: usize,
    /// The dump's format where the engine has several: `plain`, `custom`, `directory`; else `dump`.
    pub dump_format: String,
    /// The dump tool and its version in its own words.
    pub tool: String,
    /// How it was made.
    pub mode: Mode,
    /// When the job began.
    pub started: Timestamp,
    /// When the last volume was complete.
    pub finished: Timestamp,
    /// The files in the archive, in order; a streamed backup has one, the dump. Of an encrypted
    /// archive nothing is told here: what they are is inside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<Entry>,
    /// Where the archive has the one entry in many files, which are it when they are joined. There
    /// is no list of them: a manifest does not grow with its dump.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<ParallelDump>,
    /// The archive.
    pub archive: Archive,
    /// The public key whose signature is beside it, when it is signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
}

/// A dump that several sessions have made at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParallelDump {
    /// How many.
    pub sessions: usize,
    /// In how many files the archive has it.
    pub files: u64,
}

/// How a backup was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Dump, archive and upload at once, nothing on disk.
    #[default]
    Streamed,
    /// Dump to files, then archive to a file, then upload it.
    Staged,
}

impl Mode {
    /// As the command line and the manifest name it.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Streamed => "streamed",
            Mode::Staged => "staged",
        }
    }
}

/// A file in the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Path in the archive.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of its bytes, 64 hex digits.
    pub sha256: String,
}

/// The archive of a backup: volumes that, joined, are one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// `tar`, or `zip` (staged backups only).
    pub container: String,
    /// How the container is compressed.
    pub compression: Compression,
    /// Size of all volumes, in bytes.
    pub size: u64,
    /// The volumes, in order; there is at least one.
    pub volumes: Vec<Volume>,
    /// How it is encrypted, behind its compression; absent when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
}

impl Archive {
    /// CRC-64/NVME of all volumes joined.
    fn crc64nvme(&self) -> Option<Checksum> {
        let kind = ChecksumKind::Crc64Nvme;
        let mut joined = Some(Checksum::of(kind, &[]));
        for volume in &self.volumes {
            let next = Checksum::from_base64(kind, &volume.crc64nvme);
            joined = joined
                .zip(next)
                .map(|(before, next)| before.then(next, volume.size));
        }
        joined
    }
}

/// Who can open an encrypted archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    /// The format: `age`.
    pub format: String,
    /// Fingerprints of the public keys, each of which opens it; or `passphrase`.
    pub recipients: Vec<String>,
    /// What is said about the database itself, sealed as the archive is: a whole file of the format,
    /// in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub properties: Option<String>,
    /// Names of the files in the archive; absent when they are hidden, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<String>>,
}

impl Encryption {
    /// The format that is written, and known.
    pub const AGE: &str = "age";
    /// What stands in place of a fingerprint where a passphrase opens.
    pub const PASSPHRASE: &str = "passphrase";

    /// Whether a passphrase opens it, and no key.
    pub fn is_by_passphrase(&self) -> bool {
        self.recipients.iter().any(|one| one == Self::PASSPHRASE)
    }
}

/// One object of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// File name beside the manifest.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Number of parts that it was uploaded in.
    pub parts: u32,
    /// CRC-64/NVME of its bytes, base64 as S3 writes it.
    pub crc64nvme: String,
    /// CRC-32 of its bytes, where the store keeps that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc32: Option<String>,
    /// What nobody can forge, where something else than the files' own digests must prove it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<PartsDigest>,
}

/// SHA-256 of a volume whose parts are made in any order: of the SHA-256 digests of its slices of
/// `slice` bytes, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartsDigest {
    /// Size of a slice, in bytes; the last one may be shorter.
    pub slice: u64,
    /// 64 hex digits.
    pub sha256: String,
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Written by a newer version.
    #[error(
        "the manifest has format {0}, and this version of tapline reads up to {FORMAT}; use a newer tapline"
    )]
    Newer(u32),
    /// Not a manifest.
    #[error("the manifest is damaged: {0}")]
    Damaged(String),
}

impl Manifest {
    /// The format that is written.
    pub const FORMAT: u32 = FORMAT;

    /// Total size of the files in the archive, in bytes; an encrypted archive's is not told.
    pub fn dump_size(&self) -> Option<u64> {
        let told = self.archive.encryption.is_none();
        told.then(|| self.entries.iter().map(|entry| entry.size).sum())
    }

    /// What opens it, in words; `None` when everybody can read it.
    pub fn needed_key(&self) -> Option<String> {
        let encryption = self.archive.encryption.as_ref()?;
        Some(match encryption.recipients.as_slice() {
            _ if encryption.is_by_passphrase() => "its passphrase".into(),
            [one] => format!("the private key of {one}"),
            several => format!("the private key of one of {}", several.join(", ")),
        })
    }

    /// Whether the other one is of the same backup, whose archive may be in other volumes there.
    pub fn is_same_backup(&self, other: &Self) -> bool {
        let without = |manifest: &Self| Self {
            archive: Archive {
                volumes: Vec::new(),
                ..manifest.archive.clone()
            },
            ..manifest.clone()
        };
        let digest = self.archive.crc64nvme();
        without(self) == without(other) && digest.is_some() && digest == other.archive.crc64nvme()
    }

    /// Names of the files in the archive, as far as they are told.
    pub fn file_names(&self) -> Vec<&str> {
        let sealed = self.archive.encryption.iter();
        let sealed = sealed.flat_map(|encryption| encryption.files.iter().flatten());
        let open = self.entries.iter().map(|entry| &entry.name);
        open.chain(sealed).map(String::as_str).collect()
    }

    /// The keys of the archive's volumes, in order.
    pub fn volume_keys(&self) -> impl Iterator<Item = String> {
        let prefix = super::backup_prefix(&self.database, &self.backup_id);
        self.archive
            .volumes
            .iter()
            .map(move |volume| format!("{prefix}{}", volume.name))
    }

    /// The keys of the backup's objects, the manifest last.
    pub fn keys(&self) -> Vec<String> {
        let signed = self.signed_by.is_some();
        let signature = signed.then(|| super::signature_key(&self.database, &self.backup_id));
        self.volume_keys()
            .chain(signature)
            .chain([super::manifest_key(&self.database, &self.backup_id)])
            .collect()
    }

    /// The manifest as the JSON text that is stored.
    pub fn to_json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("a manifest has only string keys");
        text.push(b'\n');
        text
    }

    /// Reads a stored manifest and checks that its numbers can be true.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn from_json(text: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let damaged = |error: serde_json::Error| ManifestError::Damaged(error.to_string());
        // The version comes first: what a newer format means is not for this one to guess.
        let Version { format } = serde_json::from_slice(text).map_err(damaged)?;
        if format > FORMAT {
            return Err(ManifestError::Newer(format));
        }
        let manifest: Self = serde_json::from_slice(text).map_err(damaged)?;
        manifest.validate().map_err(ManifestError::Damaged)?;
        Ok(manifest)
    }

    fn validate(&self) -> Result<(), String> {
        let archive = &self.archive;
        let total = archive
            .volumes
            .iter()
            .try_fold(0u64, |sum, volume| sum.checked_add(volume.size));
        if archive.volumes.is_empty() || total != Some(archive.size) {
            return Err(format!(
                "its {} volumes do not add up to {} bytes",
                archive.volumes.len(),
                archive.size
            ));
        }
        if let Some(volume) = archive
            .volumes
            .iter()
            .find(|volume| volume.name.is_empty() || volume.name.contains('/'))
        {
            return Err(format!("{:?} is not the name of a volume", volume.name));
        }
        match &archive.encryption {
            None if self.entries.is_empty() => {
                return Err("it names no file in the archive".into());
            }
            Some(_) if !self.entries.is_empty() => {
                return Err("it tells what is in an encrypted archive".into());
            }
            Some(Encryption { format, .. }) if format != Encryption::AGE => {
                return Err(format!("its encryption is {format:?}, which is not known"));
            }
            _ => {}
        }
        if self.parallel.is_some() && self.file_names().len() > 1 {
            return Err("a dump by several sessions is one script".into());
        }
        let no_name = |name: &&str| !EntryName::are_all_of(name);
        if let Some(name) = self.file_names().into_iter().find(no_name) {
            return Err(format!("{name:?} is not the name of a file in an archive"));
        }
        let no_digest = |volume: &&Volume| {
            let digest = volume.digest.as_ref();
            digest.is_some_and(|digest| digest.slice == 0)
        };
        if let Some(volume) = archive.volumes.iter().find(no_digest) {
            return Err(format!("{}: its digest has slices of 0 bytes", volume.name));
        }
        if self
            .entries
            .iter()
            .try_fold(0u64, |sum, entry| sum.checked_add(entry.size))
            .is_none()
        {
            return Err("its files' sizes add up to more than can be".into());
        }
        Ok(())
    }
}

#[cfg(test)]
impl Manifest {
    /// A manifest of the right shape, of a small backup.
    pub(crate) fn sample(database: &str, id: &BackupId) -> Self {
        let volume = Volume {
            name: "x.tar.gz".into(),
            size: 10,
            parts: 1,
            crc64nvme: "AAAAAAAAAAA=".into(),
            crc32: None,
            digest: None,
        };
        Self {
            format: FORMAT,
            tapline: "0".into(),
            database: database.into(),
            backup_id: id.clone(),
            engine: "command".into(),
            source: None,
            properties: None,
            warnings: 0,
            dump_format: "dump".into(),
            tool: "true".into(),
            mode: Mode::Streamed,
            started: id.time(),
            finished: id.time(),
            entries: vec![Entry {
                name: "x".into(),
                size: 20,
                sha256: "0".repeat(64),
            }],
            parallel: None,
            archive: Archive {
                container: "tar".into(),
                compression: Compression::Gzip,
                size: 10,
                volumes: vec![volume],
                encryption: None,
            },
            signed_by: None,
        }
    }
}
