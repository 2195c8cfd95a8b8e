//! One connection of the control socket: an [`Exchange`] on a thread that may block.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::change::Change;
use super::context::Context;
use super::monitor::{self, Monitor};
use crate::http::api;
use crate::http::codec::{Bodies, Encoder, Exchange, Manner, READ_SIZE, Request, Step};
use crate::http::response::{Response, Status};

/// Longest silence of a peer, between requests and within one.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest time in which a peer reads nothing while the socket's buffer is full.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves a connection until it ends.
pub(super) fn serve(stream: &UnixStream, context: &Context) {
    if let Err(error) = converse(stream, context) {
        log::debug!("control connection: {error}");
    }
    // The listener has the socket open, too. If the peer is gone, this fails, and need not work.
    drop(stream.shutdown(Shutdown::Both));
}

/// Answers that there are too many connections, if the socket takes that at once.
pub(super) fn turn_away(stream: &UnixStream) {
    let text = "too many control connections are open";
    let bytes = Encoder::whole(
        Response::problem(Status::ServiceUnavailable, text),
        Manner::REFUSAL,
    );
    let sent = stream
        .set_nonblocking(true)
        .and_then(|()| (&*stream).write_all(&bytes));
    if let Err(error) = sent {
        log::debug!("control connection: {error}");
    }
}

fn converse(mut stream: &UnixStream, context: &Context) -> io::Result<()> {
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let mut exchange = Exchange::new(Bodies::Read);
    let mut buffer = [0; READ_SIZE];
    loop {
        match exchange.step() {
            Step::Receive => {
                let room = exchange.room().min(buffer.len());
                match stream.read(&mut buffer[..room]) {
                    Ok(count @ 1..) => exchange.receive(&buffer[..count]),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // The peer has left, or is too slow.
                    Ok(0) | Err(_) => return Ok(()),
                }
            }
            Step::Respond(request) => match answer(&request, context) {
                Answer::Response(response) => exchange.respond(response),
                Answer::Monitor(monitor) => return monitor.run(stream, request.manner),
            },
            Step::Send => {
                let count = exchange.unsent().len();
                stream.write_all(exchange.unsent())?;
                exchange.sent(count);
            }
            Step::Sent if context.is_stopping() => return Ok(()),
            Step::Sent => {}
            // Each response is made at once: no step waits for it.
            Step::Wait | Step::Close => return Ok(()),
        }
    }
}

/// What a request gets.
enum Answer<'a> {
    Response(Response),
    /// Events, until one side ends the connection.
    Monitor(Monitor<'a>),
}

fn answer<'a>(request: &Request, context: &'a Context) -> Answer<'a> {
    log::debug!("control: {} {}", request.method, request.target);
    let asked = api::Request::new(&request.method, &request.target);
    if asked.path == monitor::PATH {
        return match Monitor::start(&asked, context) {
            Ok(monitor) => Answer::Monitor(monitor),
            Err(response) => Answer::Response(response),
        };
    }
    Answer::Response(match Change::parse(&asked, &request.body) {
        None => api::respond(&asked, &*context.inspect, &context.cache),
        Some(Ok(change)) => change.execute(context),
        Some(Err(response)) => response,
    })
}
