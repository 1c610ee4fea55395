//! `[stores.NAME]`: a bucket and prefix, or a folder.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use toml::Spanned;

use super::place::{File, Result};
use super::{Database, StoreKeys, StoreSettings, raw};
use crate::catalog::{BackupId, Retention, archive_key, volume_name};
use crate::store::folder::{FolderSettings, LONGEST_NAME};
use crate::store::s3::{LockMode, ObjectLock, Profile, S3Settings, Timeouts, endpoint_flaw};
use crate::store::{ChecksumKind, Limits};

/// More parts of one backup at once than any network between two machines needs.
const MOST_CONNECTIONS: u32 = 256;

/// What must not be the same of two stores.
pub(super) fn place_of(store: &StoreSettings) -> (Option<&str>, String, &str) {
    match store {
        StoreSettings::S3 { s3, .. } => (
            s3.endpoint
                .as_deref()
                .map(|endpoint| endpoint.trim_end_matches('/')),
            s3.bucket.clone(),
            &s3.prefix,
        ),
        StoreSettings::Folder(folder) => (
            Some("file:"),
            folder.root.display().to_string(),
            &folder.prefix,
        ),
    }
}

/// S3 takes keys of 1,024 bytes, and a name is in a key twice, percent-encoded. File systems take
/// names of 255.
pub(super) fn keys_fit(
    file: &File,
    span: &std::ops::Range<usize>,
    entry: &Database,
    stores: &BTreeMap<String, Arc<StoreSettings>>,
) -> Result<()> {
    const LONGEST_KEY: usize = 1024;
    // The longest suffix that an archive's volume can have.
    const SUFFIX: &str = "tar.zst.age";
    let key = archive_key(&entry.name, &BackupId::now(), SUFFIX);
    let key = volume_name(&key, 9999);
    let too_long = |store: &StoreSettings| match store {
        StoreSettings::Folder(_) => {
            let longest = key.split('/').map(str::len).max().unwrap_or_default();
            (longest > LONGEST_NAME).then(|| {
                format!(
                    "its files would have names of {longest} bytes, and a file system takes \
                     {LONGEST_NAME}: give it a shorter name (a letter beyond ASCII counts at least \
                     six times)"
                )
            })
        }
        StoreSettings::S3 { .. } => {
            let longest = store.prefix().len() + 1 + key.len();
            (longest > LONGEST_KEY).then(|| {
                format!(
                    "its objects would have keys of {longest} bytes, and S3 takes {LONGEST_KEY}: \
                     give it a shorter name (a letter beyond ASCII counts at least six times) or \
                     its store a shorter prefix"
                )
            })
        }
    };
    let mut own = entry.stores.iter().filter_map(|name| stores.get(name));
    match own.find_map(|store| too_long(store)) {
        Some(why) => file.wrong(span, &format!("databases.{}", entry.name), why),
        None => Ok(()),
    }
}

/// The rules of a store that go before those of the databases.
pub(super) fn rules(
    file: &File,
    name: &Spanned<String>,
    raw: &raw::Store,
) -> Result<Option<Retention>> {
    let key = |key: &str| format!("stores.{}.{key}", name.get_ref());
    let rules = Retention {
        last: file.number(raw.keep_last.as_ref(), &key("keep_last"))?,
        hourly: file.number(raw.keep_hourly.as_ref(), &key("keep_hourly"))?,
        daily: file.number(raw.keep_daily.as_ref(), &key("keep_daily"))?,
        weekly: file.number(raw.keep_weekly.as_ref(), &key("keep_weekly"))?,
        monthly: file.number(raw.keep_monthly.as_ref(), &key("keep_monthly"))?,
        yearly: file.number(raw.keep_yearly.as_ref(), &key("keep_yearly"))?,
        within: file.within(raw.keep_within.as_ref(), &key("keep_within"))?,
    };
    Ok(Some(rules).filter(|rules| !rules.is_empty()))
}

pub(super) fn store(
    file: &File,
    name: &Spanned<String>,
    raw: &raw::Store,
) -> Result<StoreSettings> {
    let url = raw.url.get_ref();
    let key = format!("stores.{}", name.get_ref());
    if let Some(place) = url.strip_prefix("s3://") {
        bucket(file, &key, raw, place)
    } else if url.starts_with("file:") {
        folder(file, &key, raw).map(StoreSettings::Folder)
    } else {
        let why = "must be s3://BUCKET/PREFIX, or file:///FOLDER";
        file.wrong(&raw.url.span(), &format!("{key}.url"), why)
    }
}

