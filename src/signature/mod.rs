//! Manifests that nobody else can write: signed by a key of the host that makes the backups, in
//! minisign's format, so that stock `minisign` checks them: `manifest.json.minisig`, put before the
//! manifest that it is of.
//!
//! A manifest says what its backup is: whose, when, under which name and id, the volumes with sizes
//! and digests, the digests of what is in them. So its signature is one of all that, and a backup
//! cannot be edited, or passed off under another name, id or date. What no signature tells is
//! whether the newest backup that is there is the newest that was made.

use std::fmt;
use std::io::Cursor;

use base64::prelude::{BASE64_STANDARD, Engine};
use minisign::{KeyPair, PublicKey, SecretKey, SignatureBox};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::core_dump;

/// Length of an ed25519 signature, in bytes.
const SIGNATURE: usize = 64;

/// A key that signs.
#[derive(Debug, Clone)]
pub struct Signer {
    key: SecretString,
    public: SignerName,
}

impl Signer {
    /// The key of a file of `minisign -G -W` or `tapline keygen --signing`.
    ///
    /// # Errors
    /// What is wrong with it; nothing of what is in it.
    pub fn new(file: SecretString) -> Result<Self, String> {
        core_dump::forbid();
        let key = secret_key(&file)?;
        let public = PublicKey::from_secret_key(&key)
            .map_err(|_| "holds no key that minisign has made".to_owned())?;
        Ok(Self {
            key: file,
            public: SignerName(public.to_base64()),
        })
    }

    /// Its public half.
    pub fn public(&self) -> &SignerName {
        &self.public
    }

    /// Signs, with a comment that is signed, too.
    ///
    /// # Errors
    /// When that fails, which no text makes it do.
    pub fn sign(&self, text: &[u8], comment: &str) -> Result<String, String> {
        let key = secret_key(&self.key)?;
        let untrusted = format!("signature of a tapline manifest, by {}", self.public);
        let public = PublicKey::from_secret_key(&key).map_err(|error| error.to_string())?;
        let signed = minisign::sign(
            Some(&public),
            &key,
            Cursor::new(text),
            Some(comment),
            Some(&untrusted),
        );
        let signed = signed.map_err(|error| format!("signing failed: {error}"))?;
        Ok(signed.into_string())
    }
}

/// The key of a file. Its checksum is not looked at: stock minisign leaves it out where there is no
/// passphrase. A key that is damaged is found out by its first signature.
fn secret_key(file: &SecretString) -> Result<SecretKey, String> {
    let line = file.expose_secret().lines().nth(1).unwrap_or_default();
    let bytes = Zeroizing::new(BASE64_STANDARD.decode(line.trim()).unwrap_or_default());
    let key = SecretKey::from_bytes(&bytes).ok();
    // Algorithm Ed, and no passphrase.
    let key = key.filter(|_| bytes.starts_with(b"Ed\0\0"));
    key.ok_or_else(|| {
        "holds no signing key: one is made by `tapline keygen --signing`, or by `minisign -G -W`, \
         without a passphrase"
            .into()
    })
}

/// A public key that signatures are checked with, as `minisign` prints it: `RWQ…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignerName(String);

impl std::str::FromStr for SignerName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        match PublicKey::from_base64(text) {
            Ok(_) if text.starts_with("RW") => Ok(Self(text.to_owned())),
            _ => Err("is no public key of minisign: one is 56 letters that begin with RW"),
        }
    }
}

impl fmt::Display for SignerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who may sign; nobody needs to when there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedSigners(pub Vec<SignerName>);

