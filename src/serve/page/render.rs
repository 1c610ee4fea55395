//! The pages as HTML; every text in them is escaped. They are whole without a script.

use std::fmt::Write;

use jiff::Timestamp;

use super::live::{Catalog, Live, LiveJob, Stored, Verdicts};
use super::{chart, guard::FormSecret};
use crate::charts::plot::{self, escape};
use crate::run::RunReport;
use crate::serve::agenda::{Agenda, Chore};
use crate::serve::house::House;
use crate::units;
use crate::upkeep::status::{Health, Standing, Status};

/// Databases on one page: a row is some 500 bytes, and a page less than 100 KB.
const ROWS: usize = 100;
/// Backups in the table of a database.
const BACKUPS: usize = 50;
/// Letters of a note in a table; all of it is on the database's own page.
const NOTE: usize = 240;
/// A picture of a run that is larger is for `--timeline=FILE`.
const PICTURE: usize = 60_000;

/// What somebody asked the overview for.
#[derive(Debug, Default)]
pub struct View {
    /// Only names with this in them.
    pub filter: String,
    /// From 0.
    pub page: usize,
}

fn head(title: &str) -> String {
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8>\
         <meta name=viewport content='width=device-width,initial-scale=1'>\
         <title>{}</title><link rel=stylesheet href=/style.css>\
         <link rel=icon href=/icon.svg><script src=/script.js defer></script>",
        escape(title)
    )
}

const FOOT: &str = "<footer><p><small><a href=/>databases</a> · <a href=/runs>runs</a> · \
    <a href=/metrics>metrics</a> · <a href=/api/v1/status>JSON</a> · \
    <a href=/api/v1/openapi.json>API</a></small></p></footer>";

/// The databases, those first that are not well.
pub fn overview(status: &Status, live: &Live, catalog: Option<&Catalog>, view: &View) -> String {
    let (agenda, house) = (live.agenda(), live.house());
    let bad = status.databases.iter().filter(|one| !is_well(one)).count();
    let said = match bad {
        0 => "<span class=good>All databases are well.</span>".to_owned(),
        bad => format!(
            "<span class=bad>{} not well.</span>",
            units::count(bad, "database")
        ),
    };
    let asked = status.asked.strftime("%Y-%m-%d %H:%M:%S UTC");
    let mut page = head("tapline") + "<header><h1>tapline</h1>";
    let _ = write!(
        page,
        "<p role=status>{said} <small>Asked {asked}.</small></p></header><main>"
    );
    page += &running(&live.jobs());
    let wanted = |one: &&Standing| one.database.contains(&view.filter);
    let mut rows: Vec<&Standing> = status.databases.iter().filter(wanted).collect();
    rows.sort_by_key(|one| is_well(one));
    let pages = rows.len().div_ceil(ROWS).max(1);
    let at = view.page.min(pages - 1);
    let _ = write!(
        page,
        "<h2 id=databases>Databases</h2><form role=search action=/><label for=q>Name holds</label> \
         <input id=q name=q value=\"{}\"> <button>Show</button></form>\
         <table aria-labelledby=databases><thead><tr><th scope=col>Database<th scope=col>State\
         <th scope=col>Last backup<th scope=col>Dump<th scope=col>Backups<th scope=col>Read back\
         <th scope=col>Next</tr></thead><tbody>",
        escape(&view.filter)
    );
    for one in rows.iter().skip(at * ROWS).take(ROWS) {
        page += &row(one, status.asked, &agenda, &house, catalog);
    }
    page += "</tbody></table>";
    if pages > 1 {
        let _ = write!(page, "<nav aria-label=Pages><p>Page {} of {pages}", at + 1);
        let q: String = url::form_urlencoded::byte_serialize(view.filter.as_bytes()).collect();
        for (holds, to, words) in [
            (at > 0, at.wrapping_sub(1), "before"),
            (at + 1 < pages, at + 1, "next"),
        ] {
            if holds {
                let _ = write!(page, " · <a href=\"/?q={q}&amp;page={to}\">{words}</a>");
            }
        }
        page += "</p></nav>";
    }
    for remark in &status.remarks {
        let _ = write!(page, "<p class=bad>{}</p>", escape(remark));
    }
    page + "</main>" + FOOT
}

