//! `tapline list`: the backups in the stores.

use super::args::ListOptions;
use super::exit::{Exit, Failure};
use super::{Session, console, text};
use crate::access::open_patient_stores;
use crate::upkeep::list::{Listed, list as list_all};

pub(super) async fn list(session: &mut Session, options: &ListOptions) -> Result<Exit, Failure> {
    let mut options = options.clone();
    if options
        .name
        .as_ref()
        .is_some_and(|name| name.contains("://"))
    {
        options.from.from = options.name.take();
    }
    let inventory = session.inventory_or(&options.from)?;
    let work = async {
        let stores = open_patient_stores(&inventory, options.store.as_deref()).await?;
        Ok(list_all(&inventory, &stores, options.name.as_deref()).await?)
    };
    let listing = session.signals.unless(work).await?;
    if options.json {
        console::out(&text::json(&listing));
    } else if listing.backups.is_empty() {
        console::out("no backups\n");
    } else {
        let header = ["DATABASE", "BACKUP", "DUMP", "ARCHIVE", "ENGINE"];
        let rows = listing.backups.iter().map(row);
        console::out(&if inventory.stores.len() < 2 {
            text::table_of_names(header, rows)
        } else {
            let [database, backup, dump, archive, engine] = header;
            let header = [database, backup, "STORE", dump, archive, engine];
            let rows = listing.backups.iter().zip(rows);
            text::table_of_names(
                header,
                rows.map(|(listed, [database, backup, dump, archive, engine])| {
                    let store = listed.store_name.clone();
                    [database, backup, store, dump, archive, engine]
                }),
            )
        });
    }
    Ok(Exit::Good)
}

fn row(listed: &Listed) -> [String; 5] {
    let [dump, archive, engine] = match (&listed.manifest, &listed.error) {
        (Some(manifest), _) => [
            manifest.dump_size().map_or_else(|| "?".into(), text::size),
            text::size(manifest.archive.size),
            match manifest.warnings {
                0 => manifest.engine.clone(),
                some => format!("{}, {}", manifest.engine, text::count(some, "warning")),
            },
        ],
        (None, error) => ["?".into(), "?".into(), error.clone().unwrap_or_default()],
    };
    [
        listed.database.clone(),
        listed.backup_id.to_string(),
        dump,
        archive,
        engine,
    ]
}
