//! Processes under measurement, read from /proc.
#![allow(dead_code, reason = "every benchmark uses its part")]

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::procfs;

pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// The real binary as a server on a free port.
    pub(crate) fn server(arguments: &[&str]) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let child = Command::new(env!("CARGO_BIN_EXE_metalbond"))
            .args(["server", "--listen", &address.to_string()])
            .args(arguments)
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "the server does not listen");
        }
        Self { child, address }
    }

    /// This binary as a relay to so many sinks.
    pub(crate) fn relay(sinks: usize) -> Self {
        Self::floor(&["relay", &sinks.to_string()])
    }

    /// This binary in a role that says its address.
    pub(crate) fn floor(arguments: &[&str]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let address = line.trim().parse().unwrap();
        Self { child, address }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// User and system time so far.
    pub(crate) fn cpu(&self) -> Duration {
        procfs::cpu(self.child.id())
    }

    /// Open descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        procfs::descriptors(self.child.id())
    }

    fn memory(&self, field: &str) -> usize {
        usize::try_from(procfs::memory(self.child.id(), field)).expect("64 bits")
    }

    /// Bytes of resident memory.
    pub(crate) fn resident(&self) -> usize {
        self.memory("VmRSS")
    }

    pub(crate) fn peak_mib(&self) -> f64 {
        self.memory("VmHWM") as f64 / 1024.0 / 1024.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Thousands of connections need as many descriptors.
#[allow(unsafe_code, reason = "setrlimit has no wrapper in the dependencies")]
pub(crate) fn raise_descriptor_limit() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls take a pointer to a valid rlimit.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
}
