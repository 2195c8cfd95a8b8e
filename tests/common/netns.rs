//! Network namespaces for tests: each on a thread of its own, gone with it.
#![allow(dead_code, unsafe_code, unreachable_pub)] // Shared by tests that use parts; unshare(2).
#![allow(clippy::print_stderr)] // Who is skipped says so.
#![allow(clippy::unwrap_used)] // Without its tools a test fails.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// The tunnel device that [`make_device`] makes.
pub const DEVICE: &str = "overlay-tun";

/// Runs `test` on a thread in a new network namespace; skips it without the right to.
///
/// # Panics
///
/// As `test` does.
pub fn in_namespace(name: &str, test: impl FnOnce() + Send + 'static) {
    let run = move || {
        // SAFETY: no memory is involved; the thread is alone in its new namespace.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            let error = std::io::Error::last_os_error();
            eprintln!("SKIPPED: no new network namespace: {error}");
            return;
        }
        ip("link set lo up");
        test();
    };
    let thread = std::thread::Builder::new().name(name.into()).spawn(run);
    if let Err(panic) = thread.unwrap().join() {
        std::panic::resume_unwind(panic);
    }
}

/// Named network namespaces, gone with this.
pub struct Namespaces(Vec<String>);

impl Namespaces {
    /// Makes one for each name, with `lo` up; `None`, and says so, without the right to.
    ///
    /// The names that the system sees carry the number of this process.
    pub fn make(names: &[&str]) -> Option<Self> {
        let mut made = Self(Vec::new());
        for name in names {
            let name = full_name(name);
            if let Err(error) = try_ip(&format!("netns add {name}")) {
                eprintln!("SKIPPED: no new network namespace: {error}");
                return None;
            }
            made.0.push(name);
        }
        for name in names {
            made.enter(name, || ip("link set lo up"));
        }
        Some(made)
    }

    /// What `ip` takes for the namespace.
    pub fn path(&self, name: &str) -> String {
        format!("/run/netns/{}", full_name(name))
    }

    /// Runs `call` on a thread in the namespace; threads, sockets and processes made there
    /// stay there.
    ///
    /// # Panics
    ///
    /// As `call` does.
    pub fn enter<T: Send>(&self, name: &str, call: impl FnOnce() -> T + Send) -> T {
        let file = std::fs::File::open(self.path(name)).unwrap();
        let run = || {
            // SAFETY: no memory is involved; the descriptor is open.
            let entered = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(entered, 0, "{}", std::io::Error::last_os_error());
            call()
        };
        std::thread::scope(|scope| match scope.spawn(run).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.0 {
            if let Err(error) = try_ip(&format!("netns del {name}")) {
                eprintln!("namespace {name} stays: {error}");
            }
        }
    }
}

fn full_name(name: &str) -> String {
    format!("rb{}-{name}", std::process::id())
}

/// Makes the tunnel device: `ip6tnl` where the kernel has it, else `vxlan external`.
pub fn make_device() {
    let ip6tnl = format!("link add {DEVICE} type ip6tnl mode any external");
    if try_ip(&ip6tnl).is_ok() {
        eprintln!("device: ip6tnl");
    } else {
        eprintln!("device: vxlan external (the kernel has no ip6tnl)");
        ip(&format!(
            "link add {DEVICE} type vxlan external gpe dstport 4790 udp6zerocsumrx"
        ));
    }
    ip(&format!("link set {DEVICE} up"));
}

/// Takes the right to change the network from this thread.
pub fn drop_net_admin() {
    const CAP_NET_ADMIN: u32 = 12;
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let mut data = [0_u32; 6];
    // SAFETY: header and data are as capget(2) and capset(2) want them for version 3.
    unsafe {
        let (header, data) = (header.as_ptr(), data.as_mut_ptr());
        assert_eq!(libc::syscall(libc::SYS_capget, header, data), 0);
        *data &= !(1 << CAP_NET_ADMIN);
        assert_eq!(libc::syscall(libc::SYS_capset, header, data), 0);
    }
}

/// What `ip` prints.
///
/// # Panics
///
/// When it fails.
pub fn ip(args: &str) -> String {
    try_ip(args).unwrap_or_else(|error| panic!("ip {args}: {error}"))
}

fn try_ip(args: &str) -> Result<String, String> {
    let output = Command::new("ip")
        .args(args.split_whitespace())
        .output()
        .map_err(|error| error.to_string())?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    // A table without routes does not exist.
    let absent = stderr.contains("FIB table does not exist");
    if output.status.success() || absent {
        Ok(String::from_utf8_lossy(&output.stdout).into())
    } else {
        Err(stderr.into())
    }
}

/// The destinations of the IPv4 routes in a table, as `ip` prints them.
pub fn installed(table: &str) -> BTreeSet<String> {
    let routes = ip(&format!("-4 route show table {table}"));
    let destinations = routes.lines().filter_map(|it| it.split(' ').next());
    destinations.map(ToOwned::to_owned).collect()
}

/// Runs the lines by one `ip -batch`, for one family: `-4` or `-6`.
///
/// # Panics
///
/// When one of them fails.
pub fn ip_batch(lines: &str, family: &str) {
    let mut child = Command::new("ip")
        .args([family, "-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(lines.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
}

/// `ip monitor` of routes and nexthops.
pub struct Monitor {
    child: Child,
    lines: Receiver<String>,
}

/// Routes with these addresses come and go for the sake of [`Monitor`] only.
const MARKER: &str = "192.0.2.";

impl Monitor {
    /// Starts it, and waits until it listens.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn start() -> Self {
        let mut child = Command::new("ip")
            .args(["monitor", "route", "nexthop"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let monitor = Self { child, lines };
        let pause = Duration::from_millis(10);
        for _ in 0..1000 {
            monitor.mark(1);
            if monitor.lines.recv_timeout(pause).is_ok() {
                return monitor;
            }
        }
        panic!("`ip monitor` does not start");
    }

    /// Makes a route that means nothing, and takes it away.
    fn mark(&self, number: u8) {
        for verb in ["add", "del"] {
            ip(&format!("route {verb} blackhole {MARKER}{number} table 99"));
        }
    }

    /// What it saw.
    ///
    /// # Panics
    ///
    /// When it stopped before.
    pub fn stop(self) -> String {
        self.mark(2);
        let mut text = String::new();
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(10)).unwrap();
            if line.contains(&format!("{MARKER}2 ")) {
                return text;
            }
            if !line.contains(MARKER) {
                text += &line;
                text.push('\n');
            }
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // One that is gone already is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
