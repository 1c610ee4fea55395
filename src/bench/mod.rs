//! What streaming gains over staging, on these databases, this machine and this store; and the
//! source that is made up.
//!
//! Both ways are measured from outside and alike, as child processes, in turn (A B A B …), so that
//! what else the machine does meets both. All of it is stored under a prefix of its own, which is
//! emptied after every run.

mod measure;
pub mod results;
pub mod synthetic;

use std::io;
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use crate::catalog::Mode;
use crate::store::{SharedStore, StoreError, Upload, list_all, list_all_uploads};
use measure::measure;
pub use measure::{BenchRun, Sample};
use results::Results;

/// Why nothing, or not all, was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A run failed, in its own words.
    #[error("{0}")]
    Run(String),
    /// The folder, or the program.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What was stored cannot be deleted.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// It was cancelled.
    #[error("interrupted")]
    Interrupted,
}

/// What is compared, how often, and where.
pub struct Bench {
    /// One mode, or two to compare.
    pub modes: Vec<Mode>,
    /// How often each is measured.
    pub runs: u16,
    /// Whether a first run of each finds the caches cold, and is not counted.
    pub warmup: bool,
    /// The run.
    pub run: BenchRun,
    /// Where its files go; it is there, and nothing else is in it.
    pub folder: PathBuf,
    /// The stores, each below a prefix of its own, where nothing else is.
    pub stores: Vec<SharedStore>,
}

impl Bench {
    /// The runs, in turn; each is told to `done` with its number, 0 for one to warm up.
    ///
    /// # Errors
    /// When one fails or cannot be tidied up, and when `cancel` fires.
    pub async fn measure(
        &self,
        cancel: &CancellationToken,
        mut done: impl FnMut(&Sample, u16),
    ) -> Result<Results, BenchError> {
        let mut samples: Vec<Vec<Sample>> = self.modes.iter().map(|_| Vec::new()).collect();
        let first = u16::from(!self.warmup);
        for round in first..=self.runs {
            for (mode, samples) in self.modes.iter().zip(&mut samples) {
                let scratch = self.folder.join("run");
                let measured = measure(&self.run, *mode, &scratch, cancel).await;
                let cleared = self.clear().await;
                let sample = measured?;
                cleared?;
                done(&sample, round);
                if round > 0 {
                    samples.push(sample);
                }
            }
        }
        Ok(Results::of(self, samples))
    }

    /// Deletes what the runs have stored and aborts what they have begun.
    async fn clear(&self) -> Result<(), StoreError> {
        for store in &self.stores {
            for object in list_all(&**store, "").await? {
                store.delete(&object.key).await?;
            }
            for open in list_all_uploads(&**store, "").await? {
                store
                    .abort_upload(&Upload {
                        key: open.key,
                        id: open.id,
                        ..Upload::default()
                    })
                    .await?;
            }
        }
        Ok(())
    }

    /// Empties the prefix and removes the folder.
    ///
    /// # Errors
    /// When either cannot be done.
    pub async fn remove(&self) -> Result<(), BenchError> {
        let cleared = self.clear().await;
        std::fs::remove_dir_all(&self.folder)?;
        cleared.map_err(|error| {
            let under = &self.run.under;
            error
                .context(format!("deleting what is under {under}"))
                .into()
        })
    }
}
