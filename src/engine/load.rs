//! The restore's side of an engine: what a database holds, how a dump gets into it, and how it takes
//! the place of what was there.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use super::Engine;
use super::script::Rules;
use crate::catalog::Properties;
use crate::dump::{ToolCommand, ToolError};

/// What a database holds that is to be restored into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// There is no such database.
    Absent,
    /// There is nothing in it.
    Empty,
    /// Something is in it, in words such as `12 tables`.
    Holds(String),
    /// There is no way to tell.
    Unknown,
}

/// What keeps a database from holding a part of a dump, when its client does not see the end of it.
#[derive(Debug, Clone, Copy)]
pub enum Unit {
    /// A transaction that this program begins before the dump and ends after it, with these
    /// statements. When the client's input ends for any other reason, even because this program was
    /// killed, there is no end of the transaction.
    Transaction(&'static str),
    /// Nothing.
    None,
    /// Nothing, and the client goes on after errors; these lines of its stderr are errors that
    /// matter.
    Lenient(fn(&str) -> bool),
}

/// Which part of a dump is loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    #[default]
    All,
    /// Definitions without rows.
    Definitions,
    /// Rows into tables that are there.
    Rows,
}

impl Part {
    /// Whether definitions are a part of it.
    pub(super) fn has_definitions(self) -> bool {
        self != Part::Rows
    }

    /// Whether rows are.
    pub(super) fn has_rows(self) -> bool {
        self != Part::Definitions
    }
}

/// How a person wants a dump to be loaded.
#[expect(clippy::struct_excessive_bools, reason = "flags, each by itself")]
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Whatever is made belongs to who makes it.
    pub no_owner: bool,
    /// Nobody is granted anything.
    pub no_privileges: bool,
    /// The role that makes it all.
    pub role: Option<String>,
    /// Views, routines, triggers and events are defined by who makes them.
    pub skip_definer: bool,
    /// Only this table.
    pub table: Option<String>,
    /// Which part of the dump.
    pub part: Part,
    /// Settings of the session that loads.
    pub set: Vec<(String, String)>,
    /// Sessions that are in the way are ended.
    pub force: bool,
    /// How long the last step waits for those who use what it replaces.
    pub lock_timeout: Duration,
}

impl LoadOptions {
    /// Refuses what means nothing to an engine, which knows only these.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), ToolError> {
        let given = [
            (self.no_owner, "--no-owner"),
            (self.no_privileges, "--no-privileges"),
            (self.role.is_some(), "--role"),
            (self.skip_definer, "--skip-definer"),
            (self.table.is_some(), "--table"),
            (self.part == Part::Definitions, "--schema-only"),
            (self.part == Part::Rows, "--data-only"),
            (!self.set.is_empty(), "--set"),
        ];
        match given
            .iter()
            .find(|(given, name)| *given && !known.contains(name))
        {
            Some((_, name)) => Err(ToolError::Cannot(format!(
                "{name} means nothing for this backup: nothing was done"
            ))),
            None => Ok(()),
        }
    }
}

/// What a dump is loaded into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// A database that was made for it, and goes when the load fails.
    Scratch,
    /// One that is there; what it holds is emptied first, where loading the dump does that.
    Place {
        /// Whether it holds anything.
        replace: bool,
    },
}

/// A client that loads a dump.
pub struct ClientLoad {
    /// The client.
    pub client: ToolCommand,
    /// What makes SQL text for it of the dump, where that is not what the dump is.
    pub converter: Option<ToolCommand>,
    /// What the client is told before the dump.
    pub prelude: String,
    /// What is changed in the dump.
    pub rules: Option<Box<dyn Rules>>,
    /// How the client keeps the database from holding a part of the dump.
    pub unit: Unit,
}

impl ClientLoad {
    /// The same for another session, where the dump may be loaded by several: as text, and not in
    /// a transaction, which is one session's.
    pub fn another(&self) -> Option<Self> {
        let may = self.converter.is_none() && matches!(self.unit, Unit::None);
        Some(Self {
            client: self.client.clone(),
            converter: None,
            prelude: self.prelude.clone(),
            rules: Some(self.rules.as_ref().filter(|_| may)?.another()?),
            unit: self.unit,
        })
    }
}

/// What is to be done with a file that is about to be replaced.
pub type Settle = Box<dyn FnOnce() -> Result<(), ToolError> + Send>;

