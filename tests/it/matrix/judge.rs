//! Which of the promised outcomes a backup came to.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tapline::catalog::Manifest;

use super::super::world::{Run, World, backup_keys, leases, tool};

/// There is a backup, and it is the dump.
pub const STORED: &str = "stored: exit 0, and it restores equal";
/// There is none, and nothing of it.
pub const ABSENT: &str = "absent: exit not 0, and nothing is left";
/// There is none, and something of it.
pub const TOLD: &str = "told: exit not 0, and a line says what is left and what removes it";

/// Longer than whatever `cleanup` takes for young.
const LONG_AGO: Duration = Duration::from_hours(72);

/// Whether something may be left when a line says so.
#[derive(Clone, Copy, PartialEq)]
pub enum Leftovers {
    /// Only where the store itself refuses, or never answers.
    AreToBeTold,
    AreWrong,
}

/// Judges `run`, a backup of `dump` into the store of `world`.
pub fn judge(
    world: &World,
    dump: &Path,
    run: &Run,
    leftovers: Leftovers,
) -> Result<&'static str, String> {
    let store = world.server.store();
    let state = || {
        format!(
            "keys {:?}, {} open uploads",
            store.keys(),
            store.open_uploads()
        )
    };
    let whole = whole_backups(world, dump)?;
    let empty = backup_keys(&world.server).is_empty() && store.open_uploads() == 0;
    match (run.code, whole) {
        (Some(137), _) => Err(format!("it never ended, and {}\n{}", state(), run.words())),
        (Some(0), 1) if store.open_uploads() == 0 => Ok(STORED),
        (Some(0), _) => Err(format!("exit 0, and {}\n{}", state(), run.words())),
        (Some(_), 0) if empty => Ok(ABSENT),
        (Some(_), _) if run.words().contains("tapline cleanup") => {
            if leftovers == Leftovers::AreWrong {
                return Err(format!("left: {}\n{}", state(), run.words()));
            }
            let whole = tidy_up(world, dump)?;
            let words = run.words();
            if whole > 0 && !words.contains("tapline verify") && !words.contains("tapline list") {
                return Err(format!(
                    "failed, and there is a backup: {}\n{words}",
                    state()
                ));
            }
            Ok(TOLD)
        }
        (code, _) => Err(format!(
            "exit {code:?}, not a word, and {}\n{}",
            state(),
            run.words()
        )),
    }
}

/// A run that has ended leaves no lease, unless the store refuses for ever to let it go.
pub fn let_go(world: &World, outcome: &'static str) -> Result<&'static str, String> {
    match leases(&world.server).as_slice() {
        [] => Ok(outcome),
        left => Err(format!("{outcome}, and leases are left: {left:?}")),
    }
}

/// What `cleanup` makes of a store in which a backup was ended: whole backups and nothing else.
/// Returns how many.
pub fn tidy_up(world: &World, dump: &Path) -> Result<usize, String> {
    world.server.faults().clear();
    let store = world.server.store();
    store.age_by(LONG_AGO);
    let cleaned = world.quietly(&["cleanup", "--confirm"]);
    if cleaned.code != Some(0) {
        return Err(format!(
            "cleanup: exit {:?}\n{}",
            cleaned.code,
            cleaned.words()
        ));
    }
    let whole = whole_backups(world, dump)?;
    let keys = [backup_keys(&world.server), leases(&world.server)].concat();
    let manifests = keys
        .iter()
        .filter(|key| key.ends_with("manifest.json"))
        .count();
    // The only backup is one volume and its manifest.
    if keys.len() != 2 * whole || manifests != whole || store.open_uploads() > 0 {
        let open = store.open_uploads();
        return Err(format!(
            "after cleanup: {keys:?}, {open} open uploads\n{}",
            cleaned.words()
        ));
    }
    Ok(whole)
}

/// How many manifests there are; every one of them must be of an archive that is `dump`.
pub fn whole_backups(world: &World, dump: &Path) -> Result<usize, String> {
    let store = world.server.store();
    let mut whole = 0;
    for key in store.keys() {
        let Some(folder) = key.strip_suffix("manifest.json") else {
            continue;
        };
        let text = store.read(&key).unwrap_or_default();
        let manifest = Manifest::from_json(&text).map_err(|error| format!("{key}: {error}"))?;
        let mut archive = Vec::new();
        for volume in &manifest.archive.volumes {
            let volume = format!("{folder}{}", volume.name);
            let bytes = store.read(&volume);
            archive.extend(bytes.ok_or_else(|| format!("a manifest, and no {volume}"))?);
        }
        let file = world.path(&format!("archive{whole}"));
        std::fs::write(&file, archive).unwrap();
        let content = tool(Command::new("tar").args(["--zstd", "-xOf"]).arg(&file));
        if content != std::fs::read(dump).unwrap() {
            return Err(format!("{key} is listed, and its archive is not the dump"));
        }
        whole += 1;
    }
    Ok(whole)
}
