//! How the databases stand, in the text format of Prometheus.

use super::status::{Health, Standing, Status};
use crate::catalog::Record;

/// The metrics: gauges, each with a line for each database that it is known of.
/// That the file itself is fresh is `tapline_status_timestamp_seconds`.
pub fn prometheus(status: &Status) -> String {
    #[expect(clippy::cast_precision_loss, reason = "samples are floating point")]
    let number = |value: u64| value as f64;
    #[expect(clippy::cast_precision_loss, reason = "samples are floating point")]
    let asked = status.asked.as_second() as f64;
    let mut text = format!(
        "# HELP tapline_status_timestamp_seconds When the stores were asked.\n\
         # TYPE tapline_status_timestamp_seconds gauge\n\
         tapline_status_timestamp_seconds {asked}\n"
    );
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&Standing) -> Option<f64>| {
        let samples: Vec<String> = status
            .databases
            .iter()
            .filter_map(|one| {
                let (database, store) = (label(&one.database), label(&one.store));
                let value = value(one)?;
                Some(format!(
                    "tapline_{name}{{database=\"{database}\",store=\"{store}\"}} {value}\n"
                ))
            })
            .collect();
        if !samples.is_empty() {
            let head = format!("# HELP tapline_{name} {help}\n# TYPE tapline_{name} gauge\n");
            text += &(head + &samples.concat());
        }
    };
    let truth = |holds: bool| Some(f64::from(u8::from(holds)));
    gauge(
        "database_good",
        "1 when the newest backup is good and young enough; absent when the store did not tell.",
        &|one| match one.health {
            Health::Unknown => None,
            health => truth(health == Health::Good),
        },
    );
    gauge(
        "last_backup_timestamp_seconds",
        "The time of the data of the last good backup: when it began.",
        &|one| Some(asked - number(one.last.as_ref()?.age_seconds)),
    );
    gauge(
        "last_backup_duration_seconds",
        "How long the last good backup took.",
        &|one| Some(number(one.last.as_ref()?.took_seconds)),
    );
    gauge(
        "last_backup_dump_bytes",
        "Size of the dump of the last good backup.",
        &|one| Some(number(one.last.as_ref()?.dump_bytes?)),
    );
    gauge(
        "last_backup_archive_bytes",
        "Size of the archive of the last good backup.",
        &|one| Some(number(one.last.as_ref()?.archive_bytes)),
    );
    gauge(
        "previous_backup_dump_bytes",
        "Size of the dump of the good backup before.",
        &|one| one.previous_dump_bytes.map(number),
    );
    gauge(
        "last_backup_warnings",
        "How many warnings the last good backup had.",
        &|one| Some(number(one.last.as_ref()?.warnings as u64)),
    );
    #[expect(clippy::cast_precision_loss, reason = "samples are floating point")]
    let moment = |record: &Option<Record>| Some(record.as_ref()?.ended.as_second() as f64);
    gauge(
        "last_failure_timestamp_seconds",
        "When a run of it failed last.",
        &|one| moment(&one.last_failure),
    );
    gauge(
        "last_verify_timestamp_seconds",
        "When one of its backups was last read back.",
        &|one| moment(&one.last_verify),
    );
    gauge("last_verify_good", "Whether it was whole then.", &|one| {
        truth(one.last_verify.as_ref()?.good)
    });
    gauge(
        "last_drill_timestamp_seconds",
        "When one of its backups was last restored into a scratch database.",
        &|one| moment(&one.last_drill),
    );
    gauge("last_drill_good", "Whether that went well.", &|one| {
        truth(one.last_drill.as_ref()?.good)
    });
    gauge(
        "backup_max_age_seconds",
        "How old the last good backup may be.",
        &|one| one.max_age_seconds.map(number),
    );
    gauge(
        "backup_running",
        "1 when a backup seems to be on its way.",
        &|one| truth(one.open.as_ref().is_some_and(|open| open.alive)),
    );
    text
}

/// A label's value, escaped as the text format wants it.
fn label(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
