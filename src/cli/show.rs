//! `tapline show`: what one backup is, and how to read it without this program.

use super::args::ShowOptions;
use super::exit::{Exit, Failure};
use super::{Session, console, text};
use crate::access::open_patient_stores;
use crate::archive::Compression;
use crate::catalog::{Manifest, Mode, backup_prefix, look_up, read_manifest_text};
use crate::dump::quote;

pub(super) async fn show(session: &mut Session, options: &ShowOptions) -> Result<Exit, Failure> {
    let inventory = session.inventory_or(&options.from)?;
    let work = async {
        let stores = open_patient_stores(&inventory, options.store.as_deref()).await?;
        let copies = inventory.stores_of(&options.name.database);
        let trusted = &inventory.signatures.trusted;
        let named = look_up(&stores, copies, &options.name, trusted).await?;
        let Manifest {
            database,
            backup_id,
            ..
        } = &named.manifest;
        let text = if options.json {
            Some(read_manifest_text(&*named.store, database, backup_id).await?)
        } else {
            None
        };
        Ok((named, text))
    };
    let (named, as_it_is) = session.signals.unless(work).await?;
    if let Some(text) = as_it_is {
        console::out(&String::from_utf8_lossy(&text));
        return Ok(Exit::Good);
    }
    let settings = inventory.stores.get(&named.called);
    let endpoint = settings.and_then(|store| store.endpoint());
    console::out(&describe(&named.manifest, &named.store.address(), endpoint));
    Ok(Exit::Good)
}

/// The manifest, for people.
fn describe(manifest: &Manifest, address: &str, endpoint: Option<&str>) -> String {
    let Manifest {
        database,
        backup_id,
        archive,
        ..
    } = manifest;
    let seconds = manifest
        .finished
        .duration_since(manifest.started)
        .as_secs_f64();
    let mode = match manifest.mode {
        Mode::Streamed => "streamed",
        Mode::Staged => "staged",
    };
    let compression = match archive.compression {
        Compression::Gzip => "gzip",
        Compression::Zstd => "zstd",
        Compression::None => "not compressed",
    };
    let size = archive.size;
    let (dump, ratio) = match manifest.dump_size() {
        Some(dump) => (
            text::size(dump),
            format!(", ratio {}", text::ratio(dump, size)),
        ),
        None => ("not told: it is encrypted".into(), String::new()),
    };
    let in_files = manifest.parallel.map_or(String::new(), |parallel| {
        let sessions = text::count(parallel.sessions, "session");
        let files = usize::try_from(parallel.files).unwrap_or(usize::MAX);
        format!(
            ", by {sessions}, {} that are one script",
            text::count(files, "file")
        )
    });
    let facts = [
        ("backup", format!("{database}@{backup_id}")),
        (
            "store",
            format!("{address}/{}", backup_prefix(database, backup_id)),
        ),
        (
            "begun",
            format!(
                "{} UTC, {mode} in {}",
                text::begun(backup_id),
                text::time(seconds)
            ),
        ),
        (
            "engine",
            format!("{}, format {}", manifest.engine, manifest.dump_format),
        ),
        ("tool", manifest.tool.clone()),
        ("dump", dump + &in_files),
        (
            "archive",
            format!(
                "{}, {}, {compression}{ratio}",
                text::size(size),
                archive.container
            ),
        ),
        ("written by", format!("tapline {}", manifest.tapline)),
    ];
    let mut shown = String::new();
    let warnings = (manifest.warnings > 0).then(|| ("warnings", manifest.warnings.to_string()));
    for (name, value) in facts.into_iter().chain(warnings) {
        shown += &format!("{name:<12}{value}\n");
    }
    if let (Some(encryption), Some(needed)) = (&archive.encryption, manifest.needed_key()) {
        shown += &format!(
            "{:<12}{}, opened by {needed}\n",
            "encrypted", encryption.format
        );
        let names = match encryption.files {
            Some(_) => manifest.file_names().join(", "),
            None => "hidden".into(),
        };
        shown += &format!("{:<12}{names}\n", "files");
    }
    let entries = manifest.entries.iter();
    let entries = entries.map(|entry| {
        [
            entry.name.clone(),
            entry.size.to_string(),
            entry.sha256.clone(),
        ]
    });
    if archive.encryption.is_none() {
        shown += &format!("\n{}", text::table(["FILE", "BYTES", "SHA-256"], entries));
    }
    let volumes = archive.volumes.iter();
    let volumes = volumes.map(|volume| {
        [
            volume.name.clone(),
            volume.size.to_string(),
            volume.parts.to_string(),
            volume.crc64nvme.clone(),
        ]
    });
    shown += &format!(
        "\n{}",
        text::table(["VOLUME", "BYTES", "PARTS", "CRC-64/NVME"], volumes)
    );
    shown
        + &format!(
            "\nTo read it without tapline:\n{}\n",
            by_hand(manifest, address, endpoint)
        )
}

