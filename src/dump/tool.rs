//! A tool to run: program, arguments, environment, and secrets that reach it without being on its
//! command line.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use rustix::fs::{MemfdFlags, Mode, fchmod, memfd_create};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::AsyncReadExt;

use super::environment::passed_on;
use super::{Child, ChildError};

/// The descriptor at which a child finds its secret file.
const SECRET_FD: i32 = 3;
/// The path of the secret file, as the child sees it.
pub const SECRET_PATH: &str = "/proc/self/fd/3";
/// A query's answer is a list of names or a number; more than this is something else.
const LONGEST_ANSWER: u64 = 16 << 20;

/// A command line whose secrets are kept apart. `Debug` and [`ToolCommand::display`] never show
/// one.
#[derive(Debug, Clone)]
pub struct ToolCommand {
    /// The program, a path or a name to find in `PATH`.
    pub program: PathBuf,
    /// What messages call it, where that is not the program: this program's own binary at work.
    pub title: Option<String>,
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
pub enum ToolError {
    /// It is not there, or it failed.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// It did not answer.
    #[error("{program}: no answer within {limit:?} (connect_timeout)")]
    Timeout {
        /// The program.
        program: String,
        /// How long it was given.
        limit: Duration,
    },
    /// It answered, and the answer makes no sense.
    #[error("{program}: {why}")]
    Answer {
        /// The program.
        program: String,
        /// What is wrong with it.
        why: String,
    },
    /// It was not even asked.
    #[error("{0}")]
    Cannot(String),
}

/// What kind of failure a [`ToolError`] is, for whoever decides what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolErrorKind {
    /// There is no such program.
    NotFound,
    /// The server does not let this user in.
    Refused,
    /// There was no answer in time.
    Timeout,
    /// The tool failed.
    Failed,
    /// The answer makes no sense.
    BadAnswer,
    /// What was wanted cannot be had.
    Impossible,
}

impl ToolError {
    /// An answer that makes no sense.
    pub fn answer(program: &str, why: impl Into<String>) -> Self {
        Self::Answer {
            program: program.to_owned(),
            why: why.into(),
        }
    }

    /// Its kind.
    pub fn kind(&self) -> ToolErrorKind {
        match self {
            Self::Child(ChildError::Spawn { error, .. })
                if error.kind() == io::ErrorKind::NotFound =>
            {
                ToolErrorKind::NotFound
            }
            Self::Child(ChildError::Failed { last_words, .. }) if is_refusal(last_words) => {
                ToolErrorKind::Refused
            }
            Self::Child(_) => ToolErrorKind::Failed,
            Self::Timeout { .. } => ToolErrorKind::Timeout,
            Self::Answer { .. } => ToolErrorKind::BadAnswer,
            Self::Cannot(_) => ToolErrorKind::Impossible,
        }
    }
}

/// Whether a client says that its server does not know or want this user. The servers' words are
/// the only sign: clients exit with the same status whatever went wrong.
fn is_refusal(words: &str) -> bool {
    const REFUSALS: &[&str] = &[
        "authentication failed",
        "no pg_hba.conf entry",
        "no password supplied",
        "ERROR 1045 ",
        "ERROR 1044 ",
        "ERROR 1698 ",
        "(28000)",
    ];
    REFUSALS.iter().any(|refusal| words.contains(refusal))
}

impl ToolCommand {
    /// A command without arguments, environment or secrets.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            title: None,
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

    /// What messages call it.
    pub fn title(&self) -> String {
        let program = || self.program.display().to_string();
        self.title.clone().unwrap_or_else(program)
    }

    /// The command ready to be spawned: its own process group, stdin from `/dev/null`, and no more
    /// of this program's environment than every tool gets. stdout and stderr are the caller's to
    /// set.
    ///
    /// # Errors
    /// When the secret file cannot be made.
    pub fn to_command(&self) -> io::Result<Command> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .stdin(Stdio::null())
            .process_group(0)
            .env_clear()
            .envs(passed_on());
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
        let program = self.title();
        let (mut child, stdout) = Child::reading(self)?;
        let ask = async {
            let mut answer = Vec::new();
            let mut stdout = stdout.take(LONGEST_ANSWER + 1);
            let read = stdout.read_to_end(&mut answer).await;
            if answer.len() as u64 > LONGEST_ANSWER {
                let why = format!("an answer of more than {LONGEST_ANSWER} bytes");
                return Err(ToolError::answer(&program, why));
            }
            // How it ended says more than what was read of it.
            child.wait().await?;
            read.map_err(|error| ToolError::answer(&program, error.to_string()))?;
            String::from_utf8(answer)
                .map_err(|_| ToolError::answer(&program, "an answer that is not UTF-8"))
        };
        // Given up, the child and its group are ended.
        tokio::time::timeout(limit, ask)
            .await
            .map_err(|_| ToolError::Timeout {
                program: program.clone(),
                limit,
            })?
    }
}

/// What to install when a program is not there.
pub(super) fn package(program: &str) -> &'static str {
    match program.rsplit('/').next().unwrap_or_default() {
        "pg_dump" | "pg_dumpall" | "psql" | "pg_restore" => {
            "; install it with `apt-get install postgresql-client`"
        }
        name if name.starts_with("mariadb") => "; install it with `apt-get install mariadb-client`",
        // MariaDB's programs of this name dump no server of Oracle's since 8.4.
        name if name.starts_with("mysql") => {
            "; it is in Oracle's packages (https://dev.mysql.com/downloads/repo/apt/: `apt-get \
             install mysql-client`); for MariaDB say engine = \"mariadb\""
        }
        _ => "",
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
