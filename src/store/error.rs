//! What can go wrong with a store, by what a caller can do about it.

use std::fmt;

/// A store's failure, by what the caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Try again: a broken connection, a timeout, a 5xx, throttling.
    Transient,
    /// There is no such object, upload or bucket.
    NotFound,
    /// Another object has the key.
    AlreadyExists,
    /// Credentials are missing, wrong, or not allowed to do this.
    Denied,
    /// The request or its answer makes no sense; trying again would not help.
    Invalid,
}

/// A failed store operation: its kind, and a message that says what was tried and what the server
/// said.
#[derive(Debug, Clone, thiserror::Error)]
pub struct StoreError {
    kind: ErrorKind,
    message: String,
}

impl StoreError {
    /// An error of `kind` with the server's own words in `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The same error with `context` before its message.
    #[must_use]
    pub fn context(self, context: impl fmt::Display) -> Self {
        Self {
            kind: self.kind,
            message: format!("{context}: {}", self.message),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
