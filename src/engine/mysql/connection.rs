//! The clients, connected to the inventory's server.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use super::super::ADMIN_TIMEOUT;
use super::super::session::Session;
use super::Mysql;
use super::flavor::Flavor;
use crate::config::{Database, EngineKind, Tls};
use crate::dump::{SECRET_PATH, ToolCommand, ToolError, first_in_path};

/// The mode of every session of ours, whatever the server's is: in others names come in `"`, and a
/// backslash is only itself. It is the mode that dumps are written for.
const MODE: &str = "--init-command=set session sql_mode = 'NO_AUTO_VALUE_ON_ZERO'";

/// Where a server listens when nobody says otherwise.
pub(super) const DEFAULT_PORT: u16 = 3306;

impl Mysql {
    /// `program`, connected to the server. Its option file is the only one that it reads, and holds
    /// the password alone; whom to connect to is said in arguments, which are stronger than anything
    /// else.
    pub(super) fn tool(&self, program: PathBuf) -> ToolCommand {
        let Database {
            host,
            socket,
            port,
            user,
            ..
        } = &self.database;
        let mut tool = ToolCommand::new(program).args([format!("--defaults-file={SECRET_PATH}")]);
        let mut say = |name: &str, value: &str| tool.args.push(format!("--{name}={value}"));
        if let Some(socket) = socket {
            say("protocol", "socket");
            say("socket", &socket.display().to_string());
        } else if host.is_some() || port.is_some() {
            say("protocol", "tcp");
            say("host", host.as_deref().unwrap_or("127.0.0.1"));
            say("port", &port.unwrap_or(DEFAULT_PORT).to_string());
        } else {
            // The client's own socket.
            say("protocol", "socket");
            say("host", "localhost");
        }
        if let Some(user) = user {
            say("user", user);
        }
        self.tls(&mut tool);
        // Oracle's clients read ~/.mylogin.cnf in any case, unless they are told of another.
        tool.env
            .push(("MYSQL_TEST_LOGIN_FILE".into(), "/dev/null".into()));
        tool.secret_file = Some(self.option_file());
        tool.secret_env.clone_from(&self.access.env);
        tool
    }

    /// Encryption, in the options of whoever made the program.
    fn tls(&self, tool: &mut ToolCommand) {
        let Tls {
            mode,
            ca,
            cert,
            key,
        } = &self.database.tls;
        let paths = [("ssl-ca", ca), ("ssl-cert", cert), ("ssl-key", key)];
        let paths = paths
            .iter()
            .filter_map(|(name, path)| Some((name, path.as_ref()?)));
        let paths = paths.map(|(name, path)| format!("--{name}={}", path.display()));
        tool.args.extend(paths);
        let Some(mode) = mode else { return };
        if Flavor::of(&tool.program) == Flavor::Mysql {
            tool.args
                .push(format!("--ssl-mode={}", mode.to_uppercase()));
            return;
        }
        let options: &[&str] = match mode.as_str() {
            "disabled" => &["--skip-ssl"],
            "preferred" => &["--skip-ssl-verify-server-cert"],
            // MariaDB's clients go on in the clear with a server that cannot encrypt, unless they
            // verify it; and they cannot trust an authority without looking at the name.
            _ => &["--ssl", "--ssl-verify-server-cert"],
        };
        tool.args
            .extend(options.iter().map(|&option| option.to_owned()));
    }

    pub(super) fn option_file(&self) -> SecretString {
        let mut file = "[client]\n".to_owned();
        if let Some(password) = &self.access.password {
            file += &format!("password={}\n", option_value(password.expose_secret()));
        }
        file.into()
    }

    pub(super) fn prefer<'a>(&self, mariadb: &'a str, mysql: &'a str) -> PathBuf {
        let order = if self.database.engine == EngineKind::Mysql {
            [mysql, mariadb]
        } else {
            [mariadb, mysql]
        };
        match &self.database.tools {
            Some(folder) => {
                let there = order
                    .iter()
                    .map(|name| folder.join(name))
                    .find(|it| it.is_file());
                there.unwrap_or_else(|| folder.join(order[0]))
            }
            None => first_in_path(&order),
        }
    }

    /// `mariadb-dump` under any of its names, before Oracle's.
    pub(super) fn tool_of_mariadb(&self) -> PathBuf {
        let names = ["mariadb-dump", "mysqldump"];
        match &self.database.tools {
            Some(folder) => {
                let there = names.iter().map(|name| folder.join(name));
                let there = there.clone().find(|path| path.is_file());
                there.unwrap_or_else(|| folder.join(names[0]))
            }
            None => first_in_path(&names),
        }
    }

    pub(super) fn client(&self) -> ToolCommand {
        self.tool(self.prefer("mariadb", "mysql")).args([
            "--batch",
            "--default-character-set=utf8mb4",
            MODE,
        ])
    }

    /// A session that stays.
    pub(super) fn session(&self) -> Result<Session, ToolError> {
        let unbuffered = ["--unbuffered", "--skip-column-names"];
        let command = self.client().args(unbuffered);
        Session::open(&command, "select 'tapline: end of the answer';")
    }

    pub(super) async fn ask(&self, query: &str) -> Result<String, ToolError> {
        if let Some(interview) = &self.interview {
            let open = || self.session();
            let greeting = ("do 1", |_: &str| ());
            return interview
                .ask(open, greeting, query, self.access.timeout)
                .await;
        }
        self.client()
            .args(["--skip-column-names", "-e", query])
            .query(self.access.timeout)
            .await
    }

    pub(super) async fn administer(&self, statements: &str) -> Result<(), ToolError> {
        self.client()
            .args(["-e", statements])
            .query(ADMIN_TIMEOUT)
            .await
            .map(drop)
    }
}

/// A value in an option file: quoted, with the escapes that option files know.
fn option_value(value: &str) -> String {
    let escaped = value
        .replace('\\', r"\\")
        .replace('"', "\\\"")
        .replace('\n', r"\n")
        .replace('\t', r"\t");
    format!("\"{escaped}\"")
}
