//! What an option's value may be, where its type alone does not say.

use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::archive::Compression;
use crate::bench::synthetic::Synthetic;
use crate::catalog::Mode;
use crate::config::{LONGEST, MOST_MEMORY};
use crate::upkeep::cleanup::SHORTEST_LIMIT;

/// The parser of one of a few values, by name.
fn one_of<T: Copy + Send + Sync + 'static, const N: usize>(
    values: [(&'static str, T); N],
) -> impl TypedValueParser<Value = T> {
    let value = move |given: String| {
        values
            .into_iter()
            .find(|(name, _)| *name == given)
            .expect("one of the names")
            .1
    };
    PossibleValuesParser::new(values.map(|(name, _)| name)).map(value)
}

pub fn modes() -> impl TypedValueParser<Value = Mode> {
    one_of([Mode::Streamed, Mode::Staged].map(|mode| (mode.name(), mode)))
}

pub fn compressions() -> impl TypedValueParser<Value = Compression> {
    one_of([Compression::Gzip, Compression::Zstd, Compression::None].map(|one| (one.name(), one)))
}

pub fn source(text: &str) -> Result<Synthetic, String> {
    text.strip_prefix("synthetic:")
        .ok_or("write synthetic:SIZE or synthetic:SIZE:RATIO")?
        .parse()
}

pub fn count(text: &str) -> Result<u16, String> {
    number(text, u16::MAX)
}

/// Sessions of one dump: more than anybody's server allows a backup.
pub fn sessions(text: &str) -> Result<u16, String> {
    number(text, 64)
}

fn number(text: &str, most: u16) -> Result<u16, String> {
    let parsed = text.trim().parse().ok();
    let known = parsed.filter(|number| (1..=most).contains(number));
    known.ok_or_else(|| format!("write a whole number from 1 to {most}"))
}

pub fn memory(text: &str) -> Result<u64, String> {
    let size = text
        .parse::<bytesize::ByteSize>()
        .ok()
        .map(|size| size.as_u64());
    size.filter(|size| (1..=MOST_MEMORY).contains(size))
        .ok_or_else(|| "write a size such as 512MiB, at most 1PiB".into())
}

pub fn age(text: &str) -> Result<Duration, String> {
    let age = duration(text)?;
    if age < SHORTEST_LIMIT {
        return Err("must be an hour or more: what is younger may be of a running backup".into());
    }
    Ok(age)
}

pub fn setting(text: &str) -> Result<(String, String), String> {
    let of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && name.chars().all(of_name) => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("must be KEY=VALUE".into()),
    }
}

pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration = text
        .parse()
        .map_err(|_| "write a time such as 90s, 15m or 2h")?;
    Duration::try_from(parsed)
        .ok()
        .filter(|time| !time.is_zero() && *time <= LONGEST)
        .ok_or_else(|| "must be longer than nothing, and at most ten years".into())
}
