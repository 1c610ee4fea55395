//! How a run went, told to whoever is asleep: a ping for a service that misses runs which never
//! began, a webhook, a command.
//!
//! | file | role |
//! |---|---|
//! | this | what is told to whom, each on its own and within [`LONGEST`] |
//! | [`Teller`] | the begin and the end of one run |
//! | [`http`] | one POST, tried again while there is time |
//! | [`template`] | how a chat or push service wants to be told |
//! | [`mail`] | one message by SMTP |
//! | [`failing`] | which databases failed last, so that a recovery is known for one |
//!
//! Telling matters less than doing: what cannot be told is a warning, and fails nothing. An address
//! may be a secret, so that no message has more of it than its host.

pub mod failing;
pub mod http;
mod mail;
mod teller;
pub mod template;

use std::process::Stdio;
use std::time::Duration;

use futures_util::future::OptionFuture;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::config::{Address, NotifySettings};
use crate::dump::environment;
use crate::run::{JobReport, RunReport};
pub use teller::{RunEnd, Teller};

/// Nobody waits longer for one who is to be told.
pub const LONGEST: Duration = Duration::from_secs(10);
/// Healthchecks keeps 100 kB of a ping's body, older ones 10 kB.
const LONGEST_TAIL: usize = 10_000;

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// A run begins; only a ping says so.
    Start,
    /// All went well.
    Success,
    /// All went well, and something had failed before.
    Recovery,
    /// Something failed.
    Failure,
    /// Somebody tries whether notices arrive.
    Test,
}

impl Event {
    /// As notices and templates have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Success => "success",
            Self::Recovery => "recovery",
            Self::Failure => "failure",
            Self::Test => "test",
        }
    }
}

/// What is told, version 1.
#[derive(Debug, Clone, Serialize)]
pub struct Notice {
    /// Version of the format.
    pub version: u32,
    /// What has happened.
    pub event: Event,
    /// The version of tapline.
    pub tapline: String,
    /// The host that it ran on.
    pub host: String,
    /// When that was.
    pub at: Timestamp,
    /// A line and the end of the report, for people; what chat services show.
    pub text: String,
    /// That line.
    pub title: String,
    /// And that end of the report.
    #[serde(skip)]
    pub report: String,
    /// How many databases were stored.
    pub stored: usize,
    /// What was not stored, and why.
    pub failures: Vec<FailedJob>,
    /// Databases that are stored again after a failure; `*` is a run as a whole.
    pub recovered: Vec<String>,
}

/// A database that was not stored, or not in all of its stores.
#[derive(Debug, Clone, Serialize)]
pub struct FailedJob {
    /// Its name.
    pub database: String,
    /// Why.
    pub message: String,
    /// Whether it is stored all the same: a store lacks it, or pruning failed.
    pub stored: bool,
}

impl Notice {
    /// A notice of `event` in `words`, the first line of which is what it is about.
    pub fn new(event: Event, host: String, words: &str) -> Self {
        let (title, report) = words.split_once('\n').unwrap_or((words, ""));
        Self {
            title: title.to_owned(),
            report: tail(report.trim_start_matches('\n')).to_owned(),
            version: 1,
            event,
            tapline: env!("CARGO_PKG_VERSION").into(),
            host,
            at: Timestamp::now(),
            text: tail(words).to_owned(),
            stored: 0,
            failures: Vec::new(),
            recovered: Vec::new(),
        }
    }

    /// A notice of how a run went; `words` are its report for people, `recovered` the databases
    /// that had failed before.
    pub fn of_run(report: &RunReport, words: &str, recovered: Vec<String>) -> Self {
        let failed = report.jobs.iter().filter_map(|job| {
            let message = match (&job.error, &job.prune_error) {
                (Some(error), _) => error.clone(),
                (None, Some(error)) => format!("stored, but pruning failed: {error}"),
                (None, None) if job.is_stored() => return None,
                (None, None) => "interrupted".into(),
            };
            let (database, stored) = (job.database.clone(), job.is_stored());
            Some(FailedJob {
                database,
                message,
                stored,
            })
        });
        let failures: Vec<_> = failed.collect();
        let event = match (failures.is_empty(), recovered.is_empty()) {
            (false, _) => Event::Failure,
            (true, false) => Event::Recovery,
            (true, true) => Event::Success,
        };
        let jobs = report.jobs.iter();
        let stored = jobs.filter(|job| JobReport::is_stored(job)).count();
        let mut notice = Self {
            stored,
            failures,
            recovered,
            ..Self::new(event, report.host.clone(), words)
        };
        notice.title = notice.headline();
        tail(words).clone_into(&mut notice.report);
        notice.text = format!("{}\n\n{}", notice.title, notice.text);
        notice
    }
}

impl Notice {
    /// What a chat shows first.
    fn headline(&self) -> String {
        const NAMED: usize = 5;
        let names = self.failures.iter().map(|job| job.database.as_str());
        let mut failed = names.take(NAMED).collect::<Vec<_>>().join(", ");
        if self.failures.len() > NAMED {
            failed += &format!(" and {} more", self.failures.len() - NAMED);
        }
        let said = match self.event {
            Event::Failure if self.failures.iter().all(|job| job.stored) => {
                format!("{failed}: stored, and not all is well")
            }
            Event::Failure => format!("backup of {failed} failed"),
            Event::Recovery => "all backups are good again".into(),
            _ => "all backups are good".into(),
        };
        format!("tapline on {}: {said}", self.host)
    }
}

