//! `tapline check`: tries everything without dumping, a line each.

use std::path::Path;

use super::exit::{Exit, Failure};
use super::text;
use crate::catalog::{BackupId, check_key};
use crate::config::Inventory;
use crate::engine;
use crate::run::plan::{access, open_stores};
use crate::store::Store;
use crate::store::s3::S3Store;

/// Prints a line for each thing tried, and remembers whether one failed.
struct Lines {
    failed: bool,
}

impl Lines {
    fn tried<T, E: std::fmt::Display>(
        &mut self,
        what: &str,
        result: Result<T, E>,
        good: impl FnOnce(T) -> String,
    ) {
        match result {
            Ok(value) => text::out(&format!("ok    {what}: {}\n", good(value))),
            Err(error) => {
                self.failed = true;
                text::out(&format!("FAIL  {what}: {error}\n"));
            }
        }
    }
}

pub(super) async fn check(config: &Path, names: &[String]) -> Result<Exit, Failure> {
    let inventory = Inventory::load(config)?;
    let databases = inventory.select(names)?;
    let mut lines = Lines { failed: false };
    lines.tried("inventory", Ok::<_, Failure>(()).map_err(|_| ""), |()| {
        format!(
            "{}, {} databases",
            inventory.path.display(),
            databases.len()
        )
    });
    for database in databases {
        let name = &database.name;
        let access = match access(database, &inventory.run, std::env::current_exe()?).await {
            Ok(access) => access,
            Err(error) => {
                lines.tried(&format!("{name} secrets"), Err::<(), _>(error), |()| {
                    String::new()
                });
                continue;
            }
        };
        let engine = engine::open(database, access);
        lines.tried(&format!("{name} tool"), engine.version().await, |version| {
            version
        });
        lines.tried(&format!("{name} login"), engine.check_login().await, |()| {
            "works".into()
        });
    }
    for (name, store) in &open_stores(&inventory).await? {
        check_store(&mut lines, name, store).await;
    }
    Ok(if lines.failed {
        Exit::Check
    } else {
        Exit::Good
    })
}

/// Puts, lists, begins and aborts under a key that no backup has.
async fn check_store(lines: &mut Lines, name: &str, store: &S3Store) {
    let id = BackupId::now();
    let key = check_key(&id);
    let put = store.put(&key, "tapline check".into()).await;
    let was_put = put.is_ok();
    lines.tried(&format!("store {name} put"), put, |()| store.address());
    lines.tried(
        &format!("store {name} list"),
        store.list(&key, None).await,
        |_| "works".into(),
    );
    if was_put {
        lines.tried(
            &format!("store {name} delete"),
            store.delete(&key).await,
            |()| "works".into(),
        );
    }
    let upload = async {
        let upload = store.create_upload(&key, id.as_str()).await?;
        store.abort_upload(&upload).await
    };
    lines.tried(
        &format!("store {name} multipart upload"),
        upload.await,
        |()| "begins and aborts".into(),
    );
    match store.aborts_incomplete_uploads().await {
        Some(true) => text::out(&format!(
            "ok    store {name} lifecycle: aborts incomplete uploads\n"
        )),
        Some(false) => text::out(&format!(
            "warn  store {name} lifecycle: no rule aborts incomplete uploads; after a crash they cost money until they are aborted\n"
        )),
        None => text::out(&format!(
            "warn  store {name} lifecycle: the bucket does not say whether incomplete uploads are aborted\n"
        )),
    }
}
