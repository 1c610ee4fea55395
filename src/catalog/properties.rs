//! What is said about a database itself, and is in no dump of its content: how it is encoded and
//! sorted, whose it is, who may use it, how its sessions are set.
//!
//! All of it is one field of the manifest. No value that looks like a secret is in it: such settings
//! are only named.

use serde::{Deserialize, Serialize};

/// The version of the record that is written.
const VERSION: u32 = 1;

/// What is said about a database, by the family of its server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Properties {
    /// Version of this record; what a newer one adds is not restored by an older tapline.
    pub version: u32,
    /// Of PostgreSQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresProperties>,
    /// Of MySQL and MariaDB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mysql: Option<MysqlProperties>,
}

impl Properties {
    /// Whether a newer tapline has said more than this one knows.
    pub fn is_newer(&self) -> bool {
        self.version > VERSION
    }

    /// The names of settings whose values were not taken.
    pub fn withheld(&self) -> &[String] {
        self.postgres.as_ref().map_or(&[], |said| &said.withheld)
    }
}

impl From<PostgresProperties> for Properties {
    fn from(mut said: PostgresProperties) -> Self {
        said.withhold();
        Self {
            version: VERSION,
            postgres: Some(said),
            mysql: None,
        }
    }
}

impl From<MysqlProperties> for Properties {
    fn from(said: MysqlProperties) -> Self {
        Self {
            version: VERSION,
            postgres: None,
            mysql: Some(said),
        }
    }
}

/// Of a PostgreSQL database; the names are those of `CREATE DATABASE`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PostgresProperties {
    /// Its encoding.
    pub encoding: String,
    /// `LC_COLLATE`
    pub collate: String,
    /// `LC_CTYPE`
    pub ctype: String,
    /// `libc`, `icu` or `builtin`, where the server knows providers.
    pub provider: Option<String>,
    /// The provider's own locale.
    pub locale: Option<String>,
    /// Rules that are added to that.
    pub icu_rules: Option<String>,
    /// Its tablespace.
    pub tablespace: String,
    /// Its owner.
    pub owner: String,
    /// Its comment.
    pub comment: Option<String>,
    /// How many may be connected at once, where that is bounded.
    pub connection_limit: Option<i32>,
    /// Whether everybody may copy it.
    pub is_template: bool,
    /// Who may do what with it, where that is not the default.
    pub grants: Option<Vec<Grant>>,
    /// How its sessions are set.
    pub settings: Vec<Setting>,
    /// Settings whose values were not taken.
    pub withheld: Vec<String>,
}

/// A privilege on a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Whose; everybody's when it says no role.
    pub to: Option<String>,
    /// Such as `CONNECT`.
    pub privilege: String,
    /// Whether it may be granted on.
    pub grantable: bool,
}

/// A setting of a database's sessions, or of one role's in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Of this role alone.
    pub role: Option<String>,
    /// Its name.
    pub name: String,
    /// Its value, as the server keeps it.
    pub value: String,
}

/// Of a MySQL or MariaDB database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MysqlProperties {
    /// Its default character set.
    pub character_set: String,
    /// Its default collation.
    pub collation: String,
    /// Its comment, where the server knows that.
    #[serde(default)]
    pub comment: Option<String>,
}

impl PostgresProperties {
    /// Takes out what looks like a secret. Only settings that an application has made up (they have
    /// a dot in their names) are used for such.
    fn withhold(&mut self) {
        const SIGNS: &[&str] = &[
            "secret",
            "pass",
            "pwd",
            "token",
            "key",
            "credential",
            "jwt",
            "private",
            "auth",
            "dsn",
        ];
        let is_secret = |setting: &Setting| {
            let name = setting.name.to_lowercase();
            name.contains('.') && SIGNS.iter().any(|sign| name.contains(sign))
        };
        let secrets = self.settings.extract_if(.., |setting| is_secret(setting));
        self.withheld.extend(secrets.map(|setting| setting.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_only_named() {
        let setting = |name: &str| Setting {
            role: None,
            name: name.into(),
            value: "sesame".into(),
        };
        let said = PostgresProperties {
            settings: [
                "work_mem",
                "app.JWT_Secret",
                "app.tenant",
                "password_encryption",
            ]
            .map(setting)
            .into(),
            ..PostgresProperties::default()
        };
        let said = Properties::from(said);
        assert_eq!(said.withheld(), ["app.JWT_Secret"]);
        let left = said.postgres.unwrap().settings;
        let left: Vec<&str> = left.iter().map(|setting| setting.name.as_str()).collect();
        assert_eq!(left, ["work_mem", "app.tenant", "password_encryption"]);
    }

    #[test]
    fn what_a_newer_record_says_besides_does_not_keep_a_manifest_from_being_read() {
        let text = r#"{"version": 2, "oracle": {}, "postgres": {"encoding": "UTF8", "x": 1}}"#;
        let said: Properties = serde_json::from_str(text).unwrap();
        assert!(said.is_newer() && said.postgres.unwrap().encoding == "UTF8");
    }
}
