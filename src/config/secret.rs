//! Where secrets come from: the environment, a file, a command.

use std::process::Stdio;
use std::time::Duration;

use secrecy::SecretString;

use super::{ConfigError, Secret, SecretFrom, StoreKeys};
use crate::store::s3::{AccessKey, KeySource};

/// A store's access key, asked for anew each time.
#[derive(Debug)]
pub struct StoreKeySource {
    /// Where it comes from.
    pub keys: StoreKeys,
    /// How long each of its secrets may take.
    pub limit: Duration,
}

#[async_trait::async_trait]
impl KeySource for StoreKeySource {
    async fn access_key(&self) -> Result<AccessKey, String> {
        let secret = async |secret: &Secret| {
            let resolved = secret.resolve(self.limit).await;
            resolved.map_err(|error| error.to_string())
        };
        Ok(AccessKey {
            id: secret(&self.keys.access).await?,
            secret: secret(&self.keys.secret).await?,
            session: match &self.keys.session {
                Some(session) => Some(secret(session).await?),
                None => None,
            },
        })
    }
}

impl Secret {
    /// Gets the secret itself. A trailing line break of a file or a command's stdout is not part of
    /// it.
    ///
    /// # Errors
    /// When it is not there, is empty, or its command fails or does not end within `limit`.
    pub async fn resolve(&self, limit: Duration) -> Result<SecretString, ConfigError> {
        let missing = |why: String| ConfigError(format!("{}: {why}", self.place));
        let text = match &self.from {
            SecretFrom::Env(name) => std::env::var(name).map_err(|_| {
                missing(format!(
                    "the environment variable {name} is not set; set it"
                ))
            })?,
            SecretFrom::File(path) => tokio::fs::read_to_string(path)
                .await
                .map_err(|error| missing(format!("cannot read {}: {error}", path.display())))?,
            SecretFrom::Command(argv) => {
                let [program, words @ ..] = argv.as_slice() else {
                    return Err(missing("an empty command".into()));
                };
                let mut command = tokio::process::Command::new(program);
                command.args(words).stdin(Stdio::null()).kill_on_drop(true);
                let output = tokio::time::timeout(limit, command.output())
                    .await
                    .map_err(|_| {
                        missing(format!(
                            "{program} did not end within {limit:?} (connect_timeout)"
                        ))
                    })?
                    .map_err(|error| missing(format!("cannot run {program}: {error}")))?;
                if !output.status.success() {
                    let stderr = String::from_utf8_lossy(&output.stderr);
                    let said = match stderr.trim() {
                        "" => "and said nothing",
                        said => said,
                    };
                    return Err(missing(format!("{program}: {}: {said}", output.status)));
                }
                String::from_utf8(output.stdout)
                    .map_err(|_| missing(format!("what {program} printed is not UTF-8")))?
            }
        };
        let text = text.strip_suffix('\n').map_or(text.as_str(), |text| {
            text.strip_suffix('\r').unwrap_or(text)
        });
        if text.is_empty() {
            return Err(missing("the secret is empty".into()));
        }
        Ok(text.to_owned().into())
    }
}
