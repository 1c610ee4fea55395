//! Whose backups a name has: two sources that store under one name would restore and prune each
//! other's.

use super::{BackupId, Manifest, SourceIdentity};

/// A source that has stored under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSource {
    /// The source, as its newest backup says it.
    pub source: SourceIdentity,
    /// How many backups it has.
    pub backups: usize,
    /// The newest of them.
    pub newest: BackupId,
}

/// The sources of some backups of one name, the one with the newest backup first. A manifest that
/// names no source may be of any, and counts for none.
///
/// `formerly` are fingerprints of what the source was before a server's identity changed: where one
/// source is left besides them, they are that one's. Nothing but a person can know that: a host's
/// name and a database's are the same in production and in its copy.
pub fn stored_sources<'a>(
    manifests: impl IntoIterator<Item = &'a Manifest>,
    formerly: &[String],
) -> Vec<StoredSource> {
    let mut sources: Vec<StoredSource> = Vec::new();
    for manifest in manifests {
        let (Some(source), id) = (&manifest.source, &manifest.backup_id) else {
            continue;
        };
        let known = sources
            .iter_mut()
            .find(|known| known.source.is_same_source(source));
        match known {
            None => {
                sources.push(StoredSource {
                    source: source.clone(),
                    backups: 1,
                    newest: id.clone(),
                });
            }
            Some(known) => {
                known.backups += 1;
                if *id > known.newest {
                    (known.newest, known.source) = (id.clone(), source.clone());
                }
            }
        }
    }
    let is_former = |stored: &StoredSource| {
        let mut names = formerly.iter();
        names.any(|fingerprint| stored.source.is_called(fingerprint))
    };
    let (former, mut left): (Vec<_>, Vec<_>) = sources.into_iter().partition(is_former);
    match left.as_mut_slice() {
        [one] => {
            one.backups += former.iter().map(|former| former.backups).sum::<usize>();
            let newest = former.into_iter().map(|former| former.newest);
            one.newest = newest.fold(one.newest.clone(), Ord::max);
        }
        _ => left.extend(former),
    }
    left.sort_by(|a, b| b.newest.cmp(&a.newest));
    left
}

/// In words that several sources have stored under `name`, and how that is put right.
pub fn describe_sources(name: &str, sources: &[StoredSource]) -> String {
    let each = sources.iter().map(
        |StoredSource {
             source,
             backups,
             newest,
         }| {
            let SourceIdentity {
                engine,
                host,
                database,
                ..
            } = source;
            let database = database.as_deref().unwrap_or_default();
            let mark = source.short_fingerprint();
            format!(
                "{engine} {host} {database} ({backups} backups, the newest {newest}; source {mark})"
            )
        },
    );
    format!(
        "{} sources have stored under the name {name}: {}. Choose one with --source; to separate \
         them, give each a name or a store prefix of its own in the inventory; where one is what \
         the other was before (an upgrade, a failover), say so: formerly = [\"{}\"]",
        sources.len(),
        each.collect::<Vec<_>>().join(", "),
        sources
            .last()
            .map(|oldest| oldest.source.short_fingerprint())
            .unwrap_or_default()
    )
}

impl SourceIdentity {
    /// As much of the fingerprint as a person types: 8 hex digits.
    pub fn short_fingerprint(&self) -> String {
        self.fingerprint().chars().take(8).collect()
    }

    /// Whether a person means this source by the beginning of its fingerprint.
    pub fn is_called(&self, beginning: &str) -> bool {
        beginning.len() >= 4 && self.fingerprint().starts_with(beginning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_apart_by_their_server_and_the_newest_comes_first() {
        let of = |server: Option<&str>, id: &str| Manifest {
            source: server.map(|server| SourceIdentity {
                engine: "postgres".into(),
                host: "db:5432".into(),
                database: Some("shop".into()),
                server: Some(server.into()),
            }),
            ..Manifest::sample("shop", &id.parse().unwrap())
        };
        let [old, new, newest] = [
            "20261101T000000Z-aaaaaa",
            "20261102T000000Z-aaaaaa",
            "20261103T000000Z-aaaaaa",
        ];
        let manifests = [
            of(Some("1"), old),
            of(Some("2"), newest),
            of(Some("1"), new),
            of(None, old),
        ];
        let sources = stored_sources(&manifests, &[]);
        let shown: Vec<_> = sources
            .iter()
            .map(|one| (one.backups, one.newest.as_str()))
            .collect();
        assert_eq!(shown, [(1, newest), (2, new)]);
        let words = describe_sources("shop", &sources);
        let mark = sources[0].source.short_fingerprint();
        assert!(
            words.contains("2 sources") && words.contains(&mark),
            "{words}"
        );
        assert!(sources[0].source.is_called(&mark) && !sources[1].source.is_called(&mark));
        assert_eq!(stored_sources(&manifests[..1], &[]).len(), 1);
        // What it was before an upgrade is no other, unless a third has come.
        let formerly = [sources[1].source.short_fingerprint()];
        let joined = stored_sources(&manifests, &formerly);
        assert_eq!((joined.len(), joined[0].backups), (1, 3));
        assert_eq!(joined[0].newest.as_str(), newest);
        let third = [&manifests[..], &[of(Some("3"), old)]].concat();
        assert_eq!(stored_sources(&third, &formerly).len(), 3);
        assert_eq!(stored_sources(&manifests[2..3], &formerly).len(), 1);
    }
}
