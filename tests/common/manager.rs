//! A service manager, as far as a service sees it; and threads of it that hang.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::process::PATIENCE;

/// The interval of [`Manager::watchdog`].
const WATCHDOG: Duration = Duration::from_millis(400);

/// Reads what a service says.
pub(crate) struct Manager {
    socket: UnixDatagram,
    /// As `NOTIFY_SOCKET` names it.
    name: String,
}

impl Manager {
    fn unused_name() -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        format!("metalbond-test-{}-{number}", std::process::id())
    }

    /// One with a socket in the file system.
    pub(crate) fn at_path() -> Self {
        let path = std::env::temp_dir().join(Self::unused_name());
        let socket = UnixDatagram::bind(&path).unwrap();
        let name = path.to_str().unwrap().into();
        Self { socket, name }
    }

    /// One with a socket that no file stands for.
    pub(crate) fn at_abstract_name() -> Self {
        let name = Self::unused_name();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let name = format!("@{name}");
        Self { socket, name }
    }

    pub(crate) fn env(&self) -> [(&str, &str); 1] {
        [("NOTIFY_SOCKET", &self.name)]
    }

    /// Asks for signs of life.
    pub(crate) fn watchdog(&self) -> [(&str, String); 1] {
        [("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())]
    }

    /// Waits for a message that contains `part`, and returns it.
    #[track_caller]
    pub(crate) fn expect(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut others = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.within(left.max(Duration::from_millis(1))) {
                Some(message) if message.contains(part) => return message,
                Some(message) => others.push(message),
                None => panic!("no {part:?} in {others:?}"),
            }
        }
    }

    /// The next message, if one comes within a time.
    fn within(&self, limit: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(limit)).unwrap();
        self.next()
    }

    /// All messages that come within a time.
    pub(crate) fn all_within(&self, limit: Duration) -> Vec<String> {
        let deadline = Instant::now() + limit;
        std::iter::from_fn(|| {
            let left = deadline.checked_duration_since(Instant::now())?;
            self.within(left.max(Duration::from_millis(1)))
        })
        .collect()
    }

    /// The messages that are there.
    pub(crate) fn all(&self) -> Vec<String> {
        self.socket.set_nonblocking(true).unwrap();
        let all = std::iter::from_fn(|| self.next()).collect();
        self.socket.set_nonblocking(false).unwrap();
        all
    }

    fn next(&self) -> Option<String> {
        let mut buffer = [0; 4096];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(len) => return Some(String::from_utf8(buffer[..len].into()).unwrap()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if self.name.starts_with('/') {
            std::fs::remove_file(&self.name).unwrap();
        }
    }
}

/// The threads of a process, with their names.
pub(crate) fn threads(process: u32) -> Vec<(i32, String)> {
    let folder = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let threads = folder.map(|thread| {
        let path = thread.unwrap().path();
        let name = std::fs::read_to_string(path.join("comm")).unwrap();
        let id = path.file_name().unwrap().to_str().unwrap().parse();
        (id.unwrap(), name.trim_end().into())
    });
    threads.collect()
}

/// A thread of another process that does not run, as if it hung; until this is dropped, by the
/// thread that made it.
pub(crate) struct Halted(libc::pid_t);

impl Halted {
    #[allow(unsafe_code, reason = "nothing wraps ptrace(2)")]
    pub(crate) fn new(thread: i32) -> io::Result<Self> {
        let nothing = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: this request uses no memory of this process.
        if unsafe { libc::ptrace(libc::PTRACE_ATTACH, thread, nothing, nothing) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let halted = Self(thread);
        // SAFETY: the pointer may be null, for a status that is not wanted.
        let waited = unsafe { libc::waitpid(thread, std::ptr::null_mut(), libc::__WALL) };
        assert_eq!(waited, thread, "{}", io::Error::last_os_error());
        Ok(halted)
    }
}

impl Drop for Halted {
    #[allow(unsafe_code, reason = "nothing wraps ptrace(2)")]
    fn drop(&mut self) {
        let nothing = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: this request uses no memory of this process.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, nothing, nothing) };
    }
}