/// What is under way; the script keeps it so.
fn running(jobs: &[LiveJob]) -> String {
    let mut part = "<h2>Under way</h2>".to_owned();
    let hidden = if jobs.is_empty() { "" } else { " hidden" };
    let _ = write!(
        part,
        "<p id=idle class=quiet{hidden}>Nothing at the moment.</p><ul class=runs id=runs>"
    );
    for job in jobs {
        let (name, moved) = (escape(&job.database), units::size(job.dump_bytes));
        let _ = write!(part, "<li><strong>{name}</strong> {moved}</li>");
    }
    part + "</ul>"
}

fn is_well(one: &Standing) -> bool {
    one.health == Health::Good
}

fn state(one: &Standing) -> String {
    let (class, state) = match one.health {
        Health::Good => ("good", "good"),
        Health::TooOld => ("bad", "too old"),
        Health::Damaged => ("bad", "damaged"),
        Health::Missing => ("bad", "none"),
        Health::Unknown => ("bad", "unknown"),
    };
    let is_open = one.open.as_ref().is_some_and(|open| open.alive);
    let running = if is_open {
        ", <span class=busy>running</span>"
    } else {
        ""
    };
    format!("<span class={class}>{state}</span>{running}")
}

fn link(database: &str) -> String {
    let query: String = url::form_urlencoded::byte_serialize(database.as_bytes()).collect();
    format!(
        "<a href=\"/database?name={query}\">{}</a>",
        escape(database)
    )
}

fn row(
    one: &Standing,
    asked: Timestamp,
    agenda: &Agenda,
    house: &House,
    catalog: Option<&Catalog>,
) -> String {
    let mut notes = String::new();
    for note in one.why.iter().chain(&one.warnings) {
        let short: String = note.chars().take(NOTE).collect();
        let more = if short.len() < note.len() { "…" } else { "" };
        let _ = write!(notes, "<p><small>{}{more}</small></p>", escape(&short));
    }
    let last = one.last.as_ref();
    let backups = catalog.map(|catalog| catalog.get(&one.database).map_or(0, Vec::len));
    format!(
        "<tr><th scope=row>{}<td class=wide>{}{notes}<td class=n data-label=\"Last backup\">{}\
         <td class=n data-label=Dump>{}<td class=n data-label=Backups>{}\
         <td class=n data-label=\"Read back\">{}<td class=n data-label=Next>{}</tr>",
        link(&one.database),
        state(one),
        last.map_or_else(nothing, |last| ago(last.began, asked)),
        last.and_then(|last| last.dump_bytes)
            .map_or_else(nothing, units::size),
        backups.map_or_else(nothing, |count| count.to_string()),
        one.read_back()
            .map_or_else(nothing, |read| ago(read.ended, asked)),
        next(&one.database, asked, agenda, house).unwrap_or_else(nothing),
    )
}

fn nothing() -> String {
    "–".to_owned()
}

fn ago(moment: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(moment).as_secs_f64();
    format!("{} ago", units::time(seconds.max(0.0)))
}

fn next(database: &str, now: Timestamp, agenda: &Agenda, house: &House) -> Option<String> {
    let name = house.inventory.entry(database)?.name.clone();
    let next = agenda.next_of(&Chore::Backup(name), now)?;
    Some(if next > now {
        next.strftime("%Y-%m-%d %H:%M UTC").to_string()
    } else {
        "now".to_owned()
    })
}

