//! The supervisor of one connection, which is always up or being made.
//!
//! States: connecting, up, down. A task owns the state; callers get the connection or fail at once.
//! While the connection is up, heartbeats are sent over it. Replies come in order, so the
//! reply to a heartbeat shows that every earlier command was answered. A heartbeat without a reply
//! ends the connection, and with it every command in flight, unless the connection shows signs of
//! life meanwhile: on a slow line the reply comes after large values. So no command needs a timer,
//! and none waits longer than from one heartbeat to the end of the next while nothing arrives.

use std::pin::pin;
use std::time::Duration;

use rand::RngExt;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisResult, Value};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::classify::{self, Failure};
use super::dial::{Driver, PushHandler, Target};
use super::limited_stream::{SignsOfLife, StreamLimit};
use super::outage_log::OutageLog;
use super::shared::both;
use crate::rng::with_rng;
use crate::store::StoreState;
use crate::store::error::{ErrorClass, StoreError};
use crate::sync::event::Event;
use crate::sync::future::or;
use crate::sync::{Arc, ArcCell, Mutex, OnceLock, lock};

/// The first and the longest pause between attempts to connect.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// The time limits of a store.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// For an operation.
    pub(super) operation: Duration,
    /// For an attempt to connect, which takes several round trips.
    pub(super) connect: Duration,
}

/// A connection that is up.
pub(super) struct Link {
    connection: MultiplexedConnection,
    closed: Closed,
    signs: SignsOfLife,
    /// Notified when a reply shows that a new connection is needed.
    failed: Notify,
}

/// The end of a connection, of which every caller that waits for a reply is notified.
struct Closed {
    /// Set before the connection ends.
    why: OnceLock<StoreError>,
    ended: Event,
}

impl Closed {
    fn new() -> Self {
        Closed {
            why: OnceLock::new(),
            ended: Event::new(),
        }
    }

    fn end(&self, why: StoreError) {
        let _ = self.why.set(why);
        self.ended.notify_all();
    }

    /// Waits for a reply or for the end of the connection. A command sent while the driver shuts
    /// down stays in the queue and gets neither a reply nor an error, so waiting for the reply
    /// alone could last for ever (P3).
    async fn or<T>(&self, answer: impl Future<Output = T>) -> Result<T, StoreError> {
        let end = async {
            // Registers before it checks, so that no end is missed.
            let ended = self.ended.listen();
            if self.why.get().is_none() {
                ended.await;
            }
            Err(self.why.get().cloned().unwrap_or_else(lost))
        };
        or(async { Ok(answer.await) }, end).await
    }
}

/// Keeps one connection up, and makes it again whenever it is lost.
pub(super) struct Supervisor {
    link: ArcCell<Link>,
    state: Mutex<StoreState>,
    /// Notified when the state changes.
    changed: Arc<Event>,
    log: Arc<OutageLog>,
    /// Notified when the role must prepare the connection again.
    pub(super) wake: Notify,
}

/// The use of a connection.
pub(super) trait Role: Send + Sync {
    /// The limit for the strings in replies.
    fn stream_limit(&self) -> &Arc<StreamLimit>;

    /// The handler of pushes, if the role wants any.
    fn push_handler(&self) -> Option<PushHandler>;

    /// Whether scripts are run.
    fn runs_scripts(&self) -> bool;

    /// Runs before callers may use the connection, and whenever `wake` is notified.
    fn prepare(&self, link: &Link) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Runs once the connection is prepared, just before callers may use it.
    fn is_up(&self);

    /// Sends a command that a working server always answers.
    fn heartbeat(&self, link: &Link) -> impl Future<Output = Result<(), Failure>> + Send;
}

impl Link {
    /// Sends one command. An error reply of the server is returned as a value.
    pub(super) async fn send(&self, command: &Cmd) -> Result<Value, Failure> {
        let mut connection = self.connection.clone();
        self.answer(connection.send_packed_command(command)).await
    }

    /// Sends many commands at once.
    pub(super) async fn send_all(&self, pipeline: &redis::Pipeline) -> Result<Vec<Value>, Failure> {
        let mut connection = self.connection.clone();
        let answers = connection.send_packed_commands(pipeline, 0, pipeline.len());
        self.answer(answers).await
    }

    pub(super) async fn subscribe(&self, channels: Vec<String>) -> Result<(), Failure> {
        let mut connection = self.connection.clone();
        self.answer(connection.subscribe(channels)).await
    }

    async fn answer<T>(&self, answer: impl Future<Output = RedisResult<T>>) -> Result<T, Failure> {
        match self.closed.or(answer).await {
            Ok(answer) => answer.map_err(|error| self.failure(error)),
            Err(error) => Err(Failure {
                error,
                reconnect: true,
            }),
        }
    }

    fn failure(&self, error: redis::RedisError) -> Failure {
        let failure = classify::client(error);
        match self.closed.why.get() {
            Some(closed) if failure.reconnect => Failure {
                error: closed.clone(),
                reconnect: true,
            },
            _ => failure,
        }
    }

    /// Returns the error for the caller, and asks for a new connection if the failure needs one.
    pub(super) fn report(&self, failure: Failure) -> StoreError {
        if failure.reconnect {
            self.failed.notify_one();
        }
        failure.error
    }
}

impl Supervisor {
    pub(super) fn new(changed: Arc<Event>, log: Arc<OutageLog>) -> Self {
        Supervisor {
            link: ArcCell::empty(),
            state: Mutex::new(StoreState::Connecting),
            changed,
            log,
            wake: Notify::new(),
        }
    }

    /// Returns the connection, or the reason why none is up. Never waits.
    pub(super) fn link(&self) -> Result<Arc<Link>, StoreError> {
        match &*self.link.load() {
            Some(link) => Ok(link.clone()),
            None => Err(match self.state() {
                StoreState::Down(error) => error,
                _ => StoreError::new(ErrorClass::Unavailable, "not connected yet"),
            }),
        }
    }

