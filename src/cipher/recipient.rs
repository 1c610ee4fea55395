//! Who can read an archive: public keys, or whoever knows a passphrase.

use std::fmt;
use std::io::{Read, Write};
use std::str::FromStr;

use age::plugin::RecipientPluginV1;
use age::{NoCallbacks, scrypt, ssh, tag, tagpq, x25519};
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, Engine};
use secrecy::SecretString;

use super::{Identities, Seal, opened, shape};
use crate::catalog::Encryption;
use crate::core_dump;

/// So much of a public key is its fingerprint: 60 bits, and a `grep` finds it in the key's file.
const SHOWN: usize = 12;

/// What an archive is locked with.
#[derive(Debug, Clone)]
pub enum Lock {
    /// Each of these can open it; there is at least one.
    Recipients(Vec<Recipient>),
    /// Whoever knows this; made by [`Lock::of_passphrase`].
    Passphrase(SecretString),
}

impl Lock {
    /// From now on this process leaves no core dump.
    pub fn of_passphrase(secret: SecretString) -> Self {
        core_dump::forbid();
        Self::Passphrase(secret)
    }

    /// What a manifest says of who can open it.
    pub fn fingerprints(&self) -> Vec<String> {
        match self {
            Lock::Recipients(all) => all.iter().map(Recipient::fingerprint).collect(),
            Lock::Passphrase(_) => vec![Encryption::PASSPHRASE.into()],
        }
    }

    /// Seals a text for those who can read the archive, too: a whole age file, in base64.
    ///
    /// # Errors
    /// When the key cannot be wrapped to a recipient.
    pub fn seal_text(&self, text: &[u8]) -> Result<String, String> {
        let recipients = self.to_age()?;
        let all = recipients.iter().map(|recipient| &**recipient);
        let sealed = age::Encryptor::with_recipients(all).map_err(|error| error.to_string())?;
        let mut out = Vec::new();
        let write = sealed.wrap_output(&mut out).and_then(|mut writer| {
            writer.write_all(text)?;
            writer.finish().map(drop)
        });
        write.map_err(|error| error.to_string())?;
        Ok(BASE64_STANDARD.encode(out))
    }

    /// Seals something to each recipient alone and reads the header back: what works now works in
    /// the next backup. Returns what was tried.
    ///
    /// # Errors
    /// With which one it does not work, and why.
    pub fn try_all(&self) -> Result<Vec<String>, String> {
        let locks: Vec<Lock> = match self {
            Lock::Recipients(all) => {
                let alone = |one: &Recipient| Lock::Recipients(vec![one.clone()]);
                all.iter().map(alone).collect()
            }
            Lock::Passphrase(_) => vec![self.clone()],
        };
        for lock in &locks {
            let who = lock.fingerprints().join(", ");
            let wrong = |why: String| format!("{who}: {why}");
            let seal = Seal::new(lock).map_err(wrong)?;
            let (mut sealed, plain) = (seal.prefix().to_vec(), b"tapline check");
            seal.seal(0, true, &[plain], &mut sealed);
            shape(&sealed[..]).map_err(|error| wrong(error.to_string()))?;
            if let Lock::Passphrase(secret) = lock {
                let mut identities = Identities::default();
                identities.add_passphrase(secret.clone());
                let mut back = Vec::new();
                let opened = opened(&sealed[..], &identities);
                let mut opened = opened.map_err(|error| wrong(error.to_string()))?;
                opened
                    .read_to_end(&mut back)
                    .map_err(|error| wrong(error.to_string()))?;
                if back != plain {
                    return Err(wrong("what was sealed does not come back".into()));
                }
            }
        }
        // All at once, as a backup does.
        Seal::new(self)?;
        Ok(self.fingerprints())
    }

    /// As the age crate takes them.
    ///
    /// # Errors
    /// When a recipient's plugin is not there.
    pub(super) fn to_age(&self) -> Result<Vec<Box<dyn age::Recipient>>, String> {
        match self {
            Lock::Recipients(all) => all.iter().map(Recipient::to_age).collect(),
            Lock::Passphrase(secret) => {
                Ok(vec![Box::new(scrypt::Recipient::new(secret.clone())) as _])
            }
        }
    }
}

/// A public key that archives can be encrypted to: `age1…`, `ssh-ed25519 …`, `ssh-rsa …`, and those
/// of age's plugins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient(String);

impl Recipient {
    /// The recipients of a file: one a line, with empty lines and lines that begin with `#`
    /// between them.
    ///
    /// # Errors
    /// The line, and what is wrong with it; nothing of what stands there.
    pub fn of_lines(text: &str) -> Result<Vec<Self>, String> {
        let lines = text.lines().map(str::trim).enumerate();
        let meant = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        meant
            .map(|(at, line)| {
                line.parse()
                    .map_err(|why| format!("line {}: {why}", at + 1))
            })
            .collect()
    }

