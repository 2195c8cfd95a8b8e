//! The end of the command when a thread of its library panics: it must not live on without it.

use crate::process::metalbond;

/// What a build with the feature `internals` takes from its environment, and no other.
const HOOK: &str = "RUSTBOND_TEST_PANIC";

#[test]
fn hook_for_panics_is_in_no_normal_build() {
    let program = std::fs::read(metalbond().get_program()).unwrap();
    let mut windows = program.windows(HOOK.len());
    let has_hook = windows.any(|it| it == HOOK.as_bytes());
    assert_eq!(has_hook, cfg!(feature = "internals"));
}

#[cfg(feature = "internals")]
mod hooked {
    use super::*;
    use crate::folder::Folder;
    use crate::process::Process;

    /// A command that will have a panic in a thread.
    struct Doomed {
        process: Process,
        folder: Folder,
    }

    impl Doomed {
        fn start(thread: &str, args: &[&str]) -> Self {
            let folder = Folder::new();
            let hook = format!("{thread}={}", folder.file("now"));
            let mut command = metalbond();
            let process = Process::start(command.env(HOOK, hook).args(args));
            Self { process, folder }
        }

        /// Has the thread panic in its next turn.
        fn doom(&self) {
            std::fs::write(self.folder.file("now"), "").unwrap();
        }

        /// It ends by itself, and says why.
        #[track_caller]
        fn assert_ends(mut self, thread: &str) {
            let code = self.process.wait().code();
            let log = self.process.stderr.all();
            assert_eq!(code, Some(1), "{log}");
            let last = log.lines().last().unwrap();
            let expected =
                format!("metalbond: ended by an internal error: the thread {thread} panicked");
            assert_eq!(last, expected, "{log}");
        }
    }

    #[test]
    fn panic_of_a_worker_ends_the_server_with_an_error() {
        let thread = "metalbond-0";
        let args = ["server", "--listen", "127.0.0.1:0", "--workers", "1"];
        let server = Doomed::start(thread, &args);
        let address = server.process.listens_on("listening on ");
        server.doom();
        // Its HELLO has the worker turn.
        let _client = Process::start(metalbond().args(["client", "-s", &address.to_string()]));
        server.assert_ends(thread);
    }

    #[test]
    fn panic_of_the_engine_ends_the_client_with_an_error() {
        let thread = "metalbond-client";
        let (_server, address) = Process::server(&[]);
        let address = address.to_string();
        let args = ["client", "-s", &address, "--keepalive", "1"];
        let client = Doomed::start(thread, &args);
        client.process.stderr.expect("established");
        client.doom();
        client.assert_ends(thread);
    }

    #[cfg(all(feature = "netlink", target_os = "linux"))]
    #[test]
    fn panic_of_the_kernel_writer_ends_the_client_with_an_error() {
        use crate::netns::{DEVICE, in_namespace, ip, make_device};
        use crate::support::eventually;

        in_namespace("panic", || {
            make_device();
            let thread = "metalbond-netlink";
            let (_server, address) = Process::server(&[]);
            let routes = "100#10.1.0.0/24#2001:db8::1";
            let _announcer = Process::client(address, &["-a", routes]);
            let address = address.to_string();
            let server = ["client", "-s", &address, "--subscribe", "100"];
            let install = ["--install-routes", "100#100", "--tun", DEVICE];
            let client = Doomed::start(thread, &[&server[..], &install].concat());
            let table = || ip("-4 route show table 100 proto 254");
            eventually("the route", || table().contains("10.1.0.0/24"));
            client.doom();
            // Something to write has the writer turn.
            let routes = "100#10.2.0.0/24#2001:db8::1";
            let _announcer = Process::client(address.parse().unwrap(), &["-a", routes]);
            client.assert_ends(thread);
        });
    }
}
