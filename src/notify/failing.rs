//! Which databases failed when they were last backed up from this host, in a small file between the
//! runs: without it nobody knows a recovery from any other success.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::run::{JobResult, RunReport};

/// A run that did not come as far as its jobs.
const RUN: &str = "*";

/// Notes what failed in a run (`None` when it did not come as far as its jobs), and returns what
/// had failed before and is stored now.
///
/// # Errors
/// When the note cannot be kept, in words.
pub fn note(inventory: &Path, report: Option<&RunReport>) -> Result<Vec<String>, String> {
    let file = file(inventory);
    let failed = |error: std::io::Error| {
        format!(
            "what failed is not noted for the next run: {}: {error}",
            file.display()
        )
    };
    let mut failing = match std::fs::read(&file) {
        // A note that cannot be understood is none.
        Ok(text) => serde_json::from_slice::<BTreeSet<String>>(&text).unwrap_or_default(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeSet::new(),
        Err(error) => return Err(failed(error)),
    };
    let before = failing.clone();
    let mut recovered = Vec::new();
    match report {
        None => drop(failing.insert(RUN.into())),
        Some(_) if failing.remove(RUN) => recovered.push(RUN.to_owned()),
        Some(_) => {}
    }
    for job in report.iter().flat_map(|report| &report.jobs) {
        let is_good = job.result == JobResult::Stored && job.prune_error.is_none();
        if !is_good {
            failing.insert(job.database.clone());
        } else if failing.remove(&job.database) {
            recovered.push(job.database.clone());
        }
    }
    if failing != before {
        write(&file, &failing).map_err(failed)?;
    }
    Ok(recovered)
}

fn write(file: &Path, failing: &BTreeSet<String>) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut half = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&mut half, failing)?;
    half.flush()?;
    half.persist(file).map(drop).map_err(|error| error.error)
}

/// Where the note of an inventory is: systemd's `StateDirectory=`, else the person's folder for
/// state, else the system's.
fn file(inventory: &Path) -> PathBuf {
    let of = |name: &str| {
        let value = std::env::var_os(name)?;
        Some(PathBuf::from(value)).filter(|path| path.is_absolute())
    };
    let folder = of("STATE_DIRECTORY")
        .or_else(|| Some(of("XDG_STATE_HOME")?.join("tapline")))
        .or_else(|| Some(of("HOME")?.join(".local/state/tapline")))
        .unwrap_or_else(|| "/var/lib/tapline".into());
    let path = std::fs::canonicalize(inventory).unwrap_or_else(|_| inventory.to_owned());
    let hash = Sha256::digest(path.as_os_str().as_encoded_bytes());
    folder.join(format!("failing-{}.json", crate::archive::hex(&hash[..8])))
}
