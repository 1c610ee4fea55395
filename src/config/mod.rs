//! The inventory: what to back up, from where, to where. Plain validated structs; knows no clap.

mod model;

pub use model::*;
