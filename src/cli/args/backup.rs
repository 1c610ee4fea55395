//! Options of what makes backups: `backup` and `bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;

use super::value;
use crate::archive::Compression;
use crate::bench::synthetic::Synthetic;
use crate::catalog::Mode;

#[derive(Debug, Default, ClapArgs)]
pub struct BackupOptions {
    /// Only these databases; NAME/DATABASE is one of those that `database = "*"` stands for
    pub names: Vec<String>,
    /// Databases at once; 1 is one after the other
    #[arg(long, env = "TAPLINE_JOBS", value_parser = value::count)]
    pub jobs: Option<u16>,
    /// Of these, on one server
    #[arg(long, env = "TAPLINE_JOBS_PER_HOST", value_parser = value::count)]
    pub jobs_per_host: Option<u16>,
    /// PostgreSQL: sessions that dump one database at once; the archive is made of many files then
    #[arg(long, env = "TAPLINE_PARALLEL", value_name = "N",
          value_parser = value::sessions)]
    pub parallel: Option<u16>,
    /// Memory of the whole run, such as 512MiB
    #[arg(long, env = "TAPLINE_MEMORY", value_name = "SIZE", value_parser = value::memory)]
    pub memory: Option<u64>,
    /// How long an upload that fails is tried again, such as 15m
    #[arg(long, env = "TAPLINE_RETRY_FOR", value_name = "TIME", value_parser = value::duration)]
    pub retry_for: Option<Duration>,
    /// End a job in which nothing moved for so long
    #[arg(long, env = "TAPLINE_STALL_TIMEOUT", value_name = "TIME", value_parser = value::duration)]
    pub stall_timeout: Option<Duration>,
    /// Stream, or stage: dump to files, then archive, then upload
    #[arg(long, env = "TAPLINE_MODE", value_parser = value::modes())]
    pub mode: Option<Mode>,
    /// Where a staged run keeps its files [default: the temp folder]
    #[arg(long, value_name = "DIR")]
    pub staged_dir: Option<PathBuf>,
    /// Compress all databases so
    #[arg(long, value_parser = value::compressions())]
    pub compression: Option<Compression>,
    /// At this level: gzip 1 to 9, zstd 1 to 19
    #[arg(long)]
    pub level: Option<i32>,
    /// Instead of databases, a dump that is made up: `synthetic:SIZE[:RATIO]`
    #[arg(long, hide = true, conflicts_with = "names", value_parser = value::source)]
    pub source: Option<Synthetic>,
    /// Instead of the stores, one that swallows everything
    #[arg(long, hide = true, value_parser = ["null"])]
    pub store: Option<String>,
    /// Below the stores' own prefixes
    #[arg(long, hide = true, value_name = "PREFIX")]
    pub under: Option<String>,
    /// Prune each database after its own success, by its keep_… rules in the inventory
    #[arg(long)]
    pub prune_after_backup: bool,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Write a JSON report to a file, or to stdout with -
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Draw which worker was busy with which database: as text after the run, or into FILE.svg or
    /// FILE.html
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-",
          value_parser = timeline)]
    pub timeline: Option<Timeline>,
    /// Log lines instead of progress bars
    #[arg(long)]
    pub no_progress: bool,
}

#[derive(Debug, ClapArgs)]
pub struct BenchOptions {
    /// Only these databases
    pub names: Vec<String>,
    /// How often each mode is measured
    #[arg(long, default_value_t = 3, value_parser = value::count)]
    pub runs: u16,
    /// Count the first runs too, which find every cache cold
    #[arg(long)]
    pub no_warmup: bool,
    /// Two modes to compare, or one to measure
    #[arg(long, default_value = "streamed,staged", value_delimiter = ',', value_parser = value::modes())]
    pub modes: Vec<Mode>,
    /// Instead of databases, a dump that is made up: `synthetic:SIZE[:RATIO]`
    #[arg(long, conflicts_with = "names", value_parser = value::source)]
    pub source: Option<Synthetic>,
    /// Instead of the stores, one that swallows everything
    #[arg(long, value_parser = ["null"])]
    pub store: Option<String>,
    /// Compress all databases so
    #[arg(long, value_parser = value::compressions())]
    pub compression: Option<Compression>,
    /// At this level: gzip 1 to 9, zstd 1 to 19
    #[arg(long)]
    pub level: Option<i32>,
    /// Databases at once
    #[arg(long, value_parser = value::count)]
    pub jobs: Option<u16>,
    /// Where temp files go, in a folder that is removed again [default: the temp folder]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Write all that was measured as JSON to a file, or to stdout with -
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw the measures and the median runs' timelines into FILE.svg
    #[arg(long, value_name = "FILE.svg", value_parser = svg)]
    pub plot: Option<PathBuf>,
}

/// How and where to draw a timeline.
#[derive(Debug, Clone)]
pub enum Timeline {
    Text,
    Svg(PathBuf),
    Html(PathBuf),
}

fn timeline(text: &str) -> Result<Timeline, String> {
    let path = PathBuf::from(text);
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("svg") => Ok(Timeline::Svg(path)),
        Some("html") => Ok(Timeline::Html(path)),
        _ if text == "-" => Ok(Timeline::Text),
        _ => Err("write a file that ends with .svg or .html, or --timeline alone for text".into()),
    }
}

fn svg(text: &str) -> Result<PathBuf, String> {
    match timeline(text) {
        Ok(Timeline::Svg(path)) => Ok(path),
        _ => Err("write a file that ends with .svg".into()),
    }
}