/// The end of a text, in whole characters.
fn tail(text: &str) -> &str {
    let from = text.len().saturating_sub(LONGEST_TAIL);
    let from = (from..text.len()).find(|at| text.is_char_boundary(*at));
    from.map_or(text, |from| &text[from..])
}

/// What became of telling one of those who are to be told.
#[derive(Debug)]
pub struct Told {
    /// Its key in the inventory, such as `notify.ping`.
    pub whom: &'static str,
    /// What it answered, or why it was not told.
    pub result: Result<String, String>,
}

/// Tells everybody who wants to know of this, at once, and returns what could not be told.
pub async fn tell(settings: &NotifySettings, notice: &Notice) -> Vec<String> {
    let told = tell_each(settings, notice).await.into_iter();
    told.filter_map(|Told { whom, result }| Some(format!("{whom}: {}", result.err()?)))
        .collect()
}

/// Tells everybody who wants to know of this, at once, and returns what each answered.
pub async fn tell_each(settings: &NotifySettings, notice: &Notice) -> Vec<Told> {
    let wanted = match notice.event {
        Event::Start => false,
        Event::Failure => settings.on_failure,
        // Who wants to know of every good run wants to know of this one.
        Event::Recovery => settings.on_recovery || settings.on_success,
        Event::Success => settings.on_success,
        Event::Test => true,
    };
    let ping = settings
        .ping
        .as_ref()
        .map(|address| bounded("notify.ping", ping(address, notice)));
    let webhook = settings.webhook.as_ref().filter(|_| wanted);
    let webhook =
        webhook.map(|address| bounded("notify.webhook", webhook_post(address, settings, notice)));
    let mail = settings.email.as_ref().filter(|_| wanted);
    let mail = mail.map(|mail| bounded("notify.email", mail::send(mail, notice)));
    let argv = settings.command.split_first().filter(|_| wanted);
    let command =
        argv.map(|(program, words)| bounded("notify.command", command(program, words, notice)));
    let (ping, webhook, mail, command) = tokio::join!(
        OptionFuture::from(ping),
        OptionFuture::from(webhook),
        OptionFuture::from(mail),
        OptionFuture::from(command),
    );
    [ping, webhook, mail, command]
        .into_iter()
        .flatten()
        .collect()
}

async fn bounded(whom: &'static str, work: impl Future<Output = Result<String, String>>) -> Told {
    let late = || Err(format!("not done within {} s", LONGEST.as_secs()));
    let result = tokio::time::timeout(LONGEST, work).await;
    let result = result.unwrap_or_else(|_| late());
    Told { whom, result }
}

async fn ping(address: &Address, notice: &Notice) -> Result<String, String> {
    let address = resolve(address).await?;
    let suffix = match notice.event {
        Event::Start => "/start",
        Event::Failure => "/fail",
        Event::Success | Event::Recovery | Event::Test => "",
    };
    let body = notice.text.clone().into_bytes();
    http::post(&address, suffix, "text/plain; charset=utf-8", &[], body).await
}

async fn webhook_post(
    address: &Address,
    settings: &NotifySettings,
    notice: &Notice,
) -> Result<String, String> {
    let address = resolve(address).await?;
    let mut headers = Vec::new();
    for (name, secret) in &settings.headers {
        let value = secret.resolve(LONGEST).await;
        headers.push((name.clone(), value.map_err(|error| error.to_string())?));
    }
    let (content_type, body) = match &settings.template {
        None => ("application/json", json(notice)),
        Some(template) => {
            let filled = template.fill(notice)?;
            let named = filled.headers.into_iter();
            headers.extend(named.map(|(name, value)| (name, value.into())));
            (filled.content_type, filled.body)
        }
    };
    http::post(&address, "", content_type, &headers, body).await
}

async fn resolve(address: &Address) -> Result<SecretString, String> {
    let secret = match address {
        Address::Text(text) => return Ok(text.clone().into()),
        Address::Secret(secret) => secret,
    };
    let resolved = secret.resolve(LONGEST).await;
    let resolved = resolved.map_err(|error| error.to_string())?;
    match crate::config::address_flaw(resolved.expose_secret()) {
        None => Ok(resolved),
        Some(why) => Err(format!("{}: {why}", secret.place)),
    }
}

fn json(notice: &Notice) -> Vec<u8> {
    serde_json::to_vec(notice).expect("a notice has only string keys")
}

/// A command gets of the environment what a dump tool gets, and so no key of a store.
async fn command(program: &str, words: &[String], notice: &Notice) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(words)
        .env_clear()
        .envs(environment::passed_on())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot run {program}: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that reads nothing is told by its own exit.
        let _ = stdin.write_all(&json(notice)).await;
    }
    let status = child.wait().await;
    match status.map_err(|error| format!("{program}: {error}"))? {
        status if status.success() => Ok(format!("{program} ended with {status}")),
        status => Err(format!("{program} ended with {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_report_is_cut_at_its_beginning_between_characters() {
        let long = "ü".repeat(LONGEST_TAIL) + "end";
        let cut = tail(&long);
        assert!(
            cut.len() <= LONGEST_TAIL && cut.ends_with("üend"),
            "{}",
            cut.len()
        );
        assert_eq!(tail("short"), "short");
        assert_eq!(tail(""), "");
    }
}
