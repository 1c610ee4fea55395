//! Log lines on stderr, through `tracing`, which do not tear the progress lines.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::args::LogFormat;
use super::progress::Display;

struct Lines(Display);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

/// Whatever becomes of a line, it has been written: `tracing` would report an error of stderr on
/// stderr, and panic in the middle of a backup.
struct Line<'a>(&'a Display);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = self.0.suspend(|| io::stderr().write_all(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts logging. `RUST_LOG` says more than the flags can.
pub(super) fn start(format: LogFormat, verbose: u8, quiet: bool, display: &Display) {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (_, 0) if display.is_terminal() => "tapline=warn",
        (_, 0) => "tapline=info,warn,aws_config=error,aws_smithy_http_client=error",
        (_, 1) => "tapline=debug,info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .log_internal_errors(false)
        .with_writer(Lines(display.clone()));
    // https://no-color.org: set and not empty.
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = display.is_terminal() && !plain;
    // A second start in one process (tests) keeps the first.
    let _ = match format {
        LogFormat::Text => subscriber.with_target(false).with_ansi(colour).try_init(),
        LogFormat::Json => subscriber.json().try_init(),
    };
}
