//! `tapline verify`: a line for each backup, and for each database that has none.

use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::args::VerifyOptions;
use super::exit::{Exit, Failure};
use super::text::{count, rate, size, time};
use super::{Session, console, keys, text};
use crate::access::open_patient_stores;
use crate::catalog::BackupId;
use crate::upkeep::stored;
use crate::upkeep::verify::{
    Candidate, Candidates, Depth, Missing, Proof, VerifyError, VerifyErrorKind, candidates,
    verify as verify_one, verify_and_keep,
};

pub(super) async fn verify(
    session: &mut Session,
    options: &VerifyOptions,
) -> Result<Exit, Failure> {
    let inventory = session.inventory_or(&options.from)?;
    let depth = match (options.quick, options.drill) {
        (true, _) => Depth::Quick,
        (_, true) => Depth::Drill,
        _ => Depth::Read,
    };
    let work = async {
        let stores = open_patient_stores(&inventory, options.store.as_deref()).await?;
        Ok(candidates(&inventory, &stores, options.name.as_ref(), options.all).await?)
    };
    let Candidates { backups, missing } = session.signals.unless(work).await?;
    let manifests = backups
        .iter()
        .filter_map(|backup| backup.manifest.as_ref().ok());
    let keys = keys::identities(session, &inventory, &options.keys, manifests).await?;
    let cancel = CancellationToken::new();
    let (display, json) = (session.display.clone(), options.json);
    let mut verdicts = Vec::new();
    let work = async {
        for backup in &backups {
            let name = backup.name();
            let stored = match &backup.manifest {
                Ok(manifest) => {
                    let (place, manifest) = (backup.place.clone(), manifest.clone());
                    Ok(stored(place, manifest, &inventory.run, keys.clone()))
                }
                Err(error) => Err(error.clone()),
            };
            let work = async {
                match stored.clone() {
                    // A store that is looked into without an inventory is not written to.
                    stored if options.from.from.is_none() => {
                        verify_and_keep(&inventory, backup, stored, depth, &cancel).await
                    }
                    Ok(stored) => verify_one(&inventory, stored, depth, &cancel).await,
                    Err(error) => Err(error.into()),
                }
            };
            let show = async {
                match &stored {
                    Ok(stored) => display.show_read(&name, stored, true).await,
                    Err(_) => std::future::pending().await,
                }
            };
            let result = tokio::select! {
                done = work => done,
                () = show => unreachable!("shown until it is over"),
            };
            display.clear();
            if cancel.is_cancelled() {
                break;
            }
            let verdict = Verdict::new(backup, result);
            if !json {
                verdict.show();
            }
            verdicts.push(verdict);
        }
    };
    let ((), interrupted) = session
        .signals
        .tidy(&display, "ending the read", &cancel, || false, work)
        .await?;
    if json {
        let all = json!({ "version": 1, "backups": verdicts, "missing": missing });
        console::out(&text::json(&all));
    } else {
        missing.iter().for_each(show_missing);
    }
    let codes = verdicts.iter().filter_map(Verdict::exit);
    let codes: Vec<Exit> = codes.chain(missing.iter().map(|_| Exit::Check)).collect();
    Ok(match interrupted {
        Some(exit) => exit,
        // What is known to be wrong comes before what is not known.
        None if codes.contains(&Exit::Check) => Exit::Check,
        None => Exit::of_all(codes),
    })
}

fn show_missing(Missing { database, store }: &Missing) {
    console::out(&format!(
        "FAIL  {database}  has no backup in store {store}\n"
    ));
}

/// What became of one backup.
#[derive(Serialize)]
struct Verdict {
    store: String,
    database: String,
    backup_id: BackupId,
    result: &'static str,
    proof: Option<Proof>,
    kind: Option<VerifyErrorKind>,
    error: Option<String>,
}

impl Verdict {
    fn new(backup: &Candidate, result: Result<Proof, VerifyError>) -> Self {
        let (result, proof, error) = match result {
            Ok(proof) => ("ok", Some(proof), None),
            Err(error) => ("failed", None, Some(error)),
        };
        Self {
            store: backup.store.clone(),
            database: backup.database.clone(),
            backup_id: backup.backup_id.clone(),
            result,
            proof,
            kind: error.as_ref().map(|error| error.kind),
            error: error.map(|error| error.message),
        }
    }

    fn exit(&self) -> Option<Exit> {
        Some(match self.kind? {
            VerifyErrorKind::Store => Exit::Store,
            VerifyErrorKind::Locked => Exit::Config,
            VerifyErrorKind::Damaged | VerifyErrorKind::Drill | VerifyErrorKind::Cancelled => {
                Exit::Check
            }
        })
    }

    fn show(&self) {
        let name = format!("{}@{}", self.database, self.backup_id);
        match (&self.proof, &self.error) {
            (Some(proof), _) => console::remark(&format!("ok    {name}  {}\n", words(*proof))),
            (None, error) => {
                let error = error.as_deref().unwrap_or_default();
                console::out(&format!("FAIL  {name}  {error}\n"));
            }
        }
    }
}

fn words(proof: Proof) -> String {
    let read = |bytes, seconds| {
        format!(
            "{} in {}, {} MB/s",
            size(bytes),
            time(seconds),
            rate(bytes, seconds)
        )
    };
    match proof {
        Proof::Listed { volumes, checksums } => {
            let what = if checksums {
                "sizes and checksums are"
            } else {
                "sizes are (the store keeps no such checksums)"
            };
            format!("{} there, {what} right", count(volumes, "volume"))
        }
        Proof::Read { bytes, seconds } => read(bytes, seconds),
        Proof::Sealed { bytes, seconds } => format!(
            "{}; digests and structure are right, and that is all that was looked at: it is \
             encrypted, and no key was given (--identity FILE)",
            read(bytes, seconds)
        ),
        Proof::Undrilled { bytes, seconds } => format!(
            "{}; read only: there is no scratch database for it",
            read(bytes, seconds)
        ),
        Proof::Drilled {
            bytes,
            seconds,
            tables,
        } => {
            let tables = tables.map(|tables| format!(": {}", count(tables, "table")));
            format!(
                "{}; restored into a scratch database{}",
                read(bytes, seconds),
                tables.unwrap_or_default()
            )
        }
    }
}
