//! A tool to run: program, arguments, environment, and secrets that reach it without being on its
//! command line.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use rustix::fs::{MemfdFlags, Mode, fchmod, memfd_create};
use secrecy::{ExposeSecret, SecretString};
use tokio::process::Command;

/// The descriptor at which a child finds its secret file.
const SECRET_FD: i32 = 3;
/// The path of the secret file, as the child sees it.
pub const SECRET_PATH: &str = "/proc/self/fd/3";
/// A query's answer is a list of names or a number; more than this is something else.
const LONGEST_ANSWER: usize = 16 << 20;
/// How much of a failed query's stderr a message shows, in bytes.
const LAST_WORDS: usize = 2 << 10;

/// A command line whose secrets are kept apart. `Debug` and [`ToolCommand::display`] never show
/// one.
#[derive(Debug, Clone)]
pub struct ToolCommand {
    /// The program, a path or a name to find in `PATH`.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Environment that is no secret.
    pub env: Vec<(String, String)>,
    /// Environment that is.
    pub secret_env: Vec<(String, SecretString)>,
    /// A file for the child alone: it inherits a memfd (mode 0600) with this content as descriptor
    /// 3, and knows it as [`SECRET_PATH`].
    pub secret_file: Option<SecretString>,
}

/// Why a tool could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ToolError(pub String);

impl ToolCommand {
    /// A command without arguments, environment or secrets.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            secret_env: Vec::new(),
            secret_file: None,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// The command as a person would type it, quoted for a shell; secrets are left out.
    pub fn display(&self) -> String {
        let mut words: Vec<String> = self
            .env
            .iter()
            .map(|(name, value)| format!("{name}={}", quote(value)))
            .collect();
        words.extend(
            self.secret_env
                .iter()
                .map(|(name, _)| format!("{name}=***")),
        );
        words.push(quote(&self.program.display().to_string()));
        words.extend(self.args.iter().map(|arg| quote(arg)));
        words.join(" ")
    }

    /// The command ready to be spawned: its own process group, stdin from `/dev/null`, killed when
    /// dropped. stdout and stderr are the caller's to set.
    ///
    /// # Errors
    /// When the secret file cannot be made.
    pub fn to_command(&self) -> io::Result<Command> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.envs(
            self.secret_env
                .iter()
                .map(|(name, value)| (name, value.expose_secret())),
        );
        if let Some(content) = &self.secret_file {
            let parent_fd = memfd(content)?;
            command
                .fd_mappings(vec![FdMapping {
                    parent_fd,
                    child_fd: SECRET_FD,
                }])
                .map_err(|error| io::Error::other(error.to_string()))?;
        }
        Ok(command)
    }

    /// Runs a short query and returns its stdout.
    ///
    /// # Errors
    /// When the tool is not there, does not answer within `limit`, or fails: with its last words.
    pub async fn query(&self, limit: Duration) -> Result<String, ToolError> {
        let program = self.program.display();
        let failed = |why: String| ToolError(format!("{program}: {why}"));
        let mut command = self
            .to_command()
            .map_err(|error| failed(error.to_string()))?;
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| self.absent(&error))?;
        // Dropped at the limit, the child is killed.
        let output = tokio::time::timeout(limit, child.wait_with_output())
            .await
            .map_err(|_| failed(format!("no answer within {limit:?}")))?
            .map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(
                &output.stderr[output.stderr.len().saturating_sub(LAST_WORDS)..],
            );
            return Err(failed(format!("{}: {}", output.status, words.trim())));
        }
        if output.stdout.len() > LONGEST_ANSWER {
            return Err(failed(format!(
                "an answer of {} bytes",
                output.stdout.len()
            )));
        }
        String::from_utf8(output.stdout).map_err(|_| failed("an answer that is not UTF-8".into()))
    }

    fn absent(&self, error: &io::Error) -> ToolError {
        let program = self.program.display().to_string();
        let package = match program.rsplit('/').next().unwrap_or_default() {
            "pg_dump" | "pg_dumpall" | "psql" | "pg_restore" => {
                "; install it with `apt-get install postgresql-client`"
            }
            name if name.starts_with("mariadb") || name.starts_with("mysql") => {
                "; install it with `apt-get install mariadb-client`"
            }
            _ => "",
        };
        ToolError(format!("cannot run {program}: {error}{package}"))
    }
}

/// An anonymous file in memory, closed on exec in every child but the one that it is mapped into.
fn memfd(content: &SecretString) -> io::Result<OwnedFd> {
    let fd = memfd_create("tapline-secret", MemfdFlags::CLOEXEC)?;
    fchmod(&fd, Mode::RUSR | Mode::WUSR)?;
    let mut file = File::from(fd);
    file.write_all(content.expose_secret().as_bytes())?;
    Ok(file.into())
}

/// Quotes a word for a POSIX shell where it needs it.
/// A word as a shell must be given it.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+*".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The first of `names` that is in `PATH`, else the first: its absence is then the error that a
/// person understands.
pub fn first_in_path(names: &[&str]) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let found = names
        .iter()
        .find(|name| folders.iter().any(|folder| folder.join(name).is_file()));
    PathBuf::from(found.unwrap_or(&names[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_secret_file_reaches_its_child_alone_and_is_never_shown() {
        let mut command = ToolCommand::new("sh").args([
            "-c",
            "cat /proc/self/fd/3; echo $PASS; stat -Lc %a /proc/self/fd/3",
        ]);
        command.secret_file = Some("sesame\n".to_owned().into());
        command
            .secret_env
            .push(("PASS".into(), "open".to_owned().into()));
        assert_eq!(
            command.query(Duration::from_secs(5)).await.unwrap(),
            "sesame\nopen\n600\n"
        );
        let other = ToolCommand::new("sh").args(["-c", "ls -l /proc/self/fd"]);
        assert!(
            !other
                .query(Duration::from_secs(5))
                .await
                .unwrap()
                .contains("memfd")
        );
        for shown in [command.display(), format!("{command:?}")] {
            assert!(
                !shown.contains("sesame") && !shown.contains("open"),
                "{shown}"
            );
        }
    }

    #[tokio::test]
    async fn a_failed_query_says_what_the_tool_said() {
        let failing = ToolCommand::new("sh").args(["-c", "echo no such luck >&2; exit 3"]);
        let error = failing
            .query(Duration::from_secs(5))
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("no such luck") && error.contains('3'),
            "{error}"
        );
        let slow = ToolCommand::new("sleep").args(["60"]);
        assert!(slow.query(Duration::from_millis(50)).await.is_err());
        let absent = ToolCommand::new("/nowhere/pg_dump")
            .query(Duration::from_secs(5))
            .await
            .unwrap_err();
        assert!(absent.to_string().contains("postgresql-client"), "{absent}");
    }

    #[test]
    fn shell_words_are_quoted_where_they_must_be() {
        let command = ToolCommand::new("x").args(["a b", "it's", "", "--plain=1"]);
        assert_eq!(command.display(), r"x 'a b' 'it'\''s' '' --plain=1");
    }
}
