//! `[hooks]`, from the file as written to the model.

use std::time::Duration;

use toml::Spanned;

use super::place::{File, Result};
use super::{HookSettings, raw};

/// Long enough to stop a service, and not for ever.
const TIMEOUT: Duration = Duration::from_mins(5);

pub(super) fn hooks(file: &File, raw: &raw::Hooks) -> Result<HookSettings> {
    let argv = |value: &Option<Spanned<Vec<String>>>, name: &str| {
        let Some(value) = value else {
            return Ok(Vec::new());
        };
        let argv = value.get_ref();
        if argv.first().is_none_or(String::is_empty) {
            let why = "is empty; write [\"program\", \"argument\"]";
            return file.wrong(&value.span(), &format!("hooks.{name}"), why);
        }
        if argv.iter().any(|word| word.contains('\0')) {
            let why = "has a byte 0 in it, which no argument can have";
            return file.wrong(&value.span(), &format!("hooks.{name}"), why);
        }
        Ok(argv.clone())
    };
    let mut env = Vec::new();
    for (name, secret) in raw.env.iter().flatten() {
        let key = format!("hooks.env.{}", name.get_ref());
        if name.get_ref().is_empty() || name.get_ref().contains(['=', '\0']) {
            return file.wrong(&name.span(), "hooks.env", "a name is no variable's");
        }
        env.push((name.get_ref().clone(), file.secret(secret, &key)?));
    }
    Ok(HookSettings {
        before_run: argv(&raw.before_run, "before_run")?,
        after_run: argv(&raw.after_run, "after_run")?,
        before: argv(&raw.before, "before")?,
        after: argv(&raw.after, "after")?,
        timeout: file
            .duration(raw.timeout.as_ref(), "hooks.timeout")?
            .unwrap_or(TIMEOUT),
        env,
    })
}
