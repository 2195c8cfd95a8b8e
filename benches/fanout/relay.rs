//! The floor: a relay that copies what one connection sends to all others.
//!
//! As many threads as the server has; each writes whole chunks to its sinks.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

const CHUNK: usize = 64 * 1024;

/// Accepts `sinks` connections, then one source, and relays until that ends.
pub(crate) fn run(sinks: usize) -> ! {
    crate::process::raise_descriptor_limit();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap());
    let threads = std::thread::available_parallelism().unwrap().get();
    let mut groups: Vec<Vec<TcpStream>> = (0..threads).map(|_| Vec::new()).collect();
    for number in 0..sinks {
        let (stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        groups[number % threads].push(stream);
    }
    let (mut source, _) = listener.accept().unwrap();
    let mut senders = Vec::new();
    for mut group in groups {
        let (sender, receiver) = crossbeam_channel::bounded::<Arc<[u8]>>(64);
        senders.push(sender);
        std::thread::spawn(move || {
            for chunk in receiver {
                for sink in &mut group {
                    // A sink that is done closes; the others go on.
                    let _ = sink.write_all(&chunk);
                }
            }
        });
    }
    let mut buffer = vec![0; CHUNK];
    loop {
        match source.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                let chunk: Arc<[u8]> = Arc::from(&buffer[..count]);
                for sender in &senders {
                    sender.send(Arc::clone(&chunk)).unwrap();
                }
            }
        }
    }
    // The parent reads our CPU time, then ends us.
    loop {
        std::thread::park();
    }
}

/// The floor of idle sessions: sends back what comes, on as many threads as the server has.
pub(crate) fn echo() -> ! {
    crate::process::raise_descriptor_limit();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap());
    let threads = std::thread::available_parallelism().unwrap().get();
    let senders: Vec<_> = (0..threads).map(|_| echo_thread()).collect();
    for number in 0.. {
        let (stream, _) = listener.accept().unwrap();
        let (sender, waker) = &senders[number % threads];
        sender.send(stream).unwrap();
        waker.wake().unwrap();
    }
    unreachable!("the parent ends us")
}

fn echo_thread() -> (crossbeam_channel::Sender<TcpStream>, mio::Waker) {
    let mut poll = mio::Poll::new().unwrap();
    let waker = mio::Waker::new(poll.registry(), mio::Token(usize::MAX)).unwrap();
    let (sender, receiver) = crossbeam_channel::unbounded::<TcpStream>();
    std::thread::spawn(move || {
        let mut events = mio::Events::with_capacity(1024);
        let mut streams: Vec<mio::net::TcpStream> = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            poll.poll(&mut events, None).unwrap();
            while let Ok(stream) = receiver.try_recv() {
                stream.set_nodelay(true).unwrap();
                stream.set_nonblocking(true).unwrap();
                let mut stream = mio::net::TcpStream::from_std(stream);
                let token = mio::Token(streams.len());
                let interest = mio::Interest::READABLE;
                poll.registry()
                    .register(&mut stream, token, interest)
                    .unwrap();
                streams.push(stream);
            }
            for event in &events {
                if let Some(stream) = streams.get_mut(event.token().0)
                    && let Ok(count) = stream.read(&mut buffer)
                {
                    // A sink that is done closes; the others go on.
                    let _ = stream.write(&buffer[..count]);
                }
            }
        }
    });
    (sender, waker)
}
