//! `tapline demo`: the main job on a fresh machine, with everything it needs inside this binary. An
//! S3 server on loopback, sample SQLite databases, a real backup of them, and the archives read
//! back with an ordinary tar reader.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use async_compression::tokio::bufread::GzipDecoder;
use futures_util::StreamExt;
use rusqlite::Connection;
use tokio::io::AsyncReadExt;

use super::args::{BackupOptions, ListOptions};
use super::console::out;
use super::exit::{Exit, Failure};
use super::text::size;
use super::{Session, backup, list};
use crate::s3_server::{ACCESS_KEY, S3Server, SECRET_KEY};
use crate::store::memory::MemoryStore;

/// The sample databases and how many orders each holds; some tens of MB in all.
const SAMPLES: [(&str, u32); 3] = [("shop", 160_000), ("events", 90_000), ("archive", 40_000)];

pub(super) async fn demo(session: &mut Session) -> Result<Exit, Failure> {
    let folder = tempfile::tempdir()?;
    let server = S3Server::start(false).await?;
    out(&format!(
        "# An S3 server in memory: {}\n# Sample databases in {}\n",
        server.endpoint(),
        folder.path().display()
    ));
    for (name, rows) in SAMPLES {
        let path = folder.path().join(format!("{name}.db"));
        let made = tokio::task::spawn_blocking(move || make(&path, rows))
            .await
            .map_err(std::io::Error::other)?;
        made.map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot make {name}.db: {error}"))
        })?;
    }
    let config = folder.path().join("tapline.toml");
    for (name, key) in [("access", ACCESS_KEY), ("secret", SECRET_KEY)] {
        let path = folder.path().join(name);
        std::fs::write(&path, key)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    }
    let mut inventory = format!(
        "[stores.demo]\nurl = \"s3://demo/backups\"\nendpoint = \"{}\"\nregion = \"us-east-1\"\n\
         access_key = {{ file = \"access\" }}\nsecret_key = {{ file = \"secret\" }}\n\n[defaults]\nengine = \"sqlite\"\n",
        server.endpoint()
    );
    for (name, _) in SAMPLES {
        inventory += &format!("\n[databases.{name}]\npath = \"{name}.db\"\n");
    }
    std::fs::write(&config, inventory)?;

    out(&format!(
        "\n$ cd {}\n$ tapline backup\n",
        folder.path().display()
    ));
    session.config = config;
    let backed_up = backup::backup(session, &BackupOptions::default()).await?;
    if backed_up != Exit::Good {
        return Ok(backed_up);
    }
    out("\n$ tapline list\n");
    list::list(session, &ListOptions::default()).await?;

    out("\n# Each archive, read with a tar reader that knows nothing of tapline:\n");
    let mut all_equal = true;
    for key in server
        .store()
        .keys()
        .into_iter()
        .filter(|key| key.ends_with(".tar.gz"))
    {
        out(&format!(
            "$ aws s3 cp s3://demo/{key} - | tar xzO | cmp - NAME.db\n"
        ));
        let (name, length, equal) = compare(server.store(), &key, folder.path()).await?;
        all_equal &= equal;
        out(&format!(
            "  {name}: {}, {}\n",
            size(length),
            if equal {
                "equal byte for byte"
            } else {
                "DIFFERENT"
            }
        ));
    }
    out(if all_equal {
        "\nThe demo is over; everything it made is gone.\n"
    } else {
        "\nSomething is wrong.\n"
    });
    Ok(if all_equal { Exit::Good } else { Exit::Failed })
}

/// Rows like a shop's; the file is closed, so its bytes are the whole database.
fn make(path: &Path, rows: u32) -> rusqlite::Result<()> {
    const WORDS: [&str; 12] = [
        "order", "invoice", "payment", "express", "street", "berlin", "jakarta", "pending",
        "refund", "gift", "courier", "stock",
    ];
    let mut random = fastrand::Rng::with_seed(u64::from(rows));
    let mut connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    let rows_in = connection.transaction()?;
    rows_in.execute_batch(
        "create table orders (id integer primary key, customer int, amount real, note text, ref blob)",
    )?;
    {
        let mut insert = rows_in.prepare("insert into orders values (?1, ?2, ?3, ?4, ?5)")?;
        for id in 0..rows {
            let note: Vec<&str> = (0..random.usize(6..20))
                .map(|_| WORDS[random.usize(..WORDS.len())])
                .collect();
            let reference = random.u128(..).to_be_bytes();
            insert.execute((
                id,
                random.u32(..500_000),
                random.f64() * 1e4,
                note.join(" "),
                &reference[..],
            ))?;
        }
    }
    rows_in.execute_batch("create index by_customer on orders (customer)")?;
    rows_in.commit()
}

/// Reads an archive back and compares its one file with the database that it was made from.
async fn compare(
    store: &MemoryStore,
    key: &str,
    folder: &Path,
) -> Result<(String, u64, bool), Failure> {
    let archive = store
        .read(key)
        .ok_or_else(|| Failure::new(Exit::Failed, format!("{key} is gone")))?;
    let mut tar = tokio_tar::Archive::new(GzipDecoder::new(&archive[..]));
    let mut entries = tar.entries()?;
    let mut dump = match entries.next().await {
        Some(entry) => entry?,
        None => return Err(Failure::new(Exit::Failed, format!("{key} is empty"))),
    };
    let name = dump.path()?.display().to_string();
    let mut image = Vec::new();
    dump.read_to_end(&mut image).await?;
    let original = std::fs::read(folder.join(&name))?;
    Ok((
        name,
        image.len() as u64,
        image == original && entries.next().await.is_none(),
    ))
}
