//! What the benches of a whole job read, and what it costs this machine.

use std::io::Write;

use tapline::bench::synthetic::Synthetic;
use tapline::run::resources::Resources;

const GIB: f64 = 1_073_741_824.0;

/// A synthetic dump, from a file whose pages are in memory, so that making it up takes no part in it.
pub struct Load {
    file: tempfile::NamedTempFile,
    /// In bytes.
    pub size: u64,
    /// The same in GiB.
    pub gibs: f64,
}

impl Load {
    /// As `TAPLINE_BENCH_DUMP` says, or the `default`.
    pub fn new(default: &str) -> Self {
        let dump = std::env::var("TAPLINE_BENCH_DUMP").unwrap_or_else(|_| default.into());
        let dump = dump.parse::<Synthetic>().expect("a size");
        let size = dump.size();
        let mut file = tempfile::NamedTempFile::new().expect("a temp file");
        dump.write(&mut file).expect("a temp file");
        file.flush().expect("a temp file");
        #[expect(clippy::cast_precision_loss, reason = "for display")]
        let gibs = size as f64 / GIB;
        Self { file, size, gibs }
    }

    /// The file's.
    pub fn path(&self) -> String {
        self.file.path().display().to_string()
    }
}

/// How often everything is measured: `TAPLINE_BENCH_ROUNDS`, or 5 times.
pub fn rounds() -> usize {
    std::env::var("TAPLINE_BENCH_ROUNDS").map_or(5, |n| n.parse().expect("a number"))
}

/// CPU time of this process and of the children that it has reaped, in seconds.
pub fn cpu() -> f64 {
    let taken = Resources::taken(0);
    taken.cpu_seconds_user.unwrap_or_default() + taken.cpu_seconds_system.unwrap_or_default()
}
