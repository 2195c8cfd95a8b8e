//! A client that has threads: its engine's, and one for each consumer of its events.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use parking_lot::Mutex;

use super::config::ClientConfig;
use super::engine::Engine;
use super::events::Events;
use super::handler::{self, CHANNEL_EVENTS, Feed};
use super::mail::{Command, Mail, Question, Waiter};
use super::sink::{Sink, Way};
use super::status::Published;
use super::worker;
use crate::core::client::{ConsumerId, Event, EventDetail};
use crate::core::time::after;
use crate::error::{Error, Result};
use crate::heartbeat::Heartbeat;
use crate::net::{Postbox, Reply};

/// How long a shutdown, or the last handle that is dropped, waits for the threads.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(5);

const THREAD_NAME: &str = "metalbond-client";

/// The threads of a client and the ways to them. Dropping it stops them.
pub(super) struct Running {
    postbox: Postbox<Mail>,
    pub(super) published: Arc<Published>,
    /// Dropped to tell the consumers' threads to stop.
    stop: Mutex<Option<Sender<()>>>,
    stopped: Receiver<()>,
    threads: Mutex<Vec<Thread>>,
    /// The settings that hold at present; locked while they are changed.
    pub(super) config: Mutex<ClientConfig>,
}

struct Thread {
    handle: JoinHandle<()>,
    /// Disconnected when the thread is at its end.
    ended: Receiver<()>,
}

impl Running {
    /// Starts the thread of an engine. The feed has the events of its first consumer.
    pub(super) fn start(
        engine: Engine,
        published: Arc<Published>,
        config: ClientConfig,
    ) -> Result<(Self, Feed)> {
        let (batches, receiver) = crossbeam_channel::bounded(1);
        let running = Self::start_with(engine, published, config, Way::Thread(batches))?;
        let feed = running.feed(receiver);
        Ok((running, feed))
    }

    /// Starts the thread of an engine, whose first consumer is reached in this way.
    pub(super) fn start_with(
        mut engine: Engine,
        published: Arc<Published>,
        config: ClientConfig,
        way: Way,
    ) -> Result<Self> {
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let running = Self {
            postbox: engine.postbox(),
            published,
            stop: Mutex::new(Some(stop)),
            stopped,
            threads: Mutex::new(Vec::new()),
            config: Mutex::new(config),
        };
        engine.sinks.push(Sink {
            consumer: ConsumerId::FIRST,
            way,
        });
        let published = Arc::clone(&running.published);
        let life = published.life.clone();
        let guard = life.guard(THREAD_NAME, move || published.close());
        running.spawn(THREAD_NAME, move || {
            let mut engine = engine;
            // Dropped before the engine: callers that lose its mailbox then see why.
            let _guard = guard;
            worker::run(&mut engine);
            life.stop();
        })?;
        Ok(running)
    }

    fn feed(&self, batches: Receiver<Vec<Event>>) -> Feed {
        Feed {
            batches,
            postbox: self.postbox.clone(),
            stopped: self.stopped.clone(),
        }
    }

    /// Starts the thread that hands events to the first consumer.
    pub(super) fn consume(&self, run: impl FnOnce() + Send + 'static) -> Result<()> {
        self.spawn("metalbond-handler", run)
    }

    /// Returns the receiving end of the events of a consumer.
    pub(super) fn events(&self, receiver: Receiver<Event>, consumer: ConsumerId) -> Events {
        Events::new(receiver, consumer, self.postbox.clone())
    }

    /// Has the engine do something, and waits for its answer.
    pub(super) fn command<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T> {
        let (reply, answer) = Reply::channel();
        self.postbox.post(Mail::Command(command(reply)), 1);
        answer.recv().map_err(|_| self.published.life.error())
    }

    /// Asks the engine, and waits for its answer.
    pub(super) fn ask<T>(&self, question: impl FnOnce(Reply<T>) -> Question) -> Result<T> {
        let (reply, answer) = Reply::channel();
        self.postbox.post(Mail::Question(question(reply)), 1);
        answer.recv().map_err(|_| self.published.life.error())
    }

    /// Waits until the goal of a command is reached.
    pub(super) fn wait(
        &self,
        timeout: Duration,
        command: impl FnOnce(Waiter) -> Command,
    ) -> Result<()> {
        let (reply, answer) = Reply::channel();
        let caller = Arc::new(());
        let waiter = Waiter {
            reply,
            is_waiting: Arc::downgrade(&caller),
        };
        self.postbox.post(Mail::Command(command(waiter)), 1);
        match answer.recv_timeout(timeout) {
            Ok(reached) => reached,
            Err(RecvTimeoutError::Timeout) => Err(Error::Timeout),
            Err(RecvTimeoutError::Disconnected) => Err(self.published.life.error()),
        }
    }

    /// Adds a consumer of events, whose thread feeds a channel.
    pub(super) fn watch(&self, detail: EventDetail) -> Result<Events> {
        let (batches, receiver) = crossbeam_channel::bounded(1);
        let feed = self.feed(receiver);
        let consumer = self.command(|reply| Command::Attach(detail, batches, reply))??;
        let (sender, receiver) = crossbeam_channel::bounded(CHANNEL_EVENTS);
        // Its drop ends the consumer, if there is no thread too.
        let events = self.events(receiver, consumer);
        self.spawn("metalbond-watch", move || {
            handler::forward(&sender, &feed);
        })?;
        Ok(events)
    }

    /// The loop of the client's thread, to see whether it turns.
    pub(super) fn heartbeat(&self) -> Heartbeat {
        Heartbeat::new(vec![self.postbox.beat(THREAD_NAME)])
    }

    fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
        let (running, ended) = crossbeam_channel::bounded(0);
        let run = move || {
            let _running: Sender<()> = running;
            run();
        };
        let handle = std::thread::Builder::new().name(name.into()).spawn(run);
        let handle = handle.map_err(Error::io("start a thread"))?;
        let mut threads = self.threads.lock();
        // Watches come and go; what has ended needs no joining.
        threads.retain(|thread| !thread.handle.is_finished());
        threads.push(Thread { handle, ended });
        Ok(())
    }

    /// Stops the threads and waits for them, whoever else does so at the same time.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] if one does not end in time; [`Error::Panicked`] if the engine's had
    /// panicked.
    pub(super) fn stop(&self, timeout: Duration) -> Result<()> {
        let until = after(Instant::now(), timeout);
        self.postbox.post(Mail::Stop, 1);
        *self.stop.lock() = None;
        // A handler may hold the last handle: its thread cannot wait for itself.
        let me = std::thread::current().id();
        let ends: Vec<Receiver<()>> = {
            let threads = self.threads.lock();
            let others = threads.iter().filter(|it| it.handle.thread().id() != me);
            others.map(|it| it.ended.clone()).collect()
        };
        let is_late =
            |ended: &Receiver<()>| ended.recv_deadline(until) == Err(RecvTimeoutError::Timeout);
        if ends.iter().filter(|ended| is_late(ended)).count() > 0 {
            return Err(Error::Timeout);
        }
        let mut threads = self.threads.lock();
        let others = threads.extract_if(.., |it| it.handle.thread().id() != me);
        for thread in others {
            // It is at its end. Why the engine's panicked, its guard says.
            drop(thread.handle.join());
        }
        drop(threads);
        self.published.life.verdict()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(Error::Timeout) = self.stop(STOP_TIMEOUT) {
            log::error!("a route handler does not return; its thread is left behind");
        }
    }
}