    /// What tells it from others, in few letters that say nothing else.
    pub fn fingerprint(&self) -> String {
        let text = self.0.as_str();
        if let Some((kind, blob)) = text.split_once(' ') {
            let blob = blob.split(' ').next().unwrap_or_default();
            let blob = BASE64_STANDARD.decode(blob).unwrap_or_default();
            let digest = ring::digest::digest(&ring::digest::SHA256, &blob);
            // As `ssh-keygen -l` shows it.
            return format!("{kind} SHA256:{}", BASE64_STANDARD_NO_PAD.encode(digest));
        }
        // Behind the last 1 is the key (bech32).
        let key = text.rfind('1').map_or(0, |at| at + 1);
        text.chars().take(key + SHOWN).collect()
    }

    fn to_age(&self) -> Result<Box<dyn age::Recipient>, String> {
        parse(&self.0).map_err(str::to_owned)?.map_err(|plugin| {
            let name = plugin.plugin().to_owned();
            format!(
                "{} needs the program age-plugin-{name}, which is not in PATH",
                self.fingerprint()
            )
        })
    }
}

impl FromStr for Recipient {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        // A plugin's program may come later.
        let _ = parse(text)?;
        let comment = |text: &str| {
            let words: Vec<&str> = text.split_whitespace().take(2).collect();
            words.join(" ")
        };
        Ok(Self(comment(text)))
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A recipient; or the plugin's whose program is not there.
type Parsed = Result<Box<dyn age::Recipient>, age::plugin::Recipient>;

fn parse(text: &str) -> Result<Parsed, &'static str> {
    if text.to_ascii_uppercase().starts_with("AGE-") || text.contains("PRIVATE KEY") {
        return Err(
            "is a private key, and the host of the backups needs none: name its public key, and \
             make a new pair if others could read this one",
        );
    }
    if let Ok(known) = text.parse::<x25519::Recipient>() {
        return Ok(Ok(Box::new(known)));
    }
    if let Ok(known) = text.parse::<tag::Recipient>() {
        return Ok(Ok(Box::new(known)));
    }
    if let Ok(known) = text.parse::<tagpq::Recipient>() {
        return Ok(Ok(Box::new(known)));
    }
    if text.starts_with("ssh-") || text.starts_with("ecdsa-") || text.starts_with("sk-") {
        use ssh::ParseRecipientKeyError::{RsaModulusTooLarge, RsaModulusTooSmall};
        return match text.parse::<ssh::Recipient>() {
            Ok(known) => Ok(Ok(Box::new(known))),
            Err(RsaModulusTooLarge | RsaModulusTooSmall) => {
                Err("is an RSA key of a length that age does not take: 2048 to 4096 bits")
            }
            Err(_) => Err("is no ssh-ed25519 or ssh-rsa key, which are what age can encrypt to"),
        };
    }
    match text.parse::<age::plugin::Recipient>() {
        Ok(recipient) => {
            let (name, all) = (recipient.plugin().to_owned(), [recipient.clone()]);
            let found = RecipientPluginV1::new(&name, &all, &[], NoCallbacks);
            Ok(found
                .map(|plugin| Box::new(plugin) as _)
                .map_err(|_| recipient))
        }
        Err(_) => Err("is no public key of age: one looks like age1…, or ssh-ed25519 AAAA…"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SSH: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN alice@host";

    #[test]
    fn a_fingerprint_is_what_the_keys_own_tools_show() {
        let age = x25519::Identity::generate().to_public().to_string();
        let recipient: Recipient = age.parse().unwrap();
        let shown = recipient.fingerprint();
        assert!(age.starts_with(&shown) && shown.len() == 16, "{shown}");
        // ssh-keygen -lf
        let ssh: Recipient = SSH.parse().unwrap();
        assert_eq!(
            ssh.fingerprint(),
            "ssh-ed25519 SHA256:PYX4o9UfGwCwG76hFcLAEkmMS0PtIBtV9MNmVgW16Oc"
        );
        assert!(!ssh.to_string().contains("alice"), "{ssh}");
    }

    #[test]
    fn a_private_key_is_no_recipient_and_is_not_repeated() {
        let secret = x25519::Identity::generate();
        let secret = secrecy::ExposeSecret::expose_secret(&secret.to_string()).to_owned();
        for text in [secret.as_str(), &secret.to_lowercase()] {
            let error = text.parse::<Recipient>().unwrap_err();
            assert!(
                error.contains("private key") && !error.contains(text),
                "{error}"
            );
        }
        let error = Recipient::of_lines(&format!("# mine\n\n{secret}\n")).unwrap_err();
        assert!(error.starts_with("line 3:") && !error.contains(&secret));
        for text in [
            "",
            "age1",
            "age1qqqq",
            "shop",
            "ssh-dss AAAA",
            "ecdsa-sha2-nistp256 AAAA",
        ] {
            assert!(text.parse::<Recipient>().is_err(), "{text:?}");
        }
    }
}
