//! Nobody reads what is logged.

use std::io::{PipeReader, Write};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::netns::{DEVICE, in_namespace, installed, make_device};
use crate::observer::{Load, Observer, destinations};
use crate::process::metalbond;
use crate::support::eventually;

/// A process whose standard error is a pipe that is full; killed when dropped.
struct Blocked {
    child: Child,
    _reader: PipeReader,
}

impl Blocked {
    fn start(args: &str) -> Self {
        let (reader, mut writer) = std::io::pipe().unwrap();
        // A pipe takes 64 KiB (pipe(7)); the last page is left, for a start that says something.
        writer.write_all(&[b'\n'; 60 * 1024]).unwrap();
        let child = metalbond()
            .args(args.split(' '))
            .stdout(Stdio::null())
            .stderr(writer)
            .spawn();
        Self {
            child: child.unwrap(),
            _reader: reader,
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // One that is gone already is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The standard errors of a server and of a client that installs are pipes that nobody reads,
/// and both log all they can, under load.
///
/// Promised: sessions live on, everybody is served, and the kernel has what it should.
#[test]
fn unread_logs_stop_nothing() {
    in_namespace("blocked", || {
        make_device();
        let endpoint = "127.0.0.1:4711";
        let all = "--keepalive 1 --log-level trace";
        let _server = Blocked::start(&format!("server -l {endpoint} {all}"));
        let install = format!("--subscribe 100 --install-routes 100#100 --tun {DEVICE}");
        let _client = Blocked::start(&format!("client -s {endpoint} {install} {all}"));
        let witness = Observer::new(&[endpoint]);
        let load = Load::start(&[endpoint]);
        // More than a silence that is borne.
        let until = Instant::now() + Duration::from_secs(4);
        while Instant::now() < until {
            witness.is_served();
        }
        let (_source, expected) = load.finish();
        let expected = destinations(&expected);
        eventually("the kernel has all", || installed("100") == expected);
        assert_eq!(witness.losses(), []);
    });
}
