//! `tapline check`: a line for each thing that was tried.

use serde_json::json;

use super::args::CheckOptions;
use super::exit::{Exit, Failure};
use super::{Session, console, text};
use crate::config::Inventory;
use crate::upkeep::check::{Finding, Outcome, check as check_all};

pub(super) async fn check(session: &mut Session, options: &CheckOptions) -> Result<Exit, Failure> {
    let inventory = Inventory::load(&session.config)?;
    let databases = inventory.select(&options.names)?.len();
    let mut findings = vec![Finding {
        subject: "inventory".into(),
        what: "read",
        result: Outcome::Ok,
        detail: format!(
            "{}, {}",
            inventory.path.display(),
            text::count(databases, "database")
        ),
    }];
    findings.extend(inventory.warnings.iter().map(|warning| Finding {
        subject: "inventory".into(),
        what: "access",
        result: Outcome::Warn,
        detail: warning.clone(),
    }));
    if !options.json {
        findings.iter().for_each(show);
    }
    let mut say = |finding: Finding| {
        if !options.json {
            show(&finding);
        }
        findings.push(finding);
    };
    let work = async { Ok(check_all(&inventory, &options.names, &mut say).await?) };
    session.signals.unless(work).await?;
    if options.json {
        console::out(&text::json(&json!({ "version": 1, "findings": findings })));
    }
    let failed = findings
        .iter()
        .any(|finding| finding.result == Outcome::Fail);
    Ok(if failed { Exit::Check } else { Exit::Good })
}

fn show(finding: &Finding) {
    let Finding {
        subject,
        what,
        result,
        detail,
    } = finding;
    let line = |result| text::broken(&format!("{result:6}{subject} {what}: {detail}"), 6);
    match result {
        Outcome::Ok => console::remark(&line("ok")),
        Outcome::Warn => console::out(&line("warn")),
        Outcome::Fail => console::out(&line("FAIL")),
    }
}
