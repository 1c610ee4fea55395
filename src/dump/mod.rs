//! Where a dump comes from: a tool's process and what it writes to its stdout.
//!
//! | file | role |
//! |---|---|
//! | [`tool`] | a command line with its secrets apart, and short queries |
//! | `environment` | what of this program's own environment a tool gets |
//! | [`child`] | a running process: its group, its end |
//! | [`stderr`] | what it says, in bounds |
//! | [`guard`] | what ends it when this program is killed |
//! | `pipe` | its stdout, in large pieces |
//! | `output` | its stdout, and its end behind that |
//! | [`copier`] | a client that is told statements, and whose answers are a dump |
//! | [`source`] | the dump, read segment by segment, and the proof that it is whole |

pub mod child;
pub mod copier;
pub(crate) mod environment;
pub mod guard;
mod output;
mod pipe;
pub mod source;
pub mod stderr;
pub mod tool;

pub use child::{Child, ChildError, Ending, words};
pub use copier::{Copier, ROWS_END};
pub use source::{DumpEnd, DumpError, DumpShape, EndMarker, Flaw, Next, Source};
pub use stderr::{Complaints, Matching};
pub use tool::{SECRET_PATH, ToolCommand, ToolError, ToolErrorKind, first_in_path, quote};
