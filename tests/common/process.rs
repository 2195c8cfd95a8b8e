//! Runs the built command: reads what it prints, sends it signals, waits with a deadline.
#![allow(dead_code, reason = "every test binary uses its part")]

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Long enough for a slow machine; reached only when something is wrong.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The command that was built for these tests.
pub(crate) fn metalbond() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_metalbond"));
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Runs it to its end: exit code, standard output, standard error.
pub(crate) fn run(args: &[&str]) -> (i32, String, String) {
    finish(metalbond().args(args))
}

pub(crate) fn finish(command: &mut Command) -> (i32, String, String) {
    let mut process = Process::start(command);
    let code = process.wait().code().expect("ended by itself");
    (code, process.stdout.all(), process.stderr.all())
}

/// The lines that a process has printed so far.
#[derive(Clone, Default)]
pub(crate) struct Lines {
    shared: Arc<(Mutex<Collected>, Condvar)>,
}

#[derive(Default)]
struct Collected {
    lines: Vec<String>,
    is_at_end: bool,
}

impl Lines {
    fn collect(from: impl Read + Send + 'static) -> Self {
        let collected = Self::default();
        let lines = collected.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                lines.shared.0.lock().unwrap().lines.push(line);
                lines.shared.1.notify_all();
            }
            lines.shared.0.lock().unwrap().is_at_end = true;
            lines.shared.1.notify_all();
        });
        collected
    }

    /// Waits for a line that contains `part`, and returns it.
    #[track_caller]
    pub(crate) fn expect(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut collected = self.shared.0.lock().unwrap();
        loop {
            let found = collected.lines.iter().find(|line| line.contains(part));
            if let Some(line) = found {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero() && !collected.is_at_end,
                "no line with {part:?} in {:#?}",
                collected.lines
            );
            collected = self.shared.1.wait_timeout(collected, left).unwrap().0;
        }
    }

    /// The lines so far.
    pub(crate) fn so_far(&self) -> Vec<String> {
        self.shared.0.lock().unwrap().lines.clone()
    }

    /// All lines, once the process has ended.
    pub(crate) fn all(&self) -> String {
        let mut collected = self.shared.0.lock().unwrap();
        while !collected.is_at_end {
            collected = self.shared.1.wait(collected).unwrap();
        }
        collected.lines.iter().map(|it| it.clone() + "\n").collect()
    }
}

/// A running process; killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) stdout: Lines,
    pub(crate) stderr: Lines,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the command starts");
        let stdout = Lines::collect(child.stdout.take().unwrap());
        Self::with(child, stdout)
    }

    /// With a standard output that the caller made.
    pub(crate) fn start_into(command: &mut Command, stdout: impl Into<Stdio>) -> Self {
        let command = command.stdout(stdout).stderr(Stdio::piped());
        let child = command.spawn().expect("the command starts");
        Self::with(child, Lines::default())
    }

    fn with(mut child: Child, stdout: Lines) -> Self {
        let stderr = Lines::collect(child.stderr.take().unwrap());
        Self {
            child,
            stdout,
            stderr,
        }
    }

    /// `metalbond server` with these arguments, once it listens, and where that is.
    pub(crate) fn server(args: &[&str]) -> (Self, SocketAddr) {
        let all = [&["server", "--listen", "127.0.0.1:0"], args].concat();
        let server = Self::start(metalbond().args(all));
        let address = server.listens_on("listening on ");
        (server, address)
    }

    /// The address after `words` in the log.
    pub(crate) fn listens_on(&self, words: &str) -> SocketAddr {
        let line = self.stderr.expect(words);
        let (_, rest) = line.split_once(words).unwrap();
        rest.split(' ').next().unwrap().parse().unwrap()
    }

    /// `metalbond client` of one server, with these arguments, once it is established.
    pub(crate) fn client(server: SocketAddr, args: &[&str]) -> Self {
        let server = server.to_string();
        let all = [&["client", "--server", &server], args].concat();
        let client = Self::start(metalbond().args(all));
        client.stderr.expect("established");
        client
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, by its name.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -s {name} {}", self.child.id());
        let status = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(status.success(), "{kill}");
    }

    /// Waits for the end.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the process does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Ends it by a signal, as it should.
    #[track_caller]
    pub(crate) fn stop(mut self, signal: &str) {
        self.signal(signal);
        assert_eq!(self.wait().code(), Some(0), "{}", self.stderr.all());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}
