//! The queue of lines for the standard error.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

/// Lines in the queue at most; 16 MiB at worst.
const LINES: usize = 4096;

/// Longest line; the rest of a longer one is cut off.
const LINE_BYTES: usize = 4096;

/// A handle of the queue to the thread that writes.
#[derive(Clone)]
pub(super) struct Queue {
    items: Sender<Item>,
    lost: Arc<AtomicU64>,
}

enum Item {
    Line(Vec<u8>),
    /// Dropped when all lines before it are written.
    Flush(#[expect(dead_code, reason = "its drop is the signal")] Sender<()>),
}

impl Queue {
    /// Starts the thread that writes.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        Self::with_room(LINES, out, |lost| {
            log::warn!("{lost} lines of the log were lost: nobody took them");
        })
    }

    /// Calls `tell` with the number of lost lines as soon as lines are read again.
    fn with_room(
        room: usize,
        out: impl Write + Send + 'static,
        tell: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let (items, receiver) = bounded(room);
        let lost = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&lost);
        std::thread::Builder::new()
            .name("metalbond-log".into())
            .spawn(move || write_all(&receiver, room, &counted, out, tell))?;
        Ok(Self { items, lost })
    }

    /// Adds a line, or drops and counts it if the queue is full. Never waits.
    pub(super) fn push(&self, mut line: Vec<u8>) {
        if line.len() > LINE_BYTES {
            line.truncate(LINE_BYTES - 1);
            line.push(b'\n');
        }
        if self.items.try_send(Item::Line(line)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all lines are written, no longer than `limit`.
    pub(super) fn flush(&self, limit: Duration) {
        let until = Instant::now() + limit;
        let (done, is_done) = bounded(0);
        if self.items.send_deadline(Item::Flush(done), until).is_ok() {
            // Nothing is sent: the drop of the sender is the signal.
            is_done.recv_deadline(until).ok();
        }
    }
}

/// Takes one line at a time from the logger.
impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all(
    items: &Receiver<Item>,
    room: usize,
    lost: &AtomicU64,
    mut out: impl Write,
    tell: impl Fn(u64),
) {
    let mut written = 0;
    for item in items {
        match item {
            Item::Line(line) => {
                if out.write_all(&line).is_err() {
                    lost.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
            }
            Item::Flush(_) => drop(out.flush()),
        }
        written += 1;
        // Lost lines are reported after the lines that waited, which are older.
        if items.is_empty() || written >= room {
            written = 0;
            report(lost, &tell);
        }
    }
    report(lost, &tell);
}

fn report(lost: &AtomicU64, tell: &impl Fn(u64)) {
    match lost.swap(0, Ordering::Relaxed) {
        0 => {}
        lost => tell(lost),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn full_queue_drops_and_counts_lines_without_waiting() {
        let (mut reader, writer) = io::pipe().unwrap();
        let (told, is_told) = mpsc::channel();
        let tell = move |lost| told.send(lost).unwrap();
        let queue = Queue::with_room(4, writer, tell).unwrap();
        // More than a pipe takes (64 KiB), the thread in hand and the queue.
        let sent: u64 = 200;
        for number in 0..sent {
            queue.push(format!("{number:>1023}\n").into_bytes());
        }
        let read = std::thread::spawn(move || {
            let mut lines = String::new();
            reader.read_to_string(&mut lines).unwrap();
            let are_whole = lines.lines().all(|it| it.trim().parse::<u64>().is_ok());
            assert!(are_whole, "{lines}");
            lines.lines().count() as u64
        });
        drop(queue);
        let read = read.join().unwrap();
        let lost: u64 = is_told.iter().sum();
        assert_eq!(read + lost, sent);
        assert!((4..=100).contains(&read), "{read}");
    }

    #[test]
    fn long_line_is_cut() {
        let (mut reader, writer) = io::pipe().unwrap();
        let queue = Queue::with_room(4, writer, |_| {}).unwrap();
        queue.push(vec![b'x'; 10_000]);
        let mut line = vec![0; LINE_BYTES];
        reader.read_exact(&mut line).unwrap();
        assert_eq!(
            line.iter().position(|it| *it == b'\n'),
            Some(LINE_BYTES - 1)
        );
    }
}
