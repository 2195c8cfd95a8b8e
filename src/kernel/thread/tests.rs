//! The thread of a writer whose kernel makes it panic.

use super::*;

/// A kernel that is never to be asked.
struct Broken;

impl Netlink for Broken {
    fn send(&mut self, _: &[u8]) -> io::Result<()> {
        panic!("a test")
    }

    fn receive(&mut self, _: &mut [u8]) -> io::Result<usize> {
        panic!("a test")
    }

    fn dump(&mut self, _: &[u8]) -> io::Result<()> {
        panic!("a test")
    }

    fn dumped(&mut self, _: &mut [u8]) -> io::Result<usize> {
        panic!("a test")
    }

    fn stop_dump(&mut self) -> io::Result<()> {
        panic!("a test")
    }

    fn notification(&mut self, _: &mut [u8]) -> io::Result<usize> {
        panic!("a test")
    }

    fn claims(&self) -> Vec<Claimed> {
        Vec::new()
    }
}

#[test]
fn panic_of_the_writer_is_known_to_all_who_ask() {
    const PATIENCE: Duration = Duration::from_secs(30);
    let config = KernelConfig {
        vni_tables: [(Vni(1), 100)].into(),
        cleanup_on_exit: true,
        ..KernelConfig::default()
    };
    let parts = Parts {
        net: Broken,
        plan: Plan::new(plan_config(&config, Mode::Objects)),
        mark: Mark {
            protocol: config.protocol,
            device: LOOPBACK,
            more: [message::NO_DEVICE; message::MORE_DEVICES],
            source: Ipv6Addr::UNSPECIFIED,
        },
        mode: Mode::Objects,
        claimed: Claimed {
            protocol: config.protocol,
            ids: config.nexthop_ids.clone(),
            is_inline: false,
        },
        claim: (),
    };
    let writer = KernelWriter::launch(parts, Poll::new().unwrap(), config).unwrap();
    let life = writer.life();
    let panicked = |ended: Result<()>| match ended {
        Err(Error::Panicked(thread)) => thread == THREAD_NAME,
        other => panic!("{other:?}"),
    };
    assert!(panicked(life.wait_timeout(PATIENCE)));
    assert!(panicked(writer.flush(PATIENCE)));
    let status = writer.stats();
    assert!(
        status
            .not_ready()
            .is_some_and(|why| why.contains("has ended"))
    );
    assert!(panicked(writer.abandon(PATIENCE)));
    assert!(panicked(life.check()));
}
