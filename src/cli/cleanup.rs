//! `tapline cleanup`: shows what never became a backup, and removes it when that is confirmed.

use std::path::Path;

use jiff::Timestamp;

use super::args::CleanupOptions;
use super::exit::{Exit, Failure};
use super::text;
use crate::config::Inventory;
use crate::run::plan::open_patient_stores;
use crate::upkeep::cleanup::{Leftovers, plan, remove};

pub(super) async fn cleanup(config: &Path, options: &CleanupOptions) -> Result<Exit, Failure> {
    let inventory = Inventory::load(config)?;
    let mut planned = Vec::new();
    for store in open_patient_stores(&inventory, options.store.as_deref())
        .await?
        .into_values()
    {
        let plan = plan(&*store, options.older_than, Timestamp::now().as_second()).await?;
        planned.push((store, plan));
    }
    let leftovers = || planned.iter().flat_map(|(_, plan)| &plan.leftovers);
    let uploads: usize = leftovers().map(|leftovers| leftovers.uploads.len()).sum();
    let objects: usize = leftovers().map(|leftovers| leftovers.objects.len()).sum();
    let sizes = rows(leftovers()).map(|row| row.size);
    let total = format!(
        "{uploads} open uploads and {objects} objects, {}",
        text::size(sizes.sum())
    );
    if uploads + objects > 0 {
        let rows = rows(leftovers()).map(|row| [row.what, row.key, row.age, text::size(row.size)]);
        text::out(&(text::table(["WHAT", "KEY", "AGE", "SIZE"], rows) + "\n"));
    }
    for (store, plan) in &planned {
        let young = (plan.young > 0).then(|| {
            format!(
                "{} young ones, which may be of a running backup",
                plan.young
            )
        });
        let foreign =
            (plan.foreign > 0).then(|| format!("{} that are not tapline's", plan.foreign));
        let alone: Vec<String> = young.into_iter().chain(foreign).collect();
        if !alone.is_empty() {
            text::out(&format!(
                "left alone in {}: {}\n",
                store.address(),
                alone.join("; ")
            ));
        }
    }
    if !options.confirm {
        text::out(&format!(
            "{total} would go\ndry run: nothing was removed; add --confirm\n"
        ));
        return Ok(Exit::Good);
    }
    let mut failures = Vec::new();
    for (store, plan) in &planned {
        failures.extend(remove(&**store, &plan.leftovers).await);
    }
    for failure in &failures {
        eprintln!("tapline: {failure}");
    }
    if failures.is_empty() {
        text::out(&format!("{total} removed\n"));
        return Ok(Exit::Good);
    }
    text::out(&format!(
        "{total} were to be removed; what failed is still there\n"
    ));
    Ok(Exit::Failed)
}

struct Row {
    what: String,
    key: String,
    age: String,
    size: u64,
}

fn rows<'a>(leftovers: impl Iterator<Item = &'a Leftovers>) -> impl Iterator<Item = Row> {
    leftovers.flat_map(
        |Leftovers {
             objects,
             uploads,
             age,
             ..
         }| {
            #[expect(clippy::cast_precision_loss, reason = "for display")]
            let age = text::time(*age as f64);
            let uploads = uploads.iter().map({
                let age = age.clone();
                move |(upload, info)| Row {
                    what: format!("upload, {} parts", info.parts),
                    key: upload.key.clone(),
                    age: age.clone(),
                    size: info.size,
                }
            });
            let objects = objects.iter().map(move |object| Row {
                what: "object".into(),
                key: object.key.clone(),
                age: age.clone(),
                size: object.size,
            });
            uploads.chain(objects)
        },
    )
}
