//! Who reads: private keys from files, as age and ssh keep them, or a passphrase.
//!
//! A key's text is erased from memory when it has been read; the keys themselves erase what they
//! hold when they go.

use std::fmt;
use std::io::{BufReader, Cursor};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use age::armor::ArmoredReader;
use age::encrypted::EncryptedIdentity;
use age::secrecy::ExposeSecret;
use age::{Callbacks, DecryptError, Decryptor, IdentityFile, scrypt, ssh, x25519};
use age_core::format::{FileKey, Stanza};
use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::core_dump;

/// A passphrase may have been stretched on a faster machine than this: up to 2 to this many rounds,
/// a minute and 4 GiB.
const MOST_WORK: u8 = 22;
/// A file with keys is some hundred bytes long.
const LONGEST: u64 = 1 << 20;

/// How a person is asked for a passphrase: gets what for, gives it, or `None` where nobody is there.
#[derive(Clone)]
pub struct Ask(pub Arc<Question>);

type Question = dyn Fn(&str) -> Option<SecretString> + Send + Sync;

impl Ask {
    /// Nobody is there.
    pub fn nobody() -> Self {
        Self(Arc::new(|_| None))
    }

    /// The same, and what was given is remembered.
    fn once(&self) -> Self {
        let (question, given) = (self.0.clone(), OnceLock::new());
        Self(Arc::new(move |what| {
            let given: &Option<SecretString> = given.get_or_init(|| question(what));
            given.clone()
        }))
    }
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ask")
    }
}

impl Callbacks for Ask {
    fn display_message(&self, message: &str) {
        tracing::info!("{message}");
    }

    fn confirm(&self, _: &str, _: &str, _: Option<&str>) -> Option<bool> {
        None
    }

    fn request_public_string(&self, _: &str) -> Option<String> {
        None
    }

    fn request_passphrase(&self, description: &str) -> Option<SecretString> {
        let given = (self.0)(description);
        if given.is_none() {
            tracing::warn!(
                "a key stays locked, because no terminal is there to ask: {description}"
            );
        }
        given
    }
}

/// Keys to open archives with.
#[derive(Default)]
pub struct Identities(Vec<Box<dyn age::Identity + Send + Sync>>);

impl Identities {
    /// Adds those of a file: of `age-keygen` and `tapline keygen`, also behind a passphrase
    /// (`age -p`), a plugin's, or a private key of ssh.
    ///
    /// # Errors
    /// What is wrong with the file; nothing of what is in it.
    pub fn add_file(&mut self, path: &Path, ask: &Ask) -> Result<(), String> {
        core_dump::forbid();
        let wrong = |why: &dyn fmt::Display| format!("{}: {why}", path.display());
        let text = read(path).map_err(|error| wrong(&error))?;
        let name = path.display().to_string();
        let begins = |with: &str| text.trim_ascii_start().starts_with(with.as_bytes());
        if begins("age-encryption.org/") || begins("-----BEGIN AGE ENCRYPTED FILE") {
            let armored = ArmoredReader::new(Cursor::new(&text[..]));
            let locked = Decryptor::new(armored).map_err(|error| wrong(&error))?;
            let locked = EncryptedIdentity::new(locked, ask.clone(), Some(MOST_WORK))
                .ok_or_else(|| wrong(&"is encrypted, and not with a passphrase"))?;
            let file = locked.decrypt(Some(&name)).map_err(|error| wrong(&error))?;
            let keys = file.into_identities().map_err(|error| wrong(&error))?;
            self.0.extend(keys);
            return Ok(());
        }
        if begins("-----BEGIN") {
            let key = ssh::Identity::from_buffer(BufReader::new(&text[..]), Some(name.clone()))
                .map_err(|error| wrong(&error))?;
            if let ssh::Identity::Unsupported(_) = key {
                return Err(wrong(&"is a kind of ssh key that age does not take"));
            }
            // It is unlocked whenever an archive is opened, and a person asked once.
            self.0.push(Box::new(key.with_callbacks(ask.once())));
            return Ok(());
        }
        let none = "holds no key: a private key of age begins with AGE-SECRET-KEY-1";
        let file = IdentityFile::from_buffer(&text[..]).map_err(|_| wrong(&none))?;
        let keys = file
            .with_callbacks(ask.clone())
            .into_identities()
            .map_err(|error| wrong(&error))?;
        if keys.is_empty() {
            return Err(wrong(&none));
        }
        self.0.extend(keys);
        Ok(())
    }

    /// Adds a passphrase.
    pub fn add_passphrase(&mut self, passphrase: SecretString) {
        core_dump::forbid();
        let mut identity = scrypt::Identity::new(passphrase);
        identity.set_max_work_factor(MOST_WORK);
        self.0.push(Box::new(identity));
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// All of them as one: what one cannot open, another may.
impl age::Identity for Identities {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        self.unwrap_stanzas(std::slice::from_ref(stanza))
    }

    fn unwrap_stanzas(&self, stanzas: &[Stanza]) -> Option<Result<FileKey, DecryptError>> {
        let mut failed = None;
        for identity in &self.0 {
            match identity.unwrap_stanzas(stanzas) {
                Some(Ok(key)) => return Some(Ok(key)),
                Some(Err(error)) => failed = Some(Err(error)),
                None => {}
            }
        }
        failed
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} identities", self.0.len())
    }
}

fn read(path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    use std::io::Read;
    let file = std::fs::File::open(path)?;
    // At once in its final size: a buffer that grows leaves copies behind.
    let length = file.metadata()?.len().min(LONGEST);
    let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1));
    file.take(LONGEST).read_to_end(&mut text)?;
    Ok(text)
}

/// A new pair of keys.
pub struct NewIdentity(x25519::Identity);

impl NewIdentity {
    /// Of the system's randomness.
    pub fn generate() -> Self {
        core_dump::forbid();
        Self(x25519::Identity::generate())
    }

    /// The public half.
    pub fn recipient(&self) -> String {
        self.0.to_public().to_string()
    }

    /// The file that holds the private half, as `age-keygen` writes it.
    pub fn to_file(&self, made: &str) -> Zeroizing<String> {
        let secret = self.0.to_string();
        Zeroizing::new(format!(
            "# created: {made}\n# public key: {}\n{}\n",
            self.recipient(),
            secret.expose_secret()
        ))
    }
}
