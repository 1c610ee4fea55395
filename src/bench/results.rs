//! What came out: for each measure the least, the median and the most, and the two modes pair by
//! pair.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Bench;
use super::measure::Sample;
use crate::catalog::Mode;
use crate::units::size;

/// One thing that is measured.
pub struct Measure {
    /// As the table names it.
    pub name: &'static str,
    /// As the JSON names it.
    pub key: &'static str,
    /// Reads it.
    pub value: fn(&Sample) -> Option<f64>,
    /// Writes a value for a person.
    pub show: fn(f64) -> String,
}

#[expect(clippy::cast_precision_loss, reason = "for display")]
pub const MEASURES: [Measure; 8] = [
    Measure {
        name: "wall time",
        key: "wall_seconds",
        value: |run| Some(run.wall_seconds),
        show: seconds,
    },
    Measure {
        name: "MB/s",
        key: "mb_per_second",
        value: |run| Some(run.mb_per_second),
        show: number,
    },
    Measure {
        name: "CPU time",
        key: "cpu_seconds",
        value: |run| run.cpu_seconds,
        show: seconds,
    },
    Measure {
        name: "peak RSS",
        key: "peak_rss",
        value: |run| run.peak_rss.map(|bytes| bytes as f64),
        show: bytes,
    },
    Measure {
        name: "peak temp disk",
        key: "peak_temp_disk",
        value: |run| Some(run.peak_temp_disk as f64),
        show: bytes,
    },
    Measure {
        name: "disk written",
        key: "disk_written",
        value: |run| run.disk_written.map(|bytes| bytes as f64),
        show: bytes,
    },
    Measure {
        name: "dump",
        key: "dump_bytes",
        value: |run| Some(run.dump_bytes as f64),
        show: bytes,
    },
    Measure {
        name: "archive",
        key: "archive_bytes",
        value: |run| Some(run.archive_bytes as f64),
        show: bytes,
    },
];

fn seconds(value: f64) -> String {
    format!("{value:.2} s")
}

fn number(value: f64) -> String {
    format!("{value:.1}")
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "was a whole number of bytes"
)]
fn bytes(value: f64) -> String {
    size(value as u64)
}

/// The least, the median and the most of some values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    /// Of `values`; `None` when there is none, or one is missing.
    pub fn of(values: impl IntoIterator<Item = Option<f64>>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect::<Option<_>>()?;
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Some(Self { min, median, max })
    }

    fn json(spread: Option<Self>) -> Value {
        spread.map_or(
            Value::Null,
            |Self { min, median, max }| json!({ "min": min, "median": median, "max": max }),
        )
    }
}

/// One mode's runs.
pub struct Arm {
    pub mode: Mode,
    pub samples: Vec<Sample>,
}

impl Arm {
    /// A measure of all runs.
    pub fn spread(&self, measure: &Measure) -> Option<Spread> {
        Spread::of(self.samples.iter().map(measure.value))
    }

    /// The run whose wall time is the median, the faster of two.
    pub fn median(&self) -> Option<&Sample> {
        let mut by_time: Vec<&Sample> = self.samples.iter().collect();
        by_time.sort_by(|a, b| a.wall_seconds.total_cmp(&b.wall_seconds));
        by_time.get(by_time.len().checked_sub(1)? / 2).copied()
    }
}

/// All that was measured.
pub struct Results {
    pub arms: Vec<Arm>,
    /// What was asked for, for the JSON.
    asked: Value,
}

impl Results {
    /// Of each mode's `samples`, in the order of the modes.
    pub(super) fn of(bench: &Bench, samples: Vec<Vec<Sample>>) -> Self {
        let arms = bench.modes.iter().zip(samples);
        let arms = arms.map(|(mode, samples)| Arm {
            mode: *mode,
            samples,
        });
        let mut asked = json!(bench.run);
        asked["runs"] = bench.runs.into();
        asked["warmup"] = bench.warmup.into();
        Self {
            arms: arms.collect(),
            asked,
        }
    }

    /// The first mode's value by the second's, run by run.
    pub fn ratio(&self, measure: &Measure) -> Option<Spread> {
        let [first, second] = self.arms.as_slice() else {
            return None;
        };
        Spread::of(
            first
                .samples
                .iter()
                .zip(&second.samples)
                .map(|(first, second)| {
                    let (first, second) = ((measure.value)(first)?, (measure.value)(second)?);
                    (second != 0.0).then(|| first / second)
                }),
        )
    }

