//! `tapline cleanup`: shows what never became a backup, and removes it when that is confirmed.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::args::CleanupOptions;
use super::exit::{Exit, Failure};
use super::{Session, console, text};
use crate::access::open_patient_stores;
use crate::store::{SharedStore, Version};
use crate::upkeep::UpkeepError;
use crate::upkeep::cleanup::{Leftovers, Plan, SHORTEST_LIMIT, plan, remove};
use crate::upkeep::versions;

pub(super) async fn cleanup(
    session: &mut Session,
    options: &CleanupOptions,
) -> Result<Exit, Failure> {
    let inventory = session.inventory()?;
    let work = async {
        let mut planned = Vec::new();
        for (name, store) in open_patient_stores(&inventory, options.store.as_deref()).await? {
            let plan = plan(&*store, options.older_than, Timestamp::now().as_second())
                .await
                .map_err(UpkeepError::of_store(&name, &*store))?;
            planned.push((name, store, plan));
        }
        Ok(planned)
    };
    let planned = session.signals.unless(work).await?;
    if !options.json {
        show(&planned);
    }
    let hidden = if options.versions {
        let work = async {
            let mut found = Vec::new();
            for (name, store, _) in &planned {
                let offset = store.clock_offset().unwrap_or_default();
                let limit = options.older_than.max(SHORTEST_LIMIT).as_secs();
                let before = Timestamp::now().as_second() + offset - limit.cast_signed();
                let hidden = versions::hidden(&**store, before).await;
                let hidden = hidden.map_err(UpkeepError::of_store(name, &**store))?;
                found.push((store.clone(), hidden));
            }
            Ok(found)
        };
        session.signals.unless(work).await?
    } else {
        Vec::new()
    };
    let (versions, bytes) = hidden
        .iter()
        .flat_map(|(_, hidden)| hidden)
        .fold((0, 0), |(versions, bytes), version: &Version| {
            (versions + 1, bytes + version.size)
        });
    let unread = planned.iter().flat_map(|(_, _, plan)| &plan.unread);
    let mut failures: Vec<String> = unread.cloned().collect();
    if options.confirm {
        let work = async {
            for (_, store, plan) in &planned {
                failures.extend(remove(&**store, &plan.leftovers).await);
            }
            for (store, hidden) in hidden {
                failures.extend(versions::free(&*store, hidden).await.failures);
            }
            Ok(())
        };
        session.signals.unless(work).await?;
    }
    if options.json {
        let mut said = as_json(&planned, options.confirm, &failures);
        if options.versions {
            said["hidden_versions"] = versions.into();
            said["hidden_bytes"] = bytes.into();
        }
        console::out(&text::json(&said));
    } else {
        let mut total = total(&planned);
        if options.versions {
            let versions = text::count(versions, "hidden version");
            total = format!("{total}; {versions}, {},", text::size(bytes));
        }
        console::remark(&match (options.confirm, failures.is_empty()) {
            (false, _) => {
                format!("{total} would go\ndry run: nothing was removed; add --confirm\n")
            }
            (true, true) => format!("{total} removed\n"),
            (true, false) => {
                format!("{total} were to be removed; what failed is still there\n")
            }
        });
    }
    for failure in &failures {
        console::error(&Failure::new(Exit::Failed, failure).step("cleanup"));
    }
    Ok(if failures.is_empty() {
        Exit::Good
    } else {
        Exit::Failed
    })
}

type Planned = [(String, SharedStore, Plan)];

fn leftovers(planned: &Planned) -> impl Iterator<Item = &Leftovers> {
    planned.iter().flat_map(|(_, _, plan)| &plan.leftovers)
}

/// `3 open uploads and 1 object, 12 MiB`
fn total(planned: &Planned) -> String {
    let uploads = leftovers(planned).map(|leftovers| leftovers.uploads.len());
    let objects = leftovers(planned).map(|leftovers| leftovers.objects.len());
    format!(
        "{} and {}, {}",
        text::count(uploads.sum::<usize>(), "open upload"),
        text::count(objects.sum::<usize>(), "object"),
        text::size(rows(leftovers(planned)).map(|row| row.size).sum())
    )
}

fn show(planned: &Planned) {
    let mut rows = rows(leftovers(planned)).peekable();
    if rows.peek().is_some() {
        let rows = rows.map(|row| {
            let age = text::time(row.age);
            [row.what, row.key, age, text::size(row.size)]
        });
        console::remark(&(text::table(["WHAT", "KEY", "AGE", "SIZE"], rows) + "\n"));
    }
    for (_, store, plan) in planned {
        let young = (plan.young > 0).then(|| {
            format!(
                "{}, which may be of a running backup",
                text::count(plan.young, "young one")
            )
        });
        let foreign = (plan.foreign > 0)
            .then(|| format!("{} not tapline's", text::count(plan.foreign, "key")));
        let alone: Vec<String> = young.into_iter().chain(foreign).collect();
        if !alone.is_empty() {
            console::remark(&format!(
                "left alone in {}: {}\n",
                store.address(),
                alone.join("; ")
            ));
        }
    }
}

fn as_json(planned: &Planned, confirmed: bool, failures: &[String]) -> Value {
    let stores = planned.iter().map(|(name, store, plan)| {
        let leftovers: Vec<Value> = rows(plan.leftovers.iter())
            .map(|row| json!({ "what": row.kind, "key": row.key, "age_seconds": row.age, "bytes": row.size }))
            .collect();
        json!({
            "store": name,
            "address": store.address(),
            "leftovers": leftovers,
            "young": plan.young,
            "foreign": plan.foreign,
        })
    });
    json!({
        "version": 1,
        "confirmed": confirmed,
        "stores": stores.collect::<Vec<_>>(),
        "failures": failures,
    })
}

struct Row {
    kind: &'static str,
    what: String,
    key: String,
    /// In seconds.
    age: f64,
    size: u64,
}

fn rows<'a>(leftovers: impl Iterator<Item = &'a Leftovers>) -> impl Iterator<Item = Row> {
    leftovers.flat_map(|leftovers| {
        #[expect(clippy::cast_precision_loss, reason = "for display")]
        let age = leftovers.age as f64;
        let uploads = leftovers.uploads.iter().map(move |(upload, info)| Row {
            kind: "upload",
            what: format!("upload, {}", text::count(info.parts, "part")),
            key: upload.key.clone(),
            age,
            size: info.size,
        });
        let objects = leftovers.objects.iter().map(move |object| Row {
            kind: "object",
            what: "object".into(),
            key: object.key.clone(),
            age,
            size: object.size,
        });
        uploads.chain(objects)
    })
}
