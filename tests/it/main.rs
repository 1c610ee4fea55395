//! Integration tests: the real binary, real database servers, the S3 protocol. `tests/run.sh`
//! installs what they need.

mod archive;
mod bench;
mod cleanup;
mod databases;
mod encryption;
mod environment;
mod failures;
mod job;
mod kills;
mod matrix;
mod model;
mod notify;
mod prune;
mod restore;
mod restore_kills;
mod restore_mariadb;
mod restore_postgres;
mod restore_properties;
mod restore_sqlite;
mod runs;
mod sealed_faults;
mod servers;
mod signatures;
mod sources;
mod staged;
mod status;
mod store;
mod store_folder;
mod store_http;
mod store_write;
mod use_console;
mod use_inventory;
mod use_verbs;
mod warnings;
mod world;
