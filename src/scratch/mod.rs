//! Files that live for a run: the folder of a staged run or of a restore that must unpack, and what
//! a disk has left.

mod beside;
mod disk;
mod folder;

pub use beside::{file_beside, folder_beside};
pub use disk::{check_free, occupied, sum};
pub use folder::RunFolder;