fn folder(file: &File, place: &str, raw: &raw::Store) -> Result<FolderSettings> {
    let key = |key: &str| format!("{place}.{key}");
    let root = match folder_of(raw.url.get_ref()) {
        Ok(root) => root,
        Err(why) => return file.wrong(&raw.url.span(), &key("url"), why),
    };
    for (name, span) in raw.keys_of_buckets() {
        if let Some(span) = span {
            return file.wrong(&span, &key(name), "is for s3://BUCKET/PREFIX; remove it");
        }
    }
    let marker = match &raw.marker {
        Some(marker) => {
            let name = file.text(marker, &key("marker"))?;
            if name.contains('/') || [".", ".."].contains(&name.as_str()) {
                let why = "must be the name of a file in the folder";
                return file.wrong(&marker.span(), &key("marker"), why);
            }
            Some(name)
        }
        None => None,
    };
    Ok(FolderSettings {
        marker,
        max_parts: max_parts(file, &key("max_parts"), raw)?,
        connections: connections(file, &key("connections"), raw)?,
        max_upload_rate: file.rate(raw.max_upload_rate.as_ref(), &key("max_upload_rate"))?,
        timeouts: timeouts(file, &key("timeout"), raw)?,
        ..FolderSettings::new(root)
    })
}

/// The folder that a URL names.
fn folder_of(url: &str) -> std::result::Result<PathBuf, &'static str> {
    const FORM: &str = "must be file:///FOLDER, with three slashes and the whole path";
    if !url.starts_with("file:///") {
        return Err(FORM);
    }
    let parsed = url::Url::parse(url).map_err(|_| FORM)?;
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err("has ? or # in it; in a folder's name write %3F and %23");
    }
    let path = parsed.to_file_path().map_err(|()| FORM)?;
    let text = path.to_str().ok_or("names a folder that is not UTF-8")?;
    if text.chars().any(char::is_control) {
        return Err("has a control character in it");
    }
    // With no slash at its end.
    let path: PathBuf = path.components().collect();
    if path.parent().is_none() {
        return Err("names the root of all files; give backups a folder of their own");
    }
    Ok(path)
}

fn max_parts(file: &File, key: &str, raw: &raw::Store) -> Result<u32> {
    match &raw.max_parts {
        None => Ok(Limits::S3.max_parts),
        Some(value) if (2..=Limits::S3.max_parts).contains(value.get_ref()) => Ok(*value.get_ref()),
        Some(value) => file.wrong(&value.span(), key, "must be from 2 to 10000"),
    }
}

fn connections(file: &File, key: &str, raw: &raw::Store) -> Result<Option<NonZeroU32>> {
    let Some(value) = &raw.connections else {
        return Ok(None);
    };
    match NonZeroU32::new(*value.get_ref()) {
        Some(number) if number.get() <= MOST_CONNECTIONS => Ok(Some(number)),
        _ => {
            let why = format!("must be from 1 to {MOST_CONNECTIONS}");
            file.wrong(&value.span(), key, why)
        }
    }
}

fn timeouts(file: &File, key: &str, raw: &raw::Store) -> Result<Timeouts> {
    let silence = file.duration(raw.timeout.as_ref(), key)?;
    Ok(silence.map_or_else(Timeouts::default, Timeouts::all))
}

fn bucket(file: &File, name: &str, raw: &raw::Store, place: &str) -> Result<StoreSettings> {
    let key = |key: &str| format!("{name}.{key}");
    if let Some(marker) = &raw.marker {
        return file.wrong(
            &marker.span(),
            &key("marker"),
            "is for file:///FOLDER; remove it",
        );
    }
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let prefix = prefix.trim_matches('/');
    if bucket.is_empty() {
        return file.wrong(
            &raw.url.span(),
            &key("url"),
            "names no bucket; write s3://BUCKET/PREFIX",
        );
    }
    let wrong = bucket_flaw(bucket, raw.endpoint.is_some()).or_else(|| prefix_flaw(prefix));
    if let Some(why) = wrong {
        return file.wrong(&raw.url.span(), &key("url"), why);
    }
    if let Some(endpoint) = &raw.endpoint {
        let flaw = endpoint_flaw(endpoint.get_ref());
        let twice = || {
            has_bucket(endpoint.get_ref(), bucket).then_some(
                "has the bucket in it, which stands in url alone; write scheme, host and port",
            )
        };
        if let Some(why) = flaw.or_else(twice) {
            return file.wrong(&endpoint.span(), &key("endpoint"), why);
        }
    }
    if let Some(region) = &raw.region {
        file.text(region, &key("region"))?;
    }
    let checksum = match &raw.checksum {
        None => Some(ChecksumKind::Crc64Nvme),
        Some(value) => match value.get_ref().as_str() {
            "crc64nvme" => Some(ChecksumKind::Crc64Nvme),
            "crc32" => Some(ChecksumKind::Crc32),
            "none" => None,
            _ => {
                return file.wrong(
                    &value.span(),
                    &key("checksum"),
                    "must be \"crc64nvme\", \"crc32\" or \"none\"",
                );
            }
        },
    };
    if let Some(sse) = &raw.sse
        && !(["AES256", "aws:kms"].contains(&sse.get_ref().as_str())
            || sse.get_ref().starts_with("aws:kms:"))
    {
        return file.wrong(
            &sse.span(),
            &key("sse"),
            "must be \"AES256\", \"aws:kms\" or \"aws:kms:KEY-ID\"",
        );
    }
    let provider = match &raw.provider {
        None => None,
        Some(name) => {
            let Some(profile) = Profile::called(name.get_ref()) else {
                let known: Vec<&str> = Profile::names().collect();
                let why = format!("must be one of {}", known.join(", "));
                return file.wrong(&name.span(), &key("provider"), why);
            };
            Some(profile)
        }
    };
    let lock = match &raw.object_lock {
        None => None,
        Some(lock) => Some(object_lock(file, &key("object_lock"), lock.get_ref())?),
    };
    let max_parts = max_parts(file, &key("max_parts"), raw)?;
    let keys = match (&raw.access_key, &raw.secret_key, &raw.session_token) {
        (None, None, None) => None,
        (Some(access), Some(secret), session) => Some(StoreKeys {
            access: file.secret(access, &key("access_key"))?,
            secret: file.secret(secret, &key("secret_key"))?,
            session: match session {
                Some(session) => Some(file.secret(session, &key("session_token"))?),
                None => None,
            },
        }),
        (Some(one), ..) | (_, Some(one), _) | (.., Some(one)) => {
            return file.wrong(
                &one.span(),
                &key("access_key"),
                "access_key and secret_key go together, and session_token with both",
            );
        }
    };
    Ok(StoreSettings::S3 {
        s3: S3Settings {
            prefix: prefix.into(),
            endpoint: raw
                .endpoint
                .as_ref()
                .map(|endpoint| endpoint.get_ref().clone()),
            provider,
            region: raw.region.as_ref().map(|region| region.get_ref().clone()),
            path_style: raw.path_style.as_ref().map(|style| *style.get_ref()),
            ca_file: raw
                .ca_file
                .as_ref()
                .map(|path| file.relative(path.get_ref())),
            storage_class: raw
                .storage_class
                .as_ref()
                .map(|class| class.get_ref().clone()),
            sse: raw.sse.as_ref().map(|sse| sse.get_ref().clone()),
            lock,
            checksum,
            max_parts,
            connections: connections(file, &key("connections"), raw)?,
            max_upload_rate: file.rate(raw.max_upload_rate.as_ref(), &key("max_upload_rate"))?,
            timeouts: timeouts(file, &key("timeout"), raw)?,
            ..S3Settings::new(bucket)
        },
        keys,
    })
}