/// The command line that fetches the archive and unpacks its one file, or all of several into the
/// current folder.
fn by_hand(manifest: &Manifest, address: &str, endpoint: Option<&str>) -> String {
    let endpoint = endpoint
        .map(|url| format!(" --endpoint-url {}", quote(url)))
        .unwrap_or_default();
    let fetch = |key| {
        let object = format!("{address}/{key}");
        match object.strip_prefix("file://") {
            Some(path) => format!("cat {}", quote(path)),
            None => format!("aws s3 cp{endpoint} {} -", quote(&object)),
        }
    };
    let commands: Vec<String> = manifest.volume_keys().map(fetch).collect();
    let mut archive = match commands.as_slice() {
        [one] => one.clone(),
        several => format!("({})", several.join("; ")),
    };
    match &manifest.archive.encryption {
        None => {}
        // It asks for the passphrase.
        Some(encryption) if encryption.is_by_passphrase() => archive += " | age -d",
        Some(_) => archive += " | age -d -i key.txt",
    }
    let how = match manifest.archive.compression {
        Compression::Gzip => "xz",
        Compression::Zstd => "--zstd -x",
        Compression::None => "x",
    };
    match (
        manifest.archive.container.as_str(),
        manifest.file_names().as_slice(),
    ) {
        ("tar", [one]) => format!("{archive} | tar {how}O > {}", quote(one)),
        ("tar", _) if manifest.parallel.is_some() => format!("{archive} | tar {how}O > dump.sql"),
        ("tar", _) => format!("{archive} | tar {how}"),
        (container, _) => format!("{archive} > archive.{container}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Entry, Volume};

    #[test]
    fn a_backup_can_be_read_by_hand() {
        let mut manifest = Manifest::sample("it's", &"20260101T000000Z-aaaaaa".parse().unwrap());
        let folder = "s3://b/p/it%27s/20260101T000000Z-aaaaaa";
        assert_eq!(
            by_hand(&manifest, "s3://b/p", None),
            format!("aws s3 cp {folder}/x.tar.gz - | tar xzO > x")
        );
        assert_eq!(
            by_hand(&manifest, "file:///mnt/b", None),
            "cat /mnt/b/it%27s/20260101T000000Z-aaaaaa/x.tar.gz | tar xzO > x"
        );

        manifest.archive.compression = Compression::Zstd;
        manifest.entries[0].name = "it's".into();
        manifest.archive.volumes.push(Volume {
            name: "x.v002".into(),
            ..manifest.archive.volumes[0].clone()
        });
        let expected = format!(
            "(aws s3 cp --endpoint-url http://h:9 {folder}/x.tar.gz -; aws s3 cp --endpoint-url http://h:9 {folder}/x.v002 -) \
             | tar --zstd -xO > 'it'\\''s'"
        );
        assert_eq!(by_hand(&manifest, "s3://b/p", Some("http://h:9")), expected);

        manifest.entries.push(Entry {
            name: "y".into(),
            ..manifest.entries[0].clone()
        });
        assert!(by_hand(&manifest, "s3://b/p", None).ends_with(" | tar --zstd -x"));
    }
}