    pub(super) fn state(&self) -> StoreState {
        lock(&self.state).clone()
    }

    fn set_state(&self, state: StoreState) {
        let before = std::mem::replace(&mut *lock(&self.state), state.clone());
        self.log.change(&before, &state);
        self.changed.notify_all();
    }

    /// Keeps the connection up, for ever.
    pub(super) async fn supervise(&self, target: &Target, limits: Limits, role: &impl Role) {
        let mut pause = PAUSES.0;
        loop {
            let deadline = Instant::now() + limits.connect;
            let error = match self.connect(target, deadline, role).await {
                Ok((link, driver)) => {
                    role.is_up();
                    self.link.swap(Some(link.clone()));
                    self.set_state(StoreState::Up);
                    let (error, heartbeats) =
                        self.watch(&link, driver, limits.operation, role).await;
                    if heartbeats > 0 {
                        pause = PAUSES.0;
                    }
                    error
                }
                Err(error) => error,
            };
            self.set_state(StoreState::Down(error));
            // Shortened at random by up to a half, so that a fleet does not reconnect in step.
            sleep(pause.mul_f64(with_rng(|rng| rng.random_range(0.5..1.0)))).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn connect(
        &self,
        target: &Target,
        deadline: Instant,
        role: &impl Role,
    ) -> Result<(Arc<Link>, Driver), StoreError> {
        let spawn = |driver| Driver(tokio::spawn(driver));
        let (connection, driver, signs) = target
            .dial(
                deadline,
                role.stream_limit(),
                role.push_handler(),
                role.runs_scripts(),
                spawn,
            )
            .await?;
        let link = Arc::new(Link {
            connection,
            closed: Closed::new(),
            signs,
            failed: Notify::new(),
        });
        // Both in one round trip.
        let steps = both(role.heartbeat(&link), role.prepare(&link));
        match timeout_at(deadline, steps).await {
            Ok(Ok(())) => Ok((link, driver)),
            Ok(Err(failure)) => Err(failure.error),
            Err(_) => Err(StoreError::new(ErrorClass::TimedOut, "connecting")),
        }
    }

    /// Runs heartbeats until the connection is no longer usable. Returns the reason and the
    /// number of heartbeats; no command is in flight then.
    async fn watch(
        &self,
        link: &Link,
        mut driver: Driver,
        limit: Duration,
        role: &impl Role,
    ) -> (StoreError, u64) {
        enum Signal {
            Ended,
            Failed,
            Woken,
            Time,
        }
        let mut end_guard = EndOnDrop {
            supervisor: self,
            link,
            why: lost(),
        };
        let mut heartbeats = 0;
        let error = loop {
            let ended = async {
                let _ = (&mut driver.0).await;
                Signal::Ended
            };
            let failed = async {
                link.failed.notified().await;
                Signal::Failed
            };
            let woken = async {
                self.wake.notified().await;
                Signal::Woken
            };
            let time = async {
                sleep(limit / 3).await;
                Signal::Time
            };
            let signal = or(or(ended, failed), or(woken, time)).await;
            let done = match signal {
                Signal::Ended => break lost(),
                Signal::Failed => {
                    break StoreError::new(
                        ErrorClass::Refused,
                        "no longer the master, or not logged in",
                    );
                }
                Signal::Woken => alive(limit * 2 / 3, &link.signs, role.prepare(link)).await,
                Signal::Time => alive(limit * 2 / 3, &link.signs, role.heartbeat(link)).await,
            };
            match done {
                None => break StoreError::new(ErrorClass::TimedOut, "no heartbeat"),
                Some(Err(failure)) if failure.reconnect => break failure.error,
                Some(_) => heartbeats += 1,
            }
        };
        end_guard.why = error.clone();
        drop(end_guard);
        drop(driver);
        (error, heartbeats)
    }
}

/// Waits for work; `None` if the connection shows no sign of life for so long before it is done.
async fn alive<T>(
    silence: Duration,
    signs: &SignsOfLife,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = pin!(work);
    loop {
        let before = signs.count();
        match timeout(silence, work.as_mut()).await {
            Ok(done) => return Some(done),
            Err(_) if signs.count() == before => return None,
            Err(_) => {}
        }
    }
}

fn lost() -> StoreError {
    StoreError::new(ErrorClass::Unavailable, "connection lost")
}

/// Ends a link before its driver ends, even if the task that watches it is dropped with a runtime.
struct EndOnDrop<'a> {
    supervisor: &'a Supervisor,
    link: &'a Link,
    why: StoreError,
}

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        // First hide the link from new callers, then give the error to the commands in flight.
        self.supervisor.link.swap(None);
        self.link.closed.end(self.why.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_lite::future::{block_on, pending, poll_once, ready};

    use super::{Closed, lost};

    #[test]
    fn a_caller_that_waits_for_a_reply_is_told_of_the_end() {
        let closed = Closed::new();
        let mut waits = pin!(closed.or(pending::<()>()));
        assert_eq!(block_on(poll_once(waits.as_mut())), None);
        closed.end(lost());
        assert_eq!(block_on(poll_once(waits)), Some(Err(lost())));
    }

    #[test]
    fn after_the_end_a_caller_does_not_wait_but_a_reply_that_is_ready_counts() {
        let closed = Closed::new();
        closed.end(lost());
        let mut waits = pin!(closed.or(pending::<()>()));
        assert_eq!(block_on(poll_once(waits.as_mut())), Some(Err(lost())));
        assert_eq!(block_on(poll_once(closed.or(ready(7)))), Some(Ok(7)));
    }
}