    /// Dumps of one database and format that differ in size: the database changed meanwhile.
    pub fn changed(&self) -> Vec<String> {
        let mut sizes: BTreeMap<(&str, &str), Vec<u64>> = BTreeMap::new();
        for job in self
            .arms
            .iter()
            .flat_map(|arm| &arm.samples)
            .flat_map(|sample| &sample.report.jobs)
        {
            let key = (
                job.database.as_str(),
                job.dump_format.as_deref().unwrap_or_default(),
            );
            sizes.entry(key).or_default().push(job.dump_bytes);
        }
        let changed = sizes.into_iter().filter_map(|((database, _), sizes)| {
            let (least, most) = (sizes.iter().min()?, sizes.iter().max()?);
            let differ = format!(
                "{database} changed meanwhile: its dumps have from {least} to {most} bytes"
            );
            (least != most).then_some(differ)
        });
        changed.collect()
    }

    /// Everything, for programs; `version` changes when a field changes its meaning.
    pub fn json(&self) -> String {
        let spreads = |spread: &dyn Fn(&Measure) -> Option<Spread>| {
            let fields = MEASURES
                .iter()
                .map(|measure| (measure.key.to_owned(), Spread::json(spread(measure))));
            Value::Object(fields.collect::<Map<_, _>>())
        };
        let arms: Vec<Value> = self
            .arms
            .iter()
            .map(|arm| json!({ "mode": arm.mode, "runs": arm.samples, "measures": spreads(&|measure| arm.spread(measure)) }))
            .collect();
        let ratios = (self.arms.len() == 2).then(|| spreads(&|measure| self.ratio(measure)));
        let all = json!({
            "version": 1,
            "tapline": env!("CARGO_PKG_VERSION"),
            "asked": self.asked,
            "modes": arms,
            "ratios": ratios,
            "changed": self.changed(),
        });
        serde_json::to_string_pretty(&all).expect("only string keys") + "\n"
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::charts::timeline::tests::report;

    /// Runs of both modes, with these wall times.
    pub fn results(streamed: &[f64], staged: &[f64]) -> Results {
        use crate::meter::Step::{Dump, Encode, Upload};
        let sample = |mode, wall_seconds: &f64| Sample {
            mode,
            wall_seconds: *wall_seconds,
            mb_per_second: 100.0 / wall_seconds,
            cpu_seconds: Some(4.0),
            peak_rss: Some(100 << 20),
            peak_temp_disk: if mode == Mode::Staged { 1 << 30 } else { 0 },
            disk_written: None,
            dump_bytes: 100_000_000,
            archive_bytes: 30_000_000,
            report: report(&[(
                "shop",
                &[
                    (Dump, 0, 0.0, 1.0),
                    (Encode, 0, 0.5, 1.5),
                    (Upload, 0, 1.0, *wall_seconds),
                ],
            )]),
        };
        let arm = |mode, times: &[f64]| Arm {
            mode,
            samples: times.iter().map(|time| sample(mode, time)).collect(),
        };
        Results {
            arms: vec![arm(Mode::Streamed, streamed), arm(Mode::Staged, staged)],
            asked: Value::Null,
        }
    }

    #[test]
    fn pairs_are_compared_run_by_run() {
        let results = results(&[2.0, 4.0, 3.0], &[4.0, 5.0, 9.0]);
        let json: Value = serde_json::from_str(&results.json()).unwrap();
        assert_eq!(json["ratios"]["wall_seconds"]["median"], 0.5);
        assert_eq!(json["ratios"]["peak_temp_disk"]["max"], 0.0);
        assert_eq!(json["ratios"]["disk_written"], Value::Null);
        assert_eq!(json["modes"][1]["runs"][2]["wall_seconds"], 9.0);
        assert_eq!(json["changed"], json!([]));
    }

    #[test]
    fn a_database_that_changed_is_named() {
        let mut results = results(&[2.0], &[4.0]);
        results.arms[0].samples[0].report.jobs[0].dump_bytes = 7;
        assert_eq!(
            results.changed(),
            ["shop changed meanwhile: its dumps have from 0 to 7 bytes"]
        );
        // Another format has another size.
        results.arms[0].samples[0].report.jobs[0].dump_format = Some("directory".into());
        assert!(results.changed().is_empty());
    }

    #[test]
    fn a_spread_has_its_median_in_the_middle() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied().map(Some));
        assert_eq!(
            spread(&[3.0, 1.0]),
            Some(Spread {
                min: 1.0,
                median: 2.0,
                max: 3.0
            })
        );
        assert_eq!(
            spread(&[3.0, 1.0, 9.0]),
            Some(Spread {
                min: 1.0,
                median: 3.0,
                max: 9.0
            })
        );
        assert_eq!(spread(&[]), None);
        assert_eq!(Spread::of([Some(1.0), None]), None);
    }
}