/// How a dump gets into its database.
pub enum Load {
    /// The dump's bytes go to a client's stdin, which exits 0 only when all of it has been loaded.
    Client(ClientLoad),
    /// The same, from a folder, whose path is the converter's last argument.
    Folder(ClientLoad),
    /// The dump is the database.
    File {
        /// Where it belongs.
        path: PathBuf,
        /// Brings what is there to rest, right before it is replaced.
        settle: Option<Settle>,
    },
}

/// What a database beside the target is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To take the target's place.
    Restore,
    /// To be looked at, and to go again.
    Drill,
}

/// How a database is replaced.
pub enum Replacement {
    /// By one beside it, which takes its place in one step.
    Beside(Box<dyn Beside>),
    /// It cannot be, and why; its content can be replaced in place.
    InPlace(String),
    /// The engine has no databases beside one another.
    Other,
}

/// A database beside the target: loaded and checked before the target is touched. When this program
/// is killed, the next that makes one removes it.
#[async_trait]
pub trait Beside: Send {
    /// What stands for it.
    fn engine(&self) -> &dyn Engine;

    /// Puts it in the target's place, in one step; what was there goes. Says what is left to be
    /// done by a person, if anything is.
    ///
    /// # Errors
    /// When the target is still what it was.
    async fn switch(&mut self) -> Result<(), ToolError>;

    /// Removes it.
    async fn discard(&mut self) -> Result<(), ToolError>;
}

/// What a database's server is doing with a dump that is being loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Activity {
    /// It works.
    Working,
    /// It waits for a lock, and who has it.
    Locked(String),
    /// Nothing, or nobody can tell.
    Unknown,
}

/// How long making, emptying or removing a database may take.
pub(super) const ADMIN_TIMEOUT: Duration = Duration::from_mins(10);

/// An engine's database as a restore's target.
#[async_trait]
pub trait Loader: Send + Sync {
    /// How a dump of `dump_format` gets into this database.
    async fn load(
        &self,
        dump_format: &str,
        into: Destination,
        options: &LoadOptions,
    ) -> Result<Load, ToolError>;

    /// What is in this database now.
    async fn contents(&self) -> Result<Contents, ToolError> {
        Ok(Contents::Unknown)
    }

    /// What there is of a table of this database, which is there.
    async fn holds_table(&self, _table: &str) -> Result<Contents, ToolError> {
        Err(ToolError::Cannot(
            "--table means nothing for this backup: nothing was done".into(),
        ))
    }

    /// A new database beside this one. Where this one is not there, it is made as `said` in the
    /// backup.
    async fn beside(
        &self,
        _purpose: Purpose,
        _said: Option<&Properties>,
        _options: &LoadOptions,
    ) -> Result<Replacement, ToolError> {
        Ok(Replacement::Other)
    }

    /// Makes the database, empty, as `said` in the backup.
    async fn create(&self, _said: Option<&Properties>) -> Result<(), ToolError> {
        Ok(())
    }

    /// Empties the database, where loading a dump in place does not do it by itself.
    async fn clear(&self) -> Result<(), ToolError> {
        Ok(())
    }

    /// What its server is doing for this program.
    async fn activity(&self) -> Activity {
        Activity::Unknown
    }

    /// Looks whether what has been restored is sound, and counts its tables; `None` where the
    /// question does not arise.
    async fn examine(&self) -> Result<Option<u64>, ToolError> {
        Ok(None)
    }

    /// Removes the database.
    async fn remove(&self) -> Result<(), ToolError> {
        Err(ToolError::Cannot(
            "this engine's databases cannot be made and removed at will".into(),
        ))
    }
}

/// How the names of databases beside another end, as a pattern that both servers know: what was
/// made, and eight digits. Discovery leaves them out.
pub(super) const BESIDE_PATTERN: &str = "_tapline_(new|old|drill)_[0-9a-f]{8}$";

/// A name for a database beside the one of this name, of at most `longest` bytes.
pub(super) fn name_beside(name: &str, what: &str, id: &str, longest: usize) -> String {
    let end = format!("_tapline_{what}_{id}");
    let mut length = name.len().min(longest - end.len());
    while !name.is_char_boundary(length) {
        length -= 1;
    }
    format!("{}{end}", &name[..length])
}

/// Eight random digits.
pub(super) fn beside_id() -> String {
    format!("{:08x}", fastrand::u32(..))
}
