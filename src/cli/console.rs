//! stdout and stderr, either of which may be closed, full, or a pipe whose reader has gone.
//!
//! What is told never matters more than what is done: nothing here fails or panics. That stdout
//! could not be written is remembered, and becomes the exit code when all work is over.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use super::args::LogFormat;
use super::exit::{Exit, Failure};

/// How this process speaks: set once, from the command line.
static MANNER: OnceLock<Manner> = OnceLock::new();
/// The first error of stdout.
static UNTOLD: OnceLock<String> = OnceLock::new();

#[derive(Debug, Clone, Copy)]
struct Manner {
    format: LogFormat,
    quiet: bool,
}

/// Says how to speak from now on. A second start in one process keeps the first.
pub(super) fn start(format: LogFormat, quiet: bool) {
    let _ = MANNER.set(Manner { format, quiet });
}

fn manner() -> Manner {
    *MANNER.get().unwrap_or(&Manner {
        format: LogFormat::Text,
        quiet: false,
    })
}

/// Whether only what went wrong is to be said.
pub(super) fn is_quiet() -> bool {
    manner().quiet
}

/// Writes what was asked for to stdout. A reader that has gone (`tapline list | head`) has read
/// enough; any other error is told at the end, by [`untold`].
pub(super) fn out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let _ = UNTOLD.set(error.to_string());
        }
        _ => {}
    }
}

/// Writes to stdout what a quiet program does not say.
pub(super) fn remark(text: &str) {
    if !is_quiet() {
        out(text);
    }
}

/// Writes to stderr what stands beside the data on stdout.
pub(super) fn aside(text: &str) {
    if !is_quiet() {
        err(text);
    }
}

fn err(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Says what went wrong, in a line on stderr.
pub(super) fn error(failure: &Failure) {
    match manner().format {
        LogFormat::Text => err(&format!("tapline: {}\n", failure.message)),
        LogFormat::Json => err(&json_line("ERROR", &failure.fields())),
    }
}

/// Says on stderr what a person should know now.
pub(super) fn notice(text: impl Display) {
    match manner().format {
        LogFormat::Text => err(&format!("tapline: {text}\n")),
        LogFormat::Json => {
            let message = Value::from(text.to_string());
            let fields = Map::from_iter([("message".into(), message)]);
            err(&json_line("WARN", &fields));
        }
    }
}

/// A line as the log's own are, so that one parser reads both.
fn json_line(level: &str, fields: &Map<String, Value>) -> String {
    let line = json!({
        "timestamp": jiff::Timestamp::now(),
        "level": level,
        "fields": fields,
        "target": "tapline",
    });
    format!("{line}\n")
}

/// Why the program must not end well although all its work went well: stdout was not written.
pub(super) fn untold() -> Option<Failure> {
    let error = UNTOLD.get()?;
    Some(Failure::new(
        Exit::Untold,
        format!("cannot write to stdout: {error}"),
    ))
}