/// One database: how it stands, its sizes over time, and what the rules make of its backups.
pub fn database(
    one: &Standing,
    asked: Timestamp,
    backups: &[Stored],
    verdicts: Result<&Verdicts, &String>,
    secret: Option<&FormSecret>,
) -> String {
    let name = escape(&one.database);
    let mut page = head(&format!("{} – tapline", one.database));
    let _ = write!(
        page,
        "<header><h1>{name}</h1><p role=status>{}</p></header><main>",
        state(one)
    );
    for note in one.why.iter().chain(&one.warnings) {
        let _ = write!(page, "<p>{}</p>", escape(note));
    }
    if let Some(last) = &one.last {
        let dump = last.dump_bytes.map_or_else(nothing, units::size);
        let _ = write!(
            page,
            "<p>Last good backup: {}, {}, dump {dump}, archive {}.</p>",
            last.backup_id.as_str(),
            ago(last.began, asked),
            units::size(last.archive_bytes)
        );
    }
    if let Some(secret) = secret {
        for (action, words) in [
            ("run", "Back up now"),
            ("verify", "Verify"),
            ("drill", "Restore drill"),
        ] {
            let _ = write!(
                page,
                "<form method=post action=/api/v1/actions><input type=hidden name=token value=\"{}\">\
                 <input type=hidden name=database value=\"{name}\">\
                 <button name=action value={action}>{words}</button></form>",
                secret.as_str()
            );
        }
    }
    page += "<h2>Sizes</h2>";
    match chart::sizes(backups) {
        Some(figure) => page += &figure,
        None => page += "<p class=quiet>There is no backup.</p>",
    }
    page += "<h2 id=backups>Backups, and what the rules make of them</h2>";
    if let Err(why) = verdicts {
        let _ = write!(page, "<p class=bad>{}</p>", escape(why));
    }
    page += "<table aria-labelledby=backups><thead><tr><th scope=col>Backup<th scope=col>Store\
             <th scope=col>Size<th scope=col>Retention</tr></thead><tbody>";
    for backup in backups.iter().rev().take(BACKUPS) {
        let verdict = verdicts.ok().and_then(|all| all.get(&backup.backup_id));
        let _ = write!(
            page,
            "<tr><th scope=row>{}<td data-label=Store>{}<td class=n data-label=Size>{}<td class=wide>{}</tr>",
            backup.backup_id.as_str(),
            escape(&backup.store),
            units::size(backup.bytes),
            verdict.map_or_else(nothing, |words| escape(words)),
        );
    }
    page += "</tbody></table>";
    if backups.len() > BACKUPS {
        let _ = write!(
            page,
            "<p class=quiet>The newest of {}.</p>",
            units::count(backups.len(), "backup")
        );
    }
    let records = [
        ("Last failure", &one.last_failure),
        ("Last reading back", &one.last_verify),
        ("Last restore drill", &one.last_drill),
    ];
    for (title, record) in records {
        if let Some(record) = record {
            let _ = write!(
                page,
                "<h2>{title}</h2><p>{} on {}{}</p>",
                record.ended.strftime("%Y-%m-%d %H:%M:%S UTC"),
                escape(&record.host),
                if record.good { ": good" } else { "" }
            );
            if !record.message.is_empty() {
                let _ = write!(page, "<pre>{}</pre>", escape(&record.message));
            }
        }
    }
    page + "</main>" + FOOT
}

/// The last runs of this process, each with its picture.
pub fn runs(runs: &[std::sync::Arc<RunReport>], jobs: &[LiveJob]) -> String {
    let mut page = head("Runs – tapline") + "<header><h1>Runs</h1></header><main>";
    page += &running(jobs);
    if runs.is_empty() {
        page += "<h2>Since the start</h2><p class=quiet>None has ended yet.</p>";
    }
    for (at, report) in runs.iter().enumerate() {
        let _ = write!(page, "<h2>{}</h2>", escape(&plot::heading(report)));
        // One picture is enough for a page that is to stay small.
        match plot::svg(report)
            .ok()
            .filter(|svg| at == 0 && svg.len() <= PICTURE)
        {
            Some(svg) => {
                let _ = write!(
                    page,
                    "<figure class=paper tabindex=0 aria-label=\"The last run\">{svg}</figure>"
                );
            }
            None if at == 0 => page += "<p class=quiet>Its picture is too large for a page.</p>",
            None => {}
        }
        for job in report
            .jobs
            .iter()
            .filter(|job| job.error.is_some())
            .take(20)
        {
            let words: String = job
                .error
                .iter()
                .flat_map(|error| error.chars())
                .take(500)
                .collect();
            let _ = write!(
                page,
                "<p class=bad>{}</p><pre>{}</pre>",
                escape(&job.database),
                escape(&words)
            );
        }
    }
    page + "</main>" + FOOT
}
