//! The name of a file in an archive: what every file system and every tar can hold.

use std::fmt;
use std::str::FromStr;

use super::MAX_NAME;

/// One component of a path, and no way out of a folder: 1 to 255 bytes, neither `.` nor `..`, with
/// no slash, NUL or line break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryName(String);

impl EntryName {
    /// Whether every component of `path` is one.
    pub fn are_all_of(path: &str) -> bool {
        path.split('/').all(|name| name.parse::<Self>().is_ok())
    }
}

impl FromStr for EntryName {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let fits = (1..=MAX_NAME).contains(&name.len())
            && ![".", ".."].contains(&name)
            && !name.contains(['/', '\0', '\n', '\r']);
        fits.then(|| Self(name.to_owned())).ok_or(
            "must be 1 to 255 bytes without slash, NUL or line break, and neither \".\" nor \"..\"",
        )
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_component_and_leads_nowhere_else() {
        for name in ["shop.sql", "...", "größe", " ", "x".repeat(255).as_str()] {
            assert!(name.parse::<EntryName>().is_ok(), "{name:?}");
        }
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a\nb",
            "a\0b",
            "x".repeat(256).as_str(),
        ] {
            assert!(name.parse::<EntryName>().is_err(), "{name:?}");
        }
        assert!(EntryName::are_all_of("shop/0-pre-data.sql"));
        assert!(!EntryName::are_all_of("shop/../x") && !EntryName::are_all_of("/x"));
    }
}
