//! The file that is being validated: places for messages, and the values that several tables have.

use std::num::{NonZeroU32, NonZeroU64};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use super::{ConfigError, Secret, SecretFrom, raw};
use crate::catalog::Within;

pub(super) type Result<T> = std::result::Result<T, ConfigError>;

/// More at once than any machine does, and few enough to be counted in any type.
pub const MOST: usize = 65_535;
/// A run's memory is multiplied when it is divided up; nobody has a pebibyte of it.
pub const MOST_MEMORY: u64 = 1 << 50;
/// Bytes of the largest dump that can be counted with parts and shares of it: an exbibyte.
const MOST_BYTES: u64 = 1 << 60;
/// No rate of uploads is slower, in bytes a second: below, a part takes a quarter of an hour.
const SLOWEST: u64 = 10_000;
/// No time to wait is longer: clocks can be added to it without end.
pub const LONGEST: Duration = Duration::from_hours(10 * 365 * 24);

/// The file that is being validated, for places.
pub(super) struct File<'a> {
    pub path: &'a Path,
    /// Where each line begins: every key of a database is given its place.
    lines: Vec<usize>,
}

impl<'a> File<'a> {
    pub fn new(path: &'a Path, text: &str) -> Self {
        let after_breaks = memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1);
        let lines = std::iter::once(0).chain(after_breaks).collect();
        Self { path, lines }
    }

    pub fn place(&self, span: &Range<usize>, key: &str) -> String {
        let line = self.lines.partition_point(|begin| *begin <= span.start);
        format!("{}:{line}: {key}", self.path.display())
    }

    pub fn wrong<T>(
        &self,
        span: &Range<usize>,
        key: &str,
        why: impl std::fmt::Display,
    ) -> Result<T> {
        Err(ConfigError(format!("{}: {why}", self.place(span, key))))
    }

    pub fn relative(&self, path: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }

    pub fn count(
        &self,
        value: Option<&Spanned<usize>>,
        key: &str,
        default: usize,
    ) -> Result<usize> {
        match value {
            Some(value) if (1..=MOST).contains(value.get_ref()) => Ok(*value.get_ref()),
            Some(value) => {
                let why = format!("must be 1 or more, at most {MOST}; 1 is one at a time");
                self.wrong(&value.span(), key, why)
            }
            None => Ok(default),
        }
    }

    pub fn duration(&self, value: Option<&Spanned<String>>, key: &str) -> Result<Option<Duration>> {
        let Some(value) = value else { return Ok(None) };
        let parsed = value
            .get_ref()
            .parse::<jiff::SignedDuration>()
            .ok()
            .and_then(|d| Duration::try_from(d).ok());
        match parsed {
            Some(duration) if duration > LONGEST => self.wrong(
                &value.span(),
                key,
                "is longer than ten years; write one such as \"2h\"",
            ),
            Some(duration) if !duration.is_zero() => Ok(Some(duration)),
            _ => self.wrong(
                &value.span(),
                key,
                "not a time; write one such as \"90s\", \"15m\" or \"2h\"",
            ),
        }
    }

    pub fn size(&self, value: Option<&Spanned<raw::Size>>, key: &str) -> Result<Option<u64>> {
        let Some(value) = value else { return Ok(None) };
        let parsed = match value.get_ref() {
            raw::Size::Bytes(bytes) => Some(*bytes),
            raw::Size::Text(text) => text
                .parse::<bytesize::ByteSize>()
                .ok()
                .map(|size| size.as_u64()),
        };
        match parsed {
            Some(size) if size > MOST_BYTES => {
                self.wrong(&value.span(), key, "is more than there is; at most 1EiB")
            }
            Some(size) if size > 0 => Ok(Some(size)),
            _ => self.wrong(
                &value.span(),
                key,
                "not a size; write one such as \"512MiB\" or \"40GB\"",
            ),
        }
    }

    /// Bytes a second: a size, with `/s` or without.
    pub fn rate(
        &self,
        value: Option<&Spanned<raw::Size>>,
        key: &str,
    ) -> Result<Option<NonZeroU64>> {
        let Some(value) = value else { return Ok(None) };
        let parsed = match value.get_ref() {
            raw::Size::Bytes(bytes) => Some(*bytes),
            raw::Size::Text(text) => {
                let text = text.strip_suffix("/s").unwrap_or(text);
                let size = text.trim_end().parse::<bytesize::ByteSize>().ok();
                size.map(|size| size.as_u64())
            }
        };
        match parsed.and_then(NonZeroU64::new) {
            Some(rate) if rate.get() >= SLOWEST => Ok(Some(rate)),
            _ => self.wrong(
                &value.span(),
                key,
                "not a rate, or below 10 kB/s; write one such as \"20 MB/s\"",
            ),
        }
    }

    /// A text with something in it that stands on one line.
    pub fn text(&self, value: &Spanned<String>, key: &str) -> Result<String> {
        let text = value.get_ref();
        if text.is_empty() {
            return self.wrong(&value.span(), key, "is empty; leave it out instead");
        }
        if text.chars().any(char::is_control) {
            return self.wrong(&value.span(), key, "has a control character in it");
        }
        Ok(text.clone())
    }

    pub fn number(&self, value: Option<&Spanned<u32>>, key: &str) -> Result<Option<NonZeroU32>> {
        let Some(value) = value else { return Ok(None) };
        match NonZeroU32::new(*value.get_ref()) {
            Some(number) => Ok(Some(number)),
            None => self.wrong(
                &value.span(),
                key,
                "must be 1 or more; leave it out when the rule is not wanted",
            ),
        }
    }

    pub fn within(&self, value: Option<&Spanned<String>>, key: &str) -> Result<Option<Within>> {
        let Some(value) = value else { return Ok(None) };
        value
            .get_ref()
            .parse()
            .map(Some)
            .or_else(|why| self.wrong(&value.span(), key, format_args!("{why}")))
    }

    pub fn secret(&self, value: &Spanned<raw::Secret>, key: &str) -> Result<Secret> {
        const FORMS: &str =
            "{ env = \"NAME\" }, { file = \"path\" } or { command = [\"program\", \"argument\"] }";
        let raw::Secret::From(table) = value.get_ref() else {
            return self.wrong(
                &value.span(),
                key,
                format_args!("a secret must not stand in this file; use {FORMS}"),
            );
        };
        let mut entries = table.iter();
        let from = match (entries.next(), entries.next()) {
            (Some((form, value)), None) => match (form.as_str(), value) {
                ("env", toml::Value::String(name)) => Some(SecretFrom::Env(name.clone())),
                ("file", toml::Value::String(path)) => {
                    Some(SecretFrom::File(self.relative(Path::new(path))))
                }
                ("command", toml::Value::Array(argv)) if !argv.is_empty() => {
                    let words = argv.iter().map(|word| word.as_str().map(str::to_owned));
                    words.collect::<Option<_>>().map(SecretFrom::Command)
                }
                _ => None,
            },
            _ => None,
        };
        match from {
            Some(from) => Ok(Secret {
                from,
                place: self.place(&value.span(), key),
            }),
            None => self.wrong(
                &value.span(),
                key,
                format_args!("a secret is one of {FORMS}"),
            ),
        }
    }
}
