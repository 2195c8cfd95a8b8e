//! Log output: one line on the standard error for each event.
//!
//! A thread that logs puts a finished line into a bounded queue and goes on; one thread writes.
//! So a standard error that nobody reads stops no thread: lines that do not fit are lost and
//! counted.

mod format;
mod queue;

use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use env_logger::Target;
use log::{LevelFilter, Log, Metadata, Record};

pub(crate) use format::Format;
use queue::Queue;

/// How long the end of the process waits for lines to be written.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a thread that panicked waits for its lines to be written.
const PANIC_TIMEOUT: Duration = Duration::from_millis(200);

static LOGGING: OnceLock<Logging> = OnceLock::new();

struct Logging {
    queue: Queue,
    /// Writes all records of the level.
    plain: env_logger::Logger,
    /// Writes the records that `RUST_LOG` selects, until another level is set.
    directed: env_logger::Logger,
    is_directed: AtomicBool,
}

/// Starts the log with a level; the environment variable `RUST_LOG` wins.
pub(crate) fn start(level: LevelFilter, format: Format) {
    let Ok(queue) = Queue::start(io::stderr()) else {
        return output_fails("there is no thread for it");
    };
    set_format(format);
    let builder = || {
        let mut builder = env_logger::Builder::new();
        let target = Target::Pipe(Box::new(queue.clone()));
        builder.target(target).format(format::write);
        builder
    };
    let logging = Logging {
        plain: builder().filter_level(LevelFilter::Trace).build(),
        directed: builder().filter_level(level).parse_default_env().build(),
        is_directed: AtomicBool::new(std::env::var_os(env_logger::DEFAULT_FILTER_ENV).is_some()),
        queue,
    };
    let most = match logging.is_directed.load(Ordering::Relaxed) {
        true => logging.directed.filter(),
        false => level,
    };
    let logging = LOGGING.get_or_init(|| logging);
    if log::set_logger(logging).is_err() {
        return output_fails("it was started before");
    }
    log::set_max_level(most);
    std::panic::set_hook(Box::new(panicked));
}

fn output_fails(why: &str) {
    // There is no better place to report this.
    drop(writeln!(
        io::stderr(),
        "metalbond: nothing is logged: {why}"
    ));
}

/// Changes the level of the log; `RUST_LOG` has no effect any more.
pub(crate) fn set_level(level: LevelFilter) {
    if let Some(logging) = LOGGING.get() {
        logging.is_directed.store(false, Ordering::Relaxed);
        log::set_max_level(level);
    }
}

/// Changes the format of the log.
pub(crate) fn set_format(format: Format) {
    format::set(format);
}

/// Writes a line without time and level to the standard error, after all that was logged.
pub(crate) fn say(line: &str) {
    match LOGGING.get() {
        Some(logging) => logging.queue.push(format!("{line}\n").into_bytes()),
        // A closed standard error cannot be reported.
        None => drop(writeln!(io::stderr(), "{line}")),
    }
}

/// Waits until all lines are written, but not for long.
pub(crate) fn finish() {
    if let Some(logging) = LOGGING.get() {
        logging.queue.flush(FINISH_TIMEOUT);
    }
}

fn panicked(info: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("unnamed");
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let what = text.unwrap_or("without a message");
    match info.location() {
        Some(place) => log::error!("thread {name} panicked at {place}: {what}"),
        None => log::error!("thread {name} panicked: {what}"),
    }
    let backtrace = std::backtrace::Backtrace::capture();
    if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
        say(&backtrace.to_string());
    }
    if let Some(logging) = LOGGING.get() {
        logging.queue.flush(PANIC_TIMEOUT);
    }
}

impl Logging {
    fn current(&self) -> &env_logger::Logger {
        match self.is_directed.load(Ordering::Relaxed) {
            true => &self.directed,
            false => &self.plain,
        }
    }
}

impl Log for Logging {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level() && self.current().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        self.current().log(record);
    }

    fn flush(&self) {
        self.queue.flush(FINISH_TIMEOUT);
    }
}
