//! Reads the configuration file again and applies what has changed, in a running server or
//! client.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::cli::args::{ClientArgs, Command, ConfigArg, ServerArgs};
use crate::cli::failure::Failure;
use crate::cli::logging::{self, LogArgs};
use crate::cli::refusal::{self, Parsed};

/// The options of the log, which can all change.
pub(crate) const LOG: [&str; 3] = ["log-format", "log-level", "verbose"];

/// What a reload did, by the names of options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// What is otherwise from now on.
    pub(crate) applied: BTreeSet<String>,
    /// What is otherwise in the file, and stays as it is until a restart.
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

/// Reads the file again, at any time and on any thread; one call waits for another.
///
/// It fails, and changes nothing, when something is wrong with the file.
pub(crate) type Reload = Arc<dyn Fn() -> Result<Summary, Failure> + Send + Sync>;

/// The options of a command that can be reloaded.
pub(crate) trait Reloadable: Sized + Send + 'static {
    fn of(command: Command) -> Option<Self>;
    fn config(&mut self) -> &mut ConfigArg;
    fn log(&self) -> LogArgs;
}

impl Reloadable for ServerArgs {
    fn of(command: Command) -> Option<Self> {
        match command {
            Command::Server(args) => Some(args),
            _ => None,
        }
    }

    fn config(&mut self) -> &mut ConfigArg {
        &mut self.config
    }

    fn log(&self) -> LogArgs {
        self.log
    }
}

impl Reloadable for ClientArgs {
    fn of(command: Command) -> Option<Self> {
        match command {
            Command::Client(args) => Some(args),
            _ => None,
        }
    }

    fn config(&mut self) -> &mut ConfigArg {
        &mut self.config
    }

    fn log(&self) -> LogArgs {
        self.log
    }
}

/// Makes the reload of a command that runs with `args`.
///
/// `apply` brings it from the first options to the second, of which those in `live` and
/// those of the log count.
pub(crate) fn make<A: Reloadable>(
    args: A,
    live: &'static [&'static str],
    apply: impl Fn(&A, &A) -> Result<(), Failure> + Send + Sync + 'static,
) -> Reload {
    let current = Mutex::new(args);
    Arc::new(move || {
        let reloaded = reload(&mut *current.lock(), live, &apply);
        report(&reloaded);
        reloaded
    })
}

fn reload<A: Reloadable>(
    current: &mut A,
    live: &[&str],
    apply: &impl Fn(&A, &A) -> Result<(), Failure>,
) -> Result<Summary, Failure> {
    if current.config().file.is_none() {
        let text = "there is no file to read again: --config was not given";
        return Err(Failure::Argument(text.into()));
    }
    let command = match refusal::parse(std::env::args_os()) {
        Parsed::Command(command) => A::of(command),
        Parsed::Refused(failure) => return Err(failure),
        Parsed::Text(_) => None,
    };
    let Some(mut new) = command else {
        return Err(Failure::RunTime("the command line is another".into()));
    };
    let values = &current.config().values;
    let changed = new.config().values.changed_since(values);
    let is_live = |it: &String| live.contains(&it.as_str()) || LOG.contains(&it.as_str());
    let (applied, after_restart): (BTreeSet<String>, _) = changed.into_iter().partition(is_live);
    apply(current, &new)?;
    if applied.contains("log-level") || applied.contains("verbose") {
        logging::set_level(new.log().level());
    }
    if applied.contains("log-format") {
        logging::set_format(new.log().format());
    }
    // What waits for a restart is a difference next time too.
    for name in &after_restart {
        let before = current.config().values.clone();
        new.config().values.take_over(name, &before);
    }
    *current = new;
    Ok(Summary {
        applied,
        after_restart,
    })
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
