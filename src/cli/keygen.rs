//! `tapline keygen`: a pair of keys for encrypted backups.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jiff::Timestamp;

use super::args::KeygenOptions;
use super::console;
use super::exit::{Exit, Failure};
use crate::cipher::NewIdentity;
use crate::signature::new_signer;

pub(super) fn keygen(options: &KeygenOptions) -> Result<Exit, Failure> {
    if options.signing {
        return signing(options.output.as_deref());
    }
    let pair = NewIdentity::generate();
    let made = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let private = pair.to_file(&made);
    let line = format!("encrypt_to = [\"{}\"]\n", pair.recipient());
    match &options.output {
        None => {
            console::out(&private);
            console::aside(&line);
        }
        Some(path) => {
            write_new(path, private.as_bytes())?;
            console::aside(&format!(
                "{} holds the private key: keep it, and a copy, where the backups are not; whoever \
                 has it reads them, and nobody without it\nin the inventory, under [defaults] or a \
                 database:\n",
                path.display()
            ));
            console::out(&line);
        }
    }
    Ok(Exit::Good)
}

fn signing(output: Option<&Path>) -> Result<Exit, Failure> {
    let (private, public) =
        new_signer().map_err(|why| Failure::new(Exit::Failed, why).step("keygen"))?;
    let trusted = format!("trusted_signers = [\"{public}\"]\n");
    let Some(path) = output else {
        console::out(&private);
        console::aside(&trusted);
        return Ok(Exit::Good);
    };
    write_new(path, private.as_bytes())?;
    console::aside(&format!(
        "{} holds the private key, for the host that makes backups alone\nin the inventory, under \
         [signatures]; the second line where backups are read, too:\n",
        path.display()
    ));
    let file = toml::Value::from(path.display().to_string());
    console::out(&format!("sign_with = {{ file = {file} }}\n{trusted}"));
    Ok(Exit::Good)
}

/// Writes a file that was not there and that only its owner may read.
fn write_new(path: &Path, text: &[u8]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        let why = match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                "it exists, and a key that is lost is lost data: nothing was done".into()
            }
            _ => error.to_string(),
        };
        Failure::new(Exit::Failed, format!("{}: {why}", path.display())).step("keygen")
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    file.write_all(text)
        .and_then(|()| file.sync_all())
        .map_err(failed)
}
