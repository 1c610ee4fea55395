//! Who else may read or change the files that an inventory is made of. An inventory names commands
//! that run: whoever may write it, runs them as whoever backs up.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::{Address, Inventory, LockFrom, Secret, SecretFrom};

const OTHERS_WRITE: u32 = 0o002;
const OTHERS_READ: u32 = 0o004;
/// In such a folder (as `/tmp`) only its owner replaces a file.
const STICKY: u32 = 0o1000;

/// What is more open than it should be, in words with the command that closes it.
pub(super) fn warnings(inventory: &Inventory) -> Vec<String> {
    let mut warnings = Vec::new();
    let path = &inventory.path;
    if mode(path).is_some_and(|mode| mode & OTHERS_WRITE != 0) {
        warnings.push(format!(
            "{0} can be written by everybody, and it names commands that run: chmod o-w {0}",
            path.display()
        ));
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    if mode(folder).is_some_and(|mode| mode & OTHERS_WRITE != 0 && mode & STICKY == 0) {
        warnings.push(format!(
            "{0} can be written by everybody, so that anybody can replace {1}: chmod o-w {0}",
            folder.display(),
            path.display()
        ));
    }
    for secret in secrets(inventory) {
        if let SecretFrom::File(file) = &secret.from
            && mode(file).is_some_and(|mode| mode & (OTHERS_READ | OTHERS_WRITE) != 0)
        {
            let warning = format!(
                "{}: {1} can be read by everybody: chmod o-rw {1}",
                secret.place,
                file.display()
            );
            // One file may be the secret of many entries.
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
    }
    warnings
}

fn secrets(inventory: &Inventory) -> impl Iterator<Item = &Secret> {
    let of_stores = inventory
        .stores
        .values()
        .filter_map(|store| store.keys())
        // An access key alone opens nothing.
        .flat_map(|keys| [Some(&keys.secret), keys.session.as_ref()])
        .flatten();
    let of_databases = inventory.databases.iter().flat_map(|database| {
        let lock = database
            .encryption
            .as_ref()
            .map(|encryption| &encryption.lock);
        let passphrase = lock.and_then(|lock| match lock {
            LockFrom::Passphrase(secret) => Some(secret),
            LockFrom::Recipients(_) => None,
        });
        let password = database.password.iter();
        password.chain(database.env.values()).chain(passphrase)
    });
    let notify = &inventory.notify;
    let addresses = notify.ping.iter().chain(&notify.webhook);
    let of_notices = addresses.filter_map(|address| match address {
        Address::Secret(secret) => Some(secret),
        Address::Text(_) => None,
    });
    let of_headers = notify.headers.iter().map(|(_, secret)| secret);
    let login = notify.email.iter().filter_map(|mail| mail.login.as_ref());
    let of_mail = login.map(|(_, password)| password);
    of_stores
        .chain(&inventory.signatures.sign_with)
        .chain(of_databases)
        .chain(of_notices)
        .chain(of_headers)
        .chain(of_mail)
}

/// Its mode, when it is a regular file or a folder: `/dev/stdin`, or a pipe of a shell, is nobody's.
fn mode(path: &Path) -> Option<u32> {
    let meta = std::fs::metadata(path).ok()?;
    let open = meta.is_file() || meta.is_dir();
    (open && meta.nlink() > 0).then(|| meta.permissions().mode())
}
