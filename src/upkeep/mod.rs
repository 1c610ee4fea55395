//! What takes away from a store: [`prune`] removes backups that no rule keeps, [`cleanup`] what
//! never became a backup.
//!
//! Both are planned first, from what is in the store, and the plan is a value that can be shown;
//! only then it is carried out.

pub mod cleanup;
pub mod prune;
