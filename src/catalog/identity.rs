//! Which source a backup is of: a name in an inventory is not enough, because two machines may share
//! a store and an inventory.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A source, in words that stay the same from one backup to the next. No secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceIdentity {
    /// The engine's name.
    pub engine: String,
    /// Address of its server as the inventory says it; the name of the machine where it is local.
    pub host: String,
    /// The database: its name, its file, its command.
    pub database: Option<String>,
    /// What the server, or a local source's machine, calls itself. It stays when the address
    /// changes, and is not there when nobody says it.
    pub server: Option<String>,
}

impl SourceIdentity {
    /// The identity in 32 hex digits: of what the server calls itself where that is known, else of
    /// its address.
    pub fn fingerprint(&self) -> String {
        let server = self.server.as_ref().unwrap_or(&self.host);
        let database = self.database.as_deref().unwrap_or_default();
        let mut hash = Sha256::new();
        for field in [self.family(), server, database] {
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field);
        }
        crate::archive::hex(&hash.finalize()[..16])
    }

    /// Whether both are of one source, as far as both know: by what the servers call themselves, and
    /// by their addresses when one of them did not say.
    pub fn is_same_source(&self, other: &Self) -> bool {
        let same_server = match (&self.server, &other.server) {
            (Some(one), Some(another)) => one == another,
            _ => self.host == other.host,
        };
        same_server && self.family() == other.family() && self.database == other.database
    }

    /// MySQL and MariaDB name the same clients and dumps, and an entry may change from one to the
    /// other.
    fn family(&self) -> &str {
        match self.engine.as_str() {
            "mariadb" => "mysql",
            engine => engine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(host: &str, server: Option<&str>) -> SourceIdentity {
        SourceIdentity {
            engine: "postgres".into(),
            host: host.into(),
            database: Some("shop".into()),
            server: server.map(str::to_owned),
        }
    }

    #[test]
    fn a_server_is_itself_under_every_address() {
        let (a, b) = (identity("a:5432", Some("7")), identity("b:5432", Some("7")));
        assert!(a.is_same_source(&b));
        assert_eq!(a.fingerprint(), b.fingerprint());
        let other = identity("a:5432", Some("8"));
        assert!(!a.is_same_source(&other));
        assert_ne!(a.fingerprint(), other.fingerprint());
        let silent = identity("a:5432", None);
        assert!(silent.is_same_source(&a) && !silent.is_same_source(&b));
        let database = SourceIdentity {
            database: Some("other".into()),
            ..a.clone()
        };
        assert!(!a.is_same_source(&database));
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        let one = SourceIdentity {
            database: Some("b".into()),
            ..identity("xa", None)
        };
        let another = SourceIdentity {
            database: Some("ab".into()),
            ..identity("x", None)
        };
        assert_ne!(one.fingerprint(), another.fingerprint());
        assert_eq!(one.fingerprint().len(), 32);
    }
}
