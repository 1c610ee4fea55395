//! Where a dump comes from: a tool's process and what it writes to its stdout.
//!
//! | file | role |
//! |---|---|
//! | [`tool`] | a command line with its secrets apart, and short queries |
//! | [`child`] | a running process: its stderr, its group, its end |
//! | [`source`] | the dump, read segment by segment, and the proof that it is whole |

pub mod child;
pub mod source;
pub mod tool;

pub use child::{Child, ChildError, how, words};
pub use source::{DumpEnd, DumpError, EndMarker, Next, Source};
pub use tool::{SECRET_PATH, ToolCommand, ToolError, first_in_path, quote};
