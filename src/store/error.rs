//! A store's failure as data: what a caller can do about it, what was asked of which store, what
//! the server said, and how often it was tried.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

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
    /// No request reaches the store, however often it is tried: a certificate that nobody vouches
    /// for, a host name that does not exist, TLS where the other side speaks none.
    Unreachable,
    /// The server knows no such operation, or not this header of it.
    Unsupported,
    /// The request or its answer makes no sense; trying again would not help.
    Invalid,
}

/// A failed store operation. Prints as one sentence; every word of it can be had as a field.
#[derive(Clone)]
pub struct StoreError(Box<Facts>);

#[derive(Debug, Clone)]
struct Facts {
    kind: ErrorKind,
    /// Whether trying again may help although the kind says otherwise.
    may_pass: bool,
    unanswered: bool,
    unheard: bool,
    context: Vec<String>,
    operation: Option<&'static str>,
    key: Option<String>,
    store: Option<String>,
    status: Option<u16>,
    code: Option<String>,
    words: String,
    advice: Option<&'static str>,
    tries: u32,
    elapsed: Duration,
    retry_after: Option<Duration>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// An error of `kind`; `words` are the server's own, or say what was wrong with its reply.
    pub fn new(kind: ErrorKind, words: impl Into<String>) -> Self {
        Self(Box::new(Facts {
            kind,
            may_pass: kind == ErrorKind::Transient,
            unanswered: false,
            unheard: false,
            context: Vec::new(),
            operation: None,
            key: None,
            store: None,
            status: None,
            code: None,
            words: words.into(),
            advice: None,
            tries: 1,
            elapsed: Duration::ZERO,
            retry_after: None,
            source: None,
        }))
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same request may succeed later.
    pub fn may_pass(&self) -> bool {
        self.0.may_pass
    }

    /// Whether a request (any of the tries) may have been carried out, or may still be: its reply
    /// was lost, could not be read, or was a 5xx. What it was to change must then be looked up.
    pub fn unanswered(&self) -> bool {
        self.0.unanswered
    }

    /// Whether a request (any of the tries) got no reply at all: it may still be on its way, and take
    /// effect after the next look.
    pub fn unheard(&self) -> bool {
        self.0.unheard
    }

    /// S3's name of the operation, such as `UploadPart`.
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// The key that it was about, relative to the store's prefix.
    pub fn key(&self) -> Option<&str> {
        self.0.key.as_deref()
    }

    /// The store's address, and its endpoint where that is not AWS's own.
    pub fn store(&self) -> Option<&str> {
        self.0.store.as_deref()
    }

    /// HTTP status of the reply.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// The server's code, such as `NoSuchUpload`.
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// What the server said, or what is wrong with what it said.
    pub fn words(&self) -> &str {
        &self.0.words
    }

    /// How often it was tried.
    pub fn tries(&self) -> u32 {
        self.0.tries
    }

    /// From the first failure to the last.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed
    }

    /// How long the server asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The same error with `context` before all else.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.0.context.push(context.to_string());
        self
    }

    /// What was asked for, about which key.
    #[must_use]
    pub fn with_request(mut self, operation: &'static str, key: Option<&str>) -> Self {
        self.0.operation = Some(operation);
        self.0.key = key.map(str::to_owned);
        self
    }

    /// Which store was asked.
    #[must_use]
    pub fn with_store(mut self, store: impl Into<String>) -> Self {
        self.0.store = Some(store.into());
        self
    }

    /// The reply's status, and the code in it.
    #[must_use]
    pub fn with_reply(mut self, status: Option<u16>, code: Option<&str>) -> Self {
        self.0.status = status;
        self.0.code = code.filter(|code| !code.is_empty()).map(str::to_owned);
        self
    }

    /// What the user can do.
    #[must_use]
    pub fn with_advice(mut self, advice: &'static str) -> Self {
        self.0.advice = Some(advice);
        self
    }

    /// The error below it.
    #[must_use]
    pub fn with_source(mut self, source: Arc<dyn Error + Send + Sync>) -> Self {
        self.0.source = Some(source);
        self
    }

    /// How long the server asks to be left alone.
    #[must_use]
    pub fn with_retry_after(mut self, time: Option<Duration>) -> Self {
        self.0.retry_after = time;
        self
    }

    /// How often and how long it was tried.
    #[must_use]
    pub fn with_tries(mut self, tries: u32, elapsed: Duration) -> Self {
        self.0.tries = tries;
        self.0.elapsed = elapsed;
        self
    }

    /// Trying again may help, whatever the kind says.
    #[must_use]
    pub fn passing(mut self, may_pass: bool) -> Self {
        self.0.may_pass |= may_pass;
        self
    }

    /// The request may have been carried out all the same.
    #[must_use]
    pub fn maybe_done(mut self, unanswered: bool) -> Self {
        self.0.unanswered |= unanswered;
        self
    }

    /// The same error, which says whether a request of this operation may still be on its way.
    #[must_use]
    pub fn maybe_coming(mut self, unheard: bool) -> Self {
        self.0.unheard |= unheard;
        self
    }
}

/// `[context: ]OPERATION of KEY in STORE: HTTP STATUS CODE: words (N tries in M s); advice`
impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Facts {
            context,
            operation,
            key,
            store,
            status,
            code,
            words,
            advice,
            tries,
            elapsed,
            ..
        } = &*self.0;
        for context in context.iter().rev() {
            write!(f, "{context}: ")?;
        }
        if let Some(operation) = operation {
            f.write_str(operation)?;
            if let Some(key) = key {
                write!(f, " of {key}")?;
            }
            if let Some(store) = store {
                write!(f, " in {store}")?;
            }
            f.write_str(": ")?;
        }
        // A code says more than its number.
        match (status, code) {
            (_, Some(code)) => write!(f, "{code}: ")?,
            (Some(status), None) => write!(f, "HTTP {status}: ")?,
            (None, None) => {}
        }
        f.write_str(words)?;
        if *tries > 1 {
            write!(f, " ({tries} tries in {} s)", elapsed.as_secs())?;
        }
        if let Some(advice) = advice {
            write!(f, "; {advice}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&**self.0.source.as_ref()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_sentence_and_keeps_its_parts() {
        let error = StoreError::new(ErrorKind::NotFound, "The bucket does not exist")
            .with_request("UploadPart", Some("shop/x.tar.gz"))
            .with_store("s3://b/p at https://s3.example.com")
            .with_reply(Some(404), Some("NoSuchBucket"))
            .with_tries(3, Duration::from_secs(20))
            .with_advice("create it")
            .with_source(Arc::new(std::io::Error::other("below")))
            .context("inner")
            .context("outer");
        assert_eq!(
            error.to_string(),
            "outer: inner: UploadPart of shop/x.tar.gz in s3://b/p at https://s3.example.com: \
             NoSuchBucket: The bucket does not exist (3 tries in 20 s); create it"
        );
        assert_eq!(
            (error.status(), error.code(), error.tries()),
            (Some(404), Some("NoSuchBucket"), 3)
        );
        assert_eq!(error.source().unwrap().to_string(), "below");
        assert!(!error.may_pass() && !error.unanswered());
    }
}
