//! Options of what looks after backups, databases and keys: `status`, `check`, `prune`, `cleanup`
//! and `keygen`.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;

use super::value;
use crate::catalog::{Retention, Within};

#[derive(Debug, ClapArgs)]
pub struct StatusOptions {
    /// Only these databases; NAME/DATABASE is one of those that `database = "*"` stands for
    pub names: Vec<String>,
    /// End with 5 when a last good backup began longer ago, such as 26h [default: by expect_every
    /// of the inventory]
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    pub max_age: Option<Duration>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// Write metrics for Prometheus' textfile collector, too
    #[arg(long, value_name = "FILE.prom")]
    pub prometheus: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub struct CheckOptions {
    /// Only these databases, and their stores
    pub names: Vec<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct PruneOptions {
    /// Only these databases; with rules given as options also some that are not in the inventory
    pub names: Vec<String>,
    /// Only in this store of the inventory
    #[arg(long, value_name = "NAME")]
    pub store: Option<String>,
    /// Of several sources that have stored under one name, only this one; the beginning of its
    /// fingerprint
    #[arg(long, value_name = "FINGERPRINT")]
    pub source: Option<String>,
    /// Where the bucket keeps versions: delete those of what is removed, too
    #[arg(long)]
    pub versions: bool,
    /// Remove them; otherwise nothing is
    #[arg(long)]
    pub confirm: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub rules: Rules,
}

#[derive(Debug, ClapArgs)]
#[command(
    next_help_heading = "Rules; when one is given they are the whole policy, in place of the inventory's"
)]
pub struct Rules {
    /// Keep the newest N
    #[arg(long = "keep-last", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    last: Option<u32>,
    /// Keep the newest of each of the last N hours that have a backup
    #[arg(long = "keep-hourly", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    hourly: Option<u32>,
    /// The same of N days, in UTC
    #[arg(long = "keep-daily", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    daily: Option<u32>,
    /// The same of N weeks, which begin on Monday
    #[arg(long = "keep-weekly", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    weekly: Option<u32>,
    /// The same of N months
    #[arg(long = "keep-monthly", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    monthly: Option<u32>,
    /// The same of N years
    #[arg(long = "keep-yearly", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    yearly: Option<u32>,
    /// Keep what is at most so much older than the newest, such as 30d or "1y 6mo"
    #[arg(long = "keep-within", value_name = "TIME")]
    within: Option<Within>,
}

impl Rules {
    /// The policy that they are; `None` when none is given.
    pub fn policy(&self) -> Option<Retention> {
        let number = |given: Option<u32>| given.and_then(NonZeroU32::new);
        let policy = Retention {
            last: number(self.last),
            hourly: number(self.hourly),
            daily: number(self.daily),
            weekly: number(self.weekly),
            monthly: number(self.monthly),
            yearly: number(self.yearly),
            within: self.within,
        };
        (!policy.is_empty()).then_some(policy)
    }
}

#[derive(Debug, ClapArgs)]
pub struct CleanupOptions {
    /// Leave alone what belongs to a backup with a sign of life in this time: a part that arrived,
    /// an object that changed
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = value::age)]
    pub older_than: Duration,
    /// Only in this store of the inventory
    #[arg(long, value_name = "NAME")]
    pub store: Option<String>,
    /// Where the bucket keeps versions: those of what was removed before, too
    #[arg(long)]
    pub versions: bool,
    /// Remove it; otherwise nothing is
    #[arg(long)]
    pub confirm: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct KeygenOptions {
    /// Write the private key to a new file, which only its owner may read [default: stdout]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// A key that signs manifests instead, in minisign's format
    #[arg(long)]
    pub signing: bool,
}
