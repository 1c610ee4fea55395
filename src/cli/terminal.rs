//! A passphrase asked for on the terminal, which does not show it.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::sync::{Mutex, PoisonError};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use secrecy::SecretString;
use zeroize::Zeroizing;

/// The terminal while it shows nothing, and how it was before: whatever ends the program must not
/// leave it so.
static QUIET: Mutex<Option<(File, Termios)>> = Mutex::new(None);

/// Asks for a passphrase; `None` when there is no terminal, or nothing is given. Waits for a person:
/// not for an async task.
pub(super) fn ask(what: &str) -> Option<SecretString> {
    let mut terminal = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .ok()?;
    let before = tcgetattr(&terminal).ok()?;
    let mut quiet = before.clone();
    quiet.local_modes.remove(LocalModes::ECHO);
    let kept = (terminal.try_clone().ok()?, before);
    *QUIET.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
    let line = (|| {
        tcsetattr(&terminal, OptionalActions::Flush, &quiet).ok()?;
        write!(terminal, "{what}: ").ok()?;
        // As long as a line of a terminal can be: a buffer that grows leaves copies behind.
        let mut line = Zeroizing::new(String::with_capacity(4096));
        BufReader::new(&terminal).read_line(&mut line).ok()?;
        let _ = writeln!(terminal);
        Some(line)
    })();
    restore();
    let line = line?;
    let secret = line.trim_end_matches(['\r', '\n']);
    (!secret.is_empty()).then(|| SecretString::from(secret))
}

/// Lets the terminal show again what is typed.
pub(super) fn restore() {
    let mut kept = QUIET.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((terminal, before)) = kept.take() {
        let _ = tcsetattr(&terminal, OptionalActions::Now, &before);
    }
}
