//! Backup ids: when a backup began, and a tail that tells apart two of the same second.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// The name of one backup, such as `20261123T180327Z-k3f9ax`; ids of one database sort by time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId(String);

const TIME_FORMAT: &str = "%Y%m%dT%H%M%SZ";
const TIME_LEN: usize = "20261123T180327Z".len();
const TAIL_LEN: usize = 6;
const TAIL_ALPHABET: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

impl BackupId {
    /// A new id for a backup that begins now.
    pub fn now() -> Self {
        Self::at(Timestamp::now())
    }

    /// A new id for a backup that began at `time`, which is cut to whole seconds.
    pub fn at(time: Timestamp) -> Self {
        let tail: String = (0..TAIL_LEN)
            .map(|_| char::from(TAIL_ALPHABET[fastrand::usize(..TAIL_ALPHABET.len())]))
            .collect();
        Self(format!("{}-{tail}", time.strftime(TIME_FORMAT)))
    }

    /// When the backup began, to the second.
    pub fn time(&self) -> Timestamp {
        parse_time(&self.0[..TIME_LEN]).expect("an id is only made with a valid time")
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn parse_time(text: &str) -> Option<Timestamp> {
    let civil = DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok()?;
    TimeZone::UTC.to_timestamp(civil).ok()
}

impl FromStr for BackupId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let well_formed = text.len() == TIME_LEN + 1 + TAIL_LEN
            && text.is_ascii()
            && text.as_bytes()[TIME_LEN] == b'-'
            && text.as_bytes()[TIME_LEN + 1..]
                .iter()
                .all(|byte| TAIL_ALPHABET.contains(byte))
            && parse_time(&text[..TIME_LEN]).is_some();
        if well_formed {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "{text:?} is not a backup id; one looks like 20261123T180327Z-k3f9ax"
            ))
        }
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for BackupId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for BackupId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_tells_its_time() {
        let time: Timestamp = "2026-11-23T18:03:27Z".parse().unwrap();
        let id = BackupId::at(time);
        assert!(id.as_str().starts_with("20261123T180327Z-"), "{id}");
        assert_eq!(id.as_str().parse::<BackupId>().unwrap(), id);
        assert_eq!(id.time(), time);
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "",
            "latest",
            "20261123T180327Z",
            "20261323T180327Z-k3f9ax",
            "20261123T180327Z-K3F9AX",
            "20261123T180327Z-k3f9a/",
            "é",
        ] {
            assert!(text.parse::<BackupId>().is_err(), "{text}");
        }
    }
}
