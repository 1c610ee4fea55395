//! What opens encrypted backups, from where the command line and the inventory say.

use std::path::PathBuf;
use std::sync::Arc;

use secrecy::SecretString;
use tokio::task::spawn_blocking;

use super::args::KeyOptions;
use super::exit::{Exit, Failure};
use super::{Session, terminal};
use crate::catalog::{Encryption, Manifest};
use crate::cipher::{Ask, Identities};
use crate::config::{Inventory, LockFrom, Secret, SecretFrom};

/// Gets the keys for backups with these manifests; none when nobody needs one, or none is there.
/// Asks on a terminal, if there is one.
pub(super) async fn identities(
    session: &mut Session,
    inventory: &Inventory,
    options: &KeyOptions,
    manifests: impl Iterator<Item = &Manifest>,
) -> Result<Arc<Identities>, Failure> {
    let sealed: Vec<_> = manifests
        .filter_map(|manifest| Some((manifest, manifest.archive.encryption.as_ref()?)))
        .collect();
    if sealed.is_empty() {
        return Ok(Arc::default());
    }
    let by_passphrase = |(_, encryption): &&(_, &Encryption)| encryption.is_by_passphrase();
    let mut secrets = given(options).into_iter().collect::<Vec<_>>();
    if secrets.is_empty() {
        // A host that locks with a passphrase has it.
        let entries = sealed.iter().filter(by_passphrase);
        let entries = entries.filter_map(|(manifest, _)| inventory.entry(&manifest.database));
        for entry in entries {
            if let Some(LockFrom::Passphrase(secret)) =
                entry.encryption.as_ref().map(|encryption| &encryption.lock)
                && !secrets.contains(secret)
            {
                secrets.push(secret.clone());
            }
        }
    }
    let asks = secrets.is_empty() && sealed.iter().any(|one| by_passphrase(&one));
    let (limit, files) = (inventory.run.connect_timeout, options.identity.clone());
    let work = async {
        let mut passphrases = Vec::new();
        for secret in &secrets {
            passphrases.push(secret.resolve(limit).await?);
        }
        let read = spawn_blocking(move || read(files, passphrases, asks)).await;
        let read = read.map_err(std::io::Error::other)?;
        read.map_err(|why| Failure::new(Exit::Config, why).step("identity"))
    };
    Ok(Arc::new(session.signals.unless(work).await?))
}

/// The passphrase that the command line names.
fn given(options: &KeyOptions) -> Option<Secret> {
    let (from, flag) = match (&options.passphrase_env, &options.passphrase_file) {
        (Some(name), _) => (SecretFrom::Env(name.clone()), "--passphrase-env"),
        (None, Some(path)) => (SecretFrom::File(path.clone()), "--passphrase-file"),
        (None, None) => return None,
    };
    let place = flag.into();
    Some(Secret { from, place })
}

fn read(
    files: Vec<PathBuf>,
    passphrases: Vec<SecretString>,
    asks: bool,
) -> Result<Identities, String> {
    let mut identities = Identities::default();
    let ask = Ask(Arc::new(terminal::ask));
    for file in files {
        identities
            .add_file(&file, &ask)
            .map_err(|why| format!("--identity {why}"))?;
    }
    for passphrase in passphrases {
        identities.add_passphrase(passphrase);
    }
    if asks && let Some(passphrase) = terminal::ask("Passphrase of the backup") {
        identities.add_passphrase(passphrase);
    }
    Ok(identities)
}
