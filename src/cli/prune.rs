//! `tapline prune`: shows what each rule keeps, and removes the rest when that is confirmed.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::args::PruneOptions;
use super::exit::{Exit, Failure};
use super::{Session, console, text};
use crate::access::open_patient_stores;
use crate::upkeep::prune::{Considered, Plan, Removed, Verdict, plan};
use crate::upkeep::versions::Freed;

pub(super) async fn prune(session: &mut Session, options: &PruneOptions) -> Result<Exit, Failure> {
    let inventory = session.inventory()?;
    let work = async {
        let stores = open_patient_stores(&inventory, options.store.as_deref()).await?;
        let (names, source) = (&options.names, options.source.as_deref());
        Ok(plan(&inventory, &stores, names, options.rules.policy(), source).await?)
    };
    let plan = session.signals.unless(work).await?;
    if !options.json {
        show(&plan);
    }
    // An interrupted removal leaves no half backup in any list: manifests go first.
    let removed = if options.confirm {
        Some(
            session
                .signals
                .unless(async { Ok(plan.carry_out().await) })
                .await?,
        )
    } else {
        None
    };
    let freed = if options.versions && options.confirm {
        let work = async { Ok(plan.free_versions().await) };
        Some(session.signals.unless(work).await?)
    } else {
        None
    };
    if options.json {
        console::out(&text::json(&as_json(
            &plan,
            removed.as_ref(),
            freed.as_ref(),
        )));
    } else {
        sum_up(&plan, removed.as_ref());
        match &freed {
            Some(Freed {
                versions, bytes, ..
            }) => console::remark(&format!(
                "{} deleted, {} are free\n",
                text::count(*versions, "version"),
                text::size(*bytes)
            )),
            None if !options.versions => hides(session, &plan).await?,
            None => {}
        }
    }
    let mut failures = removed.map(|removed| removed.failures).unwrap_or_default();
    failures.extend(freed.map(|freed| freed.failures).unwrap_or_default());
    failures.extend(plan.several_sources());
    for failure in &failures {
        console::error(&Failure::new(Exit::Failed, failure).step("prune"));
    }
    Ok(if failures.is_empty() {
        Exit::Good
    } else {
        Exit::Failed
    })
}

/// Says what a delete frees nothing in.
async fn hides(session: &mut Session, plan: &Plan) -> Result<(), Failure> {
    let hiding = session
        .signals
        .unless(async { Ok(plan.only_hides().await) })
        .await?;
    for store in hiding {
        console::remark(&format!(
            "the bucket of {store} keeps versions: what is removed is hidden, and free only with \
             --versions\n"
        ));
    }
    Ok(())
}

fn show(plan: &Plan) {
    let mut rows = plan.considered().map(row).peekable();
    if rows.peek().is_some() {
        let header = ["DATABASE", "BACKUP", "ARCHIVE", "KEPT BY"];
        console::remark(&(text::table_of_names(header, rows) + "\n"));
    }
    mention("not in the inventory, left alone", &plan.strangers);
    mention("without a keep_… rule, left alone", &plan.without_rule);
}

fn row(considered: &Considered) -> [String; 4] {
    let Considered {
        found,
        archive,
        verdict,
    } = considered;
    let kept_by = match verdict {
        Verdict::Keep(rules) => rules
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", "),
        Verdict::Remove => "remove".into(),
        Verdict::SeveralSources(_) => "left alone: several sources".into(),
        Verdict::Broken(how) => {
            format!("broken: {how}; look at it with `tapline verify`, delete it by hand")
        }
    };
    [
        found.database.clone(),
        found.id.to_string(),
        archive.map_or("?".into(), text::size),
        kept_by,
    ]
}

fn mention(what: &str, names: &BTreeSet<String>) {
    if !names.is_empty() {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        console::remark(&format!("{what}: {}\n", names.join(", ")));
    }
}

fn sum_up(plan: &Plan, removed: Option<&Removed>) {
    let all = text::count(plan.considered().count(), "backup");
    match removed {
        None => {
            let bytes = plan.doomed().map(|doomed| doomed.found.size()).sum();
            console::remark(&format!(
                "{} of {all} would go, {}\ndry run: nothing was removed; add --confirm\n",
                plan.doomed().count(),
                text::size(bytes)
            ));
        }
        Some(Removed { backups, bytes, .. }) => console::remark(&format!(
            "{backups} of {all} removed, {}\n",
            text::size(*bytes)
        )),
    }
}

fn as_json(plan: &Plan, removed: Option<&Removed>, freed: Option<&Freed>) -> Value {
    let backup = |store: &str, considered: &Considered| {
        let (verdict, kept_by, why) = match &considered.verdict {
            Verdict::Keep(rules) => {
                let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
                ("keep", Some(rules), None)
            }
            Verdict::Remove => ("remove", None, None),
            Verdict::Broken(how) => ("broken", None, Some(how)),
            Verdict::SeveralSources(why) => ("several_sources", None, Some(why)),
        };
        json!({
            "store": store,
            "database": considered.found.database,
            "backup_id": considered.found.id,
            "archive_bytes": considered.archive,
            "verdict": verdict,
            "kept_by": kept_by,
            "why": why,
        })
    };
    let backups: Vec<Value> = plan
        .stores
        .iter()
        .flat_map(|(called, _, considered)| considered.iter().map(move |one| backup(called, one)))
        .collect();
    let failures = removed.map(|removed| {
        let of_versions = freed.iter().flat_map(|freed| &freed.failures);
        removed
            .failures
            .iter()
            .chain(of_versions)
            .collect::<Vec<_>>()
    });
    json!({
        "version": 1,
        "confirmed": removed.is_some(),
        "backups": backups,
        "not_in_the_inventory": plan.strangers,
        "without_rule": plan.without_rule,
        "removed": removed.map(|removed| removed.backups),
        "removed_bytes": removed.map(|removed| removed.bytes),
        "freed_versions": freed.map(|freed| freed.versions),
        "freed_bytes": freed.map(|freed| freed.bytes),
        "failures": failures,
    })
}
