//! Reads the configuration file again and applies what has changed, in a running server or
//! client.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::cli::args::Command;
use crate::cli::failure::Failure;
use crate::cli::logging;
use crate::cli::options::{Change, Options, Row};
use crate::cli::refusal::{self, Parsed};

/// The result of a reload, by the names of options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Those that have taken effect.
    pub(crate) applied: BTreeSet<String>,
    /// Those that changed in the file and take effect after a restart.
    pub(crate) after_restart: BTreeSet<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.applied.iter().map(String::as_str).collect();
        match names.is_empty() {
            true => f.write_str("configuration reloaded, nothing to apply")?,
            false => write!(f, "configuration reloaded, applied: {}", names.join(", "))?,
        }
        for name in &self.after_restart {
            write!(f, "\nkey {name} changed; takes effect after a restart")?;
        }
        Ok(())
    }
}

/// Reads the file again; may be called on any thread at any time. One call waits for another.
///
/// # Errors
///
/// Something is wrong with the file. Nothing is changed then.
pub(crate) type Reload = Arc<dyn Fn() -> Result<Summary, Failure> + Send + Sync>;

/// Returns whether a change takes effect without a restart.
pub(crate) type IsLive = fn(Change) -> bool;

/// Makes the reload of a command that runs with `options`.
///
/// `apply` gets the old and the new options. It applies those that are live by `is_live`; the
/// options of the log are applied here.
pub(crate) fn make(
    options: Options,
    is_live: IsLive,
    apply: impl Fn(&Options, &Options) -> Result<(), Failure> + Send + Sync + 'static,
) -> Reload {
    let current = Mutex::new(options);
    Arc::new(move || {
        let reloaded = reload(&mut current.lock(), is_live, &apply);
        report(&reloaded);
        reloaded
    })
}

/// Returns what SIGHUP does: it reads again what can be read again, and says so if that is
/// nothing.
pub(crate) fn at_hangup(options: &Options, reload: Reload) -> impl Fn() + Send + use<> {
    let has_file = options.file.is_some();
    move || match has_file {
        // The reload reports itself.
        true => drop(reload()),
        false => log::info!("SIGHUP: there is no file to read again; --config was not given"),
    }
}

fn reload(
    current: &mut Options,
    is_live: IsLive,
    apply: &impl Fn(&Options, &Options) -> Result<(), Failure>,
) -> Result<Summary, Failure> {
    if current.file.is_none() {
        let text = "there is no file to read again: --config was not given";
        return Err(Failure::Argument(text.into()));
    }
    let mut new = match refusal::parse(std::env::args_os()) {
        Parsed::Command(Command::Run(new)) if new.role == current.role => new,
        Parsed::Refused(failure) => return Err(failure),
        Parsed::Command(_) | Parsed::Text(_) => {
            return Err(Failure::RunTime("the command line is another".into()));
        }
    };
    let changed = new.changed_since(current);
    let (applied, after_restart): (Vec<&Row>, Vec<&Row>) = changed
        .into_iter()
        .partition(|row| is_log(row.change) || is_live(row.change));
    apply(current, &new)?;
    if applied.iter().any(|it| it.change == Change::LogLevel) {
        logging::set_level(new.log_level());
    }
    if applied.iter().any(|it| it.change == Change::LogFormat) {
        logging::set_format(new.common.log_format);
    }
    // The next reload reports again what waits for a restart.
    for row in &after_restart {
        new.keep_given(row, current);
    }
    *current = *new;
    let names = |rows: Vec<&Row>| rows.into_iter().map(|it| it.name.to_owned()).collect();
    Ok(Summary {
        applied: names(applied),
        after_restart: names(after_restart),
    })
}

/// Returns whether a change is one of the log, which every command applies.
fn is_log(change: Change) -> bool {
    matches!(change, Change::LogLevel | Change::LogFormat)
}

fn report(reloaded: &Result<Summary, Failure>) {
    match reloaded {
        Ok(summary) => {
            let names: Vec<&str> = summary.applied.iter().map(String::as_str).collect();
            match names.is_empty() {
                true => log::info!("configuration reloaded, nothing to apply"),
                false => log::info!("configuration reloaded, applied: {}", names.join(", ")),
            }
            for name in &summary.after_restart {
                log::warn!("key {name} changed; takes effect after a restart");
            }
        }
        Err(failure) => {
            for line in failure.to_string().lines() {
                log::error!("configuration not reloaded: {line}");
            }
        }
    }
}