impl TrustedSigners {
    /// Whether signatures are not asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks that one of them has signed a text.
    ///
    /// # Errors
    /// In words, why not.
    pub fn check(&self, text: &[u8], signature: &[u8]) -> Result<(), String> {
        let damaged = || "its signature is damaged".to_owned();
        let signature = str::from_utf8(signature).map_err(|_| damaged())?;
        // The crate takes the length of the comment's for granted.
        let of_comment = signature.lines().nth(3).unwrap_or_default().trim();
        if !BASE64_STANDARD
            .decode(of_comment)
            .is_ok_and(|bytes| bytes.len() == SIGNATURE)
        {
            return Err(damaged());
        }
        let lines = |text: &str| -> Vec<String> {
            let lines = text.lines().skip(1).take(3);
            lines.map(|line| line.trim().to_owned()).collect()
        };
        let written = lines(signature);
        let signature = SignatureBox::from_string(signature).map_err(|_| damaged())?;
        // One signature is written in one way.
        if lines(&signature.to_string()) != written {
            return Err(damaged());
        }
        let known = self
            .0
            .iter()
            .filter_map(|name| PublicKey::from_base64(&name.0).ok());
        let Some(signer) = known
            .into_iter()
            .find(|key| key.keynum() == signature.keynum())
        else {
            let number = signature
                .keynum()
                .iter()
                .rev()
                .map(|byte| format!("{byte:02X}"));
            return Err(format!(
                "it is signed by the key {}, which is none of trusted_signers",
                number.collect::<String>()
            ));
        };
        minisign::verify(&signer, &signature, Cursor::new(text), true, false, false).map_err(|_| {
            "its signature is not of it: it was changed, or another's was put beside it".into()
        })
    }
}

/// A new key: its file, and its public half.
///
/// # Errors
/// When the system gives no randomness.
pub fn new_signer() -> Result<(Zeroizing<String>, SignerName), String> {
    core_dump::forbid();
    let failed = |error: minisign::PError| error.to_string();
    let KeyPair { pk, sk } = KeyPair::generate_unencrypted_keypair().map_err(failed)?;
    let file = sk.to_box(Some("signing key of tapline, minisign's format"));
    let file = file.map_err(failed)?.into_string();
    Ok((Zeroizing::new(file), SignerName(pk.to_base64())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> Signer {
        let (file, public) = new_signer().unwrap();
        let signer = Signer::new(SecretString::from(file.as_str())).unwrap();
        assert_eq!(*signer.public(), public);
        signer
    }

    #[test]
    fn what_was_signed_by_somebody_trusted_is_taken_and_nothing_else() {
        let (ours, others) = (signer(), signer());
        let trusted = TrustedSigners(vec![others.public().clone(), ours.public().clone()]);
        let signed = ours.sign(b"text", "tapline shop@1").unwrap();
        assert_eq!(trusted.check(b"text", signed.as_bytes()), Ok(()));
        let alone = TrustedSigners(vec![others.public().clone()]);
        let error = alone.check(b"text", signed.as_bytes()).unwrap_err();
        assert!(error.contains("none of trusted_signers"), "{error}");
        let error = trusted.check(b"texT", signed.as_bytes()).unwrap_err();
        assert!(error.contains("not of it"), "{error}");
        // The comment is signed, too.
        let renamed = signed.replace("shop@1", "shop@2");
        assert!(trusted.check(b"text", renamed.as_bytes()).is_err());
    }

    #[test]
    fn a_signature_with_any_byte_changed_or_cut_is_refused_and_nothing_panics() {
        let ours = signer();
        let trusted = TrustedSigners(vec![ours.public().clone()]);
        let signed = ours.sign(b"text", "comment").unwrap().into_bytes();
        let after_comment = signed.iter().position(|byte| *byte == b'\n').unwrap();
        for at in 0..signed.len() {
            let _ = trusted.check(b"text", &signed[..at]);
            for bit in 0..8 {
                let mut forged = signed.clone();
                forged[at] ^= 1 << bit;
                let checked = trusted.check(b"text", &forged);
                // The first line is for people; a line's end may be another white space.
                let means_nothing = at <= after_comment || signed[at] == b'\n';
                assert!(
                    checked.is_err() || means_nothing,
                    "byte {at}: {}",
                    String::from_utf8_lossy(&forged)
                );
            }
        }
        for text in [
            "",
            "\n\n\n\n",
            "untrusted comment: x\nAAAA\ntrusted comment: x\nAAAA\n",
        ] {
            assert!(trusted.check(b"text", text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        for text in ["", "hunter2", "untrusted comment: x\nhunter2\n"] {
            let error = Signer::new(text.into()).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!("RWQ".parse::<SignerName>().is_err());
        assert!("X".repeat(56).parse::<SignerName>().is_err());
        assert!(!format!("{:?}", signer()).contains("RWRTYDEw"));
    }
}