fn object_lock(file: &File, key: &str, raw: &raw::ObjectLock) -> Result<ObjectLock> {
    let mode = match raw.mode.get_ref().as_str() {
        "governance" => LockMode::Governance,
        "compliance" => LockMode::Compliance,
        _ => {
            let why = "must be \"governance\" or \"compliance\"";
            return file.wrong(&raw.mode.span(), &format!("{key}.mode"), why);
        }
    };
    // S3's own limit: 100 years.
    let days = *raw.days.get_ref();
    if !(1..=36_500).contains(&days) {
        let why = "must be from 1 to 36500";
        return file.wrong(&raw.days.span(), &format!("{key}.days"), why);
    }
    Ok(ObjectLock { mode, days })
}

/// What keeps a text from being a bucket's name; the rules are AWS's, other servers take more.
fn bucket_flaw(bucket: &str, elsewhere: bool) -> Option<&'static str> {
    let at_aws = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c);
    let anywhere = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if elsewhere {
        let fits = bucket.len() <= 255 && bucket.chars().all(anywhere);
        return (!fits || [".", ".."].contains(&bucket)).then_some(
            "its bucket is none: a name has ASCII letters, digits, dots, hyphens and underscores",
        );
    }
    let ends = [bucket.chars().next(), bucket.chars().last()];
    let fits = (3..=63).contains(&bucket.len())
        && bucket.chars().all(at_aws)
        && ends
            .into_iter()
            .flatten()
            .all(|c| c.is_ascii_alphanumeric())
        && !bucket.contains("..");
    (!fits).then_some(
        "its bucket is none: AWS takes 3 to 63 lower-case letters, digits, dots and hyphens, \
         the first and the last a letter or digit",
    )
}

fn prefix_flaw(prefix: &str) -> Option<&'static str> {
    if prefix.contains(['?', '#']) {
        return Some("has ? or # in it; options are keys of their own, such as endpoint, region");
    }
    if prefix.chars().any(char::is_control) {
        return Some("has a control character in it");
    }
    let empty = |part: &str| ["", ".", ".."].contains(&part);
    (!prefix.is_empty() && prefix.split('/').any(empty))
        .then_some("its prefix has an empty component, \".\" or \"..\", which S3 takes literally")
}

/// Whether an endpoint is a bucket's and not its server's: what is put there has a key that begins
/// with the bucket's name, and no listing of the bucket finds it.
fn has_bucket(endpoint: &str, bucket: &str) -> bool {
    let Ok(url) = url::Url::parse(endpoint) else {
        return false;
    };
    let server = url
        .host_str()
        .and_then(|host| host.strip_prefix(bucket)?.strip_prefix('.'));
    // A host may well be called as a bucket, unless the rest of its name is a provider's.
    let is_known =
        |server: &str| Profile::of_endpoint(Some(&format!("https://{server}"))) != Profile::other();
    url.path().trim_matches('/') == bucket || server.is_some_and(is_known)
}
