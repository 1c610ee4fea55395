//! Commands of the person who runs this: before and after a run, and before and after each database.
//!
//! A hook reads from its stdin, as JSON, what it is called for, and has the same in its environment;
//! of this program's own environment it gets what a dump tool gets. It is given a time, and ended
//! with all that it has started when that is over. What it says goes into the log.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::ChildStdout;

use crate::config::HookSettings;
use crate::dump::{Child, ToolCommand};

/// Bytes of a hook's stdout that go into the log; the rest is read and forgotten.
const LONGEST: usize = 16 << 10;

/// When a hook is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookPoint {
    /// Before a run.
    BeforeRun,
    /// After a run, whatever came of it.
    AfterRun,
    /// Before a database's dump, its lease being held.
    Before,
    /// After it, whatever came of it.
    After,
}

impl HookPoint {
    /// Its key in the inventory.
    pub fn name(self) -> &'static str {
        match self {
            Self::BeforeRun => "before_run",
            Self::AfterRun => "after_run",
            Self::Before => "before",
            Self::After => "after",
        }
    }

    fn argv(self, settings: &HookSettings) -> &[String] {
        match self {
            Self::BeforeRun => &settings.before_run,
            Self::AfterRun => &settings.after_run,
            Self::Before => &settings.before,
            Self::After => &settings.after,
        }
    }
}

/// Whether there is such a hook.
pub fn is_set(settings: &HookSettings, point: HookPoint) -> bool {
    !point.argv(settings).is_empty()
}

/// Calls a hook, if there is one. `about` is an object; what of it is a text, a number or a truth is
/// in the hook's environment as `TAPLINE_…`.
///
/// # Errors
/// What went wrong, with the hook's last words.
pub async fn call(
    settings: &HookSettings,
    point: HookPoint,
    about: Value,
    at_most: Duration,
) -> Result<(), String> {
    let [program, words @ ..] = point.argv(settings) else {
        return Ok(());
    };
    let hook = point.name();
    let limit = settings.timeout.min(at_most);
    let work = async {
        let mut command = ToolCommand::new(program).args(words);
        command.env = environment(hook, &about);
        for (name, secret) in &settings.env {
            let value = secret
                .resolve(limit)
                .await
                .map_err(|error| error.to_string())?;
            command.secret_env.push((name.clone(), value));
        }
        let (mut child, mut stdin, stdout) =
            Child::talking(&command).map_err(|error| error.to_string())?;
        let text = serde_json::to_vec(&about).unwrap_or_default();
        let tell = async move {
            // One that reads nothing is told by its own exit.
            let _ = stdin.write_all(&text).await;
        };
        let ((), said, ended) = tokio::join!(tell, listen(stdout), child.wait());
        for line in said.lines().filter(|line| !line.trim().is_empty()) {
            tracing::info!(hook, "{line}");
        }
        if ended.is_ok() {
            for line in child.said().await {
                tracing::info!(hook, "{line}");
            }
        }
        // What it has left behind in its group is not ended; it is reaped itself.
        child.reap();
        ended.map_err(|error| error.to_string())
    };
    // A child that is dropped is killed with its group.
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => Err(format!("hooks.{hook}: {why}")),
        Err(_) => Err(format!(
            "hooks.{hook}: {program} was not done within {limit:?} and was ended (hooks.timeout)"
        )),
    }
}

/// The beginning of what it says on stdout, without control characters. A grandchild that keeps
/// stdout open is waited for as the hook itself is.
async fn listen(mut stdout: ChildStdout) -> String {
    let (mut kept, mut buffer) = (Vec::new(), vec![0; 4096]);
    while let Ok(length @ 1..) = stdout.read(&mut buffer).await {
        let room = LONGEST.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..length.min(room)]);
    }
    let text = String::from_utf8_lossy(&kept);
    let is_shown = |c: char| c == '\n' || !c.is_control();
    text.chars().filter(|c| is_shown(*c)).collect()
}

fn environment(hook: &str, about: &Value) -> Vec<(String, String)> {
    let mut variables = vec![("TAPLINE_HOOK".to_owned(), hook.to_owned())];
    for (name, value) in about.as_object().into_iter().flatten() {
        let value = match value {
            Value::String(text) => text.replace('\0', ""),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => continue,
        };
        variables.push((format!("TAPLINE_{}", name.to_uppercase()), value));
    }
    variables
}
