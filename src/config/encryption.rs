//! Who can read a database's backups: `encrypt_to`, or `passphrase`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::ExposeSecret;
use toml::Spanned;

use super::place::{File, Result};
use super::{ConfigError, Secret, raw};
use crate::cipher::{Lock, Recipient};

/// How a database's backups are encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptionSettings {
    /// To whom.
    pub lock: LockFrom,
    /// Whether the names of the files in the archive are inside alone.
    pub hide_names: bool,
}

/// Who can read them, before files and secrets are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockFrom {
    /// `encrypt_to`: the owners of these keys.
    Recipients(Vec<RecipientFrom>),
    /// `passphrase`: whoever knows it.
    Passphrase(Secret),
}

/// Where public keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipientFrom {
    /// One as it stands in the inventory.
    Key(Recipient),
    /// `{ file = "p" }`: all of a file, read anew for each backup.
    File {
        /// Where it is.
        path: PathBuf,
        /// `file:line: key`, for messages.
        place: String,
    },
}

/// The keys of a table: an entry's own, which are stronger than `[defaults]` together.
pub(super) fn encryption(
    file: &File,
    place: &str,
    own: &raw::Database,
    defaults: &raw::Database,
) -> Result<Option<EncryptionSettings>> {
    let is_own = own.encrypt_to.is_some() || own.passphrase.is_some();
    let table = if is_own { own } else { defaults };
    let key = |key: &str| format!("{place}.{key}");
    let lock = match (&table.encrypt_to, &table.passphrase) {
        (Some(_), Some(passphrase)) => {
            let why = "encrypt_to and passphrase exclude each other; remove one";
            return file.wrong(&passphrase.span(), &key("passphrase"), why);
        }
        // Not encrypted, whatever the others are.
        (Some(to), None) if to.get_ref().is_empty() => None,
        (Some(to), None) => {
            let to = to.get_ref().iter();
            let to = to.map(|from| recipient(file, &key("encrypt_to"), from));
            Some(LockFrom::Recipients(to.collect::<Result<_>>()?))
        }
        (None, Some(passphrase)) => Some(LockFrom::Passphrase(
            file.secret(passphrase, &key("passphrase"))?,
        )),
        (None, None) => None,
    };
    let hide_names = own.hide_names.as_ref().or(defaults.hide_names.as_ref());
    match (lock, &own.hide_names) {
        (None, Some(hide)) if *hide.get_ref() => file.wrong(
            &hide.span(),
            &key("hide_names"),
            "is for encrypted backups; add encrypt_to = [\"age1…\"]",
        ),
        (lock, _) => Ok(lock.map(|lock| EncryptionSettings {
            lock,
            hide_names: hide_names.is_some_and(|hide| *hide.get_ref()),
        })),
    }
}

fn recipient(file: &File, key: &str, from: &Spanned<raw::RecipientFrom>) -> Result<RecipientFrom> {
    let wrong = |why: &str| file.wrong(&from.span(), key, why);
    match from.get_ref() {
        raw::RecipientFrom::Key(text) => match text.parse() {
            Ok(recipient) => Ok(RecipientFrom::Key(recipient)),
            Err(why) => wrong(why),
        },
        raw::RecipientFrom::Table(table) => match table.get("file") {
            Some(toml::Value::String(path)) if table.len() == 1 => Ok(RecipientFrom::File {
                path: file.relative(Path::new(path)),
                place: file.place(&from.span(), key),
            }),
            _ => wrong("a public key in quotes, or { file = \"recipients.txt\" }"),
        },
    }
}

impl EncryptionSettings {
    /// Reads files and gets the secret, which may take as long as `limit`.
    ///
    /// # Errors
    /// When one is not there or holds something else.
    pub async fn lock(&self, limit: Duration) -> Result<Lock> {
        let from = match &self.lock {
            LockFrom::Passphrase(secret) => {
                let passphrase = secret.resolve(limit).await?;
                if passphrase.expose_secret().contains(char::is_control) {
                    return Err(ConfigError(format!(
                        "{}: the passphrase has a line break or another control character in it, \
                         which nobody can type where age asks for it",
                        secret.place
                    )));
                }
                return Ok(Lock::of_passphrase(passphrase));
            }
            LockFrom::Recipients(from) => from,
        };
        let mut all = Vec::new();
        for from in from {
            let named = match from {
                RecipientFrom::Key(recipient) => vec![recipient.clone()],
                RecipientFrom::File { path, place } => {
                    let wrong =
                        |why: String| ConfigError(format!("{place}: {}: {why}", path.display()));
                    let text = tokio::fs::read_to_string(path).await;
                    let text = text.map_err(|error| wrong(format!("cannot be read: {error}")))?;
                    let listed = Recipient::of_lines(&text).map_err(wrong)?;
                    if listed.is_empty() {
                        return Err(wrong("names nobody".into()));
                    }
                    listed
                }
            };
            // Who is named twice is one.
            for one in named {
                if !all.contains(&one) {
                    all.push(one);
                }
            }
        }
        Ok(Lock::Recipients(all))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Inventory;
    use super::*;

    const KEY: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    const STORE: &str = "[stores.s]\nurl = \"s3://bucket/p\"\n";
    const APP: &str = "[databases.app]\nengine = \"sqlite\"\npath = \"x\"\n";

    fn parse(defaults: &str, own: &str) -> Result<Option<EncryptionSettings>> {
        let text = format!("{STORE}[defaults]\n{defaults}\n{APP}{own}\n");
        let inventory = Inventory::parse(Path::new("/etc/t.toml"), &text)?;
        Ok(inventory.databases[0].encryption.clone())
    }

    #[test]
    fn an_entrys_own_lock_is_stronger_than_the_defaults_and_may_be_none() {
        let to = format!("encrypt_to = [\"{KEY}\", {{ file = \"r.txt\" }}]\nhide_names = true");
        let Some(EncryptionSettings {
            lock: LockFrom::Recipients(all),
            hide_names: true,
        }) = parse(&to, "").unwrap()
        else {
            panic!("recipients, names hidden")
        };
        assert_eq!(all[0], RecipientFrom::Key(KEY.parse().unwrap()));
        assert!(matches!(&all[1], RecipientFrom::File { path, .. } if path.ends_with("etc/r.txt")));
        let own = parse(&to, "passphrase = { env = \"P\" }").unwrap().unwrap();
        assert!(matches!(own.lock, LockFrom::Passphrase(_)));
        assert_eq!(parse(&to, "encrypt_to = []").unwrap(), None);
        assert_eq!(parse("", "").unwrap(), None);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place_and_never_repeated() {
        let secret = "AGE-SECRET-KEY-1QYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQS3290GQ";
        let cases = [
            (
                format!("encrypt_to = [\"{KEY}\"]\npassphrase = {{ env = \"P\" }}"),
                "exclude each other",
            ),
            (format!("encrypt_to = [\"{secret}\"]"), "is a private key"),
            ("encrypt_to = [\"age1x\"]".into(), "no public key of age"),
            ("encrypt_to = [{ env = \"X\" }]".into(), "{ file = "),
            ("encrypt_to = \"age1x\"".into(), "must be a list"),
            ("passphrase = \"hunter2\"".into(), "a secret must not stand"),
            ("hide_names = true".into(), "is for encrypted backups"),
        ];
        for (own, why) in cases {
            let error = parse("", &own).expect_err(&own).to_string();
            assert!(error.contains(why), "{own}: {error}");
            assert!(error.starts_with("/etc/t.toml:"), "{error}");
            assert!(
                !error.contains(secret) && !error.contains("hunter2"),
                "{error}"
            );
        }
    }
}
