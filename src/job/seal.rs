//! From a whole dump and its volumes to the manifest that will be put.

use jiff::Timestamp;

use super::{Destination, Job, Sealed, Signature};
use crate::archive::{Compression, hex};
use crate::catalog::{Archive, BackupId, Encryption, Entry, Manifest, ParallelDump};
use crate::deposit::{Ledger, SealedVolume};
use crate::dump::DumpEnd;

/// Proof that what is in an archive is a whole dump, and what it is.
#[derive(Debug)]
pub struct WholeDump {
    entries: Vec<Entry>,
    parallel: Option<ParallelDump>,
    /// What the tool said although all went well.
    warnings: Vec<String>,
}

impl WholeDump {
    /// An archive with one file in it, the dump that has ended so.
    pub fn one_file(end: &DumpEnd, name: &str, sha256: &[u8; 32]) -> Self {
        let entry = Entry {
            name: name.to_owned(),
            size: end.size(),
            sha256: hex(sha256),
        };
        Self::of_files(end, vec![entry])
    }

    /// The files that a tool has made by itself before its stdout ended so.
    pub fn of_files(end: &DumpEnd, entries: Vec<Entry>) -> Self {
        Self {
            entries,
            parallel: None,
            warnings: end.warnings().to_vec(),
        }
    }

    /// So many files by several sessions that, joined, are this one.
    pub(super) fn in_many_files(self, sessions: usize, files: u64) -> Self {
        Self {
            parallel: Some(ParallelDump { sessions, files }),
            ..self
        }
    }
}

impl Sealed {
    /// An archive of a whole dump whose parts are all in a store. `container` is the archive's
    /// kind and how it is compressed as a whole.
    pub fn new(
        job: &Job,
        id: BackupId,
        (to, ledger): (Destination, Ledger),
        (started, finished): (Timestamp, Timestamp),
        whole: &WholeDump,
        (container, compression): (&str, Compression),
        volumes: Vec<SealedVolume>,
    ) -> Self {
        let warnings = [job.warnings.clone(), whole.warnings.clone()].concat();
        let names = whole.entries.iter().map(|entry| entry.name.clone());
        let names = (!job.hide_names).then(|| names.collect());
        let encryption = job.lock.as_ref().map(|lock| Encryption {
            format: Encryption::AGE.into(),
            recipients: lock.fingerprints(),
            properties: job.sealed_properties.clone(),
            files: names,
        });
        let manifest = Manifest {
            format: Manifest::FORMAT,
            tapline: env!("CARGO_PKG_VERSION").into(),
            database: job.database.clone(),
            backup_id: id,
            engine: job.engine.clone(),
            source: Some(job.source.clone()),
            properties: job.properties.clone(),
            warnings: warnings.len(),
            dump_format: job.dump_format.clone(),
            tool: job.tool.clone(),
            mode: job.mode,
            started,
            finished,
            entries: if encryption.is_none() {
                whole.entries.clone()
            } else {
                Vec::new()
            },
            parallel: whole.parallel,
            archive: Archive {
                container: container.into(),
                compression,
                size: volumes.iter().map(|volume| volume.size).sum(),
                volumes: volumes.iter().map(SealedVolume::describe).collect(),
                encryption,
            },
            signed_by: job
                .signer
                .as_ref()
                .map(|signer| signer.public().to_string()),
        };
        Self {
            to,
            ledger,
            volumes,
            text: manifest.to_json().into(),
            manifest,
            signature: job.signer.clone().map(Signature::By),
            warnings,
            strict: job.strict,
        }
    }
}
