//! `[serve]`, and the schedules of databases, from the file as written to the model.

use std::time::Duration;

use jiff::tz::TimeZone;
use toml::Spanned;

use super::place::{File, Result};
use super::{Schedule, ServeSettings, raw};

pub(super) fn serve(file: &File, raw: &raw::Serve) -> Result<ServeSettings> {
    let zone = zone(file, raw.time_zone.as_ref(), "serve.time_zone")?;
    let at = |value: &Option<Spanned<String>>, name: &str| {
        let key = format!("serve.{name}");
        schedule(file, value.as_ref(), &key, (&zone, Duration::ZERO), name)
    };
    Ok(ServeSettings {
        verify: at(&raw.verify, "verify")?,
        drill: at(&raw.drill, "drill")?,
        prune: at(&raw.prune, "prune")?,
        cleanup: at(&raw.cleanup, "cleanup")?,
    })
}

/// The time zone called so; the machine's own where nothing is said, as cron has it.
pub(super) fn zone(file: &File, name: Option<&Spanned<String>>, key: &str) -> Result<TimeZone> {
    let Some(name) = name else {
        return Ok(TimeZone::system());
    };
    TimeZone::get(name.get_ref()).or_else(|_| {
        let why = "there is no such time zone; one looks like \"Europe/Berlin\" or \"UTC\"";
        file.wrong(&name.span(), key, why)
    })
}

/// The schedule in a time zone with a jitter, of whom it is.
pub(super) fn schedule(
    file: &File,
    value: Option<&Spanned<String>>,
    key: &str,
    (zone, jitter): (&TimeZone, Duration),
    whose: &str,
) -> Result<Option<Schedule>> {
    let Some(value) = value else { return Ok(None) };
    match Schedule::new(value.get_ref(), zone.clone(), jitter, whose) {
        Ok(schedule) => Ok(Some(schedule)),
        Err(why) => {
            let why = format!(
                "is no schedule: {why}; one looks like \"0 2 * * *\": minute, hour, day of the \
                 month, month, day of the week"
            );
            file.wrong(&value.span(), key, why)
        }
    }
}
