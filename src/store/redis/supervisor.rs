//! One connection that is always there or being made: the supervisor.
//!
//! States: connecting, up, down. A task owns them; callers find the connection or fail at once. While it is up a heartbeat goes over the
//! connection itself. Answers come in order, so a heartbeat that is answered says that everything asked before it was; one that
//! is not ends the connection, and with it everything in flight. So no command needs a timer, and none waits longer than
//! from one heartbeat to the end of the next.

use std::time::Duration;

use rand::RngExt;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisResult, Value};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::classify::{self, Trouble};
use super::dial::{Driver, PushHandler, Target};
use super::limited_stream::StreamLimit;
use crate::observe::trace;
use crate::rng::with_rng;
use crate::store::StoreState;
use crate::store::error::{ErrorClass, StoreError};
use crate::sync::event::Event;
use crate::sync::future::or;
use crate::sync::{Arc, Mutex, OnceLock, Slot, lock};

/// The first and the longest pause between attempts to connect.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// A connection that is up.
pub(super) struct Link {
    connection: MultiplexedConnection,
    fate: Closed,
    /// A caller was answered that a new connection is needed.
    suspect: Notify,
}

/// The end of a connection, which whoever waits for an answer hears of.
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

    /// Waits for an answer, at most until the end: what is sent in the moment in which the driver of a connection ends is never answered
    /// and never refused, because the queue between them keeps it (P3).
    async fn or<T>(&self, answer: impl Future<Output = T>) -> Result<T, StoreError> {
        let end = async {
            // Registers before it looks, so that no end is missed.
            let ended = self.ended.listen();
            if self.why.get().is_none() {
                ended.await;
            }
            Err(self.why.get().cloned().unwrap_or_else(lost))
        };
        or(async { Ok(answer.await) }, end).await
    }
}

/// A connection that is always there or being made.
pub(super) struct Supervisor {
    link: Slot<Link>,
    state: Mutex<StoreState>,
    /// The state has changed.
    changed: Arc<Event>,
    /// There is something to do on the connection that is up.
    pub(super) wake: Notify,
}

/// What is done on a connection besides keeping it up.
pub(super) trait Role: Send + Sync {
    /// How long answers may be.
    fn cap(&self) -> &Arc<StreamLimit>;

    /// Hears pushes, if anything is to be heard.
    fn push_handler(&self) -> Option<PushHandler>;

    /// Before callers may use it, and whenever the supervisor is poked.
    fn prepare(&self, link: &Link) -> impl Future<Output = Result<(), Trouble>> + Send;

    /// It is prepared; its callers may use it right after.
    fn is_up(&self);

    /// A heartbeat: asks for something that a server always answers.
    fn heartbeat(&self, link: &Link) -> impl Future<Output = Result<(), Trouble>> + Send;
}

impl Link {
    /// Asks one thing. An error that the server answers is a value.
    pub(super) async fn send(&self, command: &Cmd) -> Result<Value, Trouble> {
        let mut connection = self.connection.clone();
        self.answer(connection.send_packed_command(command)).await
    }

    /// Asks many things at once.
    pub(super) async fn send_all(&self, pipeline: &redis::Pipeline) -> Result<Vec<Value>, Trouble> {
        let mut connection = self.connection.clone();
        let answers = connection.send_packed_commands(pipeline, 0, pipeline.len());
        self.answer(answers).await
    }

    pub(super) async fn subscribe(&self, channels: Vec<String>) -> Result<(), Trouble> {
        let mut connection = self.connection.clone();
        self.answer(connection.subscribe(channels)).await
    }

    async fn answer<T>(&self, answer: impl Future<Output = RedisResult<T>>) -> Result<T, Trouble> {
        match self.fate.or(answer).await {
            Ok(answer) => answer.map_err(|error| self.trouble(error)),
            Err(error) => Err(Trouble {
                error,
                reconnect: true,
            }),
        }
    }

    fn trouble(&self, error: redis::RedisError) -> Trouble {
        let trouble = classify::client(error);
        match self.fate.why.get() {
            Some(fate) if trouble.reconnect => Trouble {
                error: fate.clone(),
                reconnect: true,
            },
            _ => trouble,
        }
    }

    /// The error for a caller; a new connection is made if it takes one.
    pub(super) fn report(&self, trouble: Trouble) -> StoreError {
        if trouble.reconnect {
            self.suspect.notify_one();
        }
        trouble.error
    }
}

impl Supervisor {
    pub(super) fn new(changed: Arc<Event>) -> Self {
        Supervisor {
            link: Slot::new(None),
            state: Mutex::new(StoreState::Connecting),
            changed,
            wake: Notify::new(),
        }
    }

    /// The connection, or why there is none. Never waits.
    pub(super) fn link(&self) -> Result<Arc<Link>, StoreError> {
        match self.link.load() {
            Some(link) => Ok(link.arc().clone()),
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
        match (before, &state) {
            // Told once, not again for each attempt.
            (StoreState::Down(_), StoreState::Down(_)) => {}
            (_, StoreState::Down(error)) => trace::disconnected(error.class().name(), error),
            _ => trace::connected(),
        }
        self.changed.notify_all();
    }

    /// Keeps the supervisor up, for ever.
    pub(super) async fn supervise(&self, target: &Target, limit: Duration, duty: &impl Role) {
        let mut pause = PAUSES.0;
        loop {
            let error = match timeout(limit, self.connect(target, limit, duty)).await {
                Ok(Ok((link, driver))) => {
                    duty.is_up();
                    self.link.swap(Some(link.clone()));
                    self.set_state(StoreState::Up);
                    let (error, beats) = self.watch(&link, driver, limit, duty).await;
                    if beats > 0 {
                        pause = PAUSES.0;
                    }
                    error
                }
                Ok(Err(error)) => error,
                Err(_) => StoreError::new(ErrorClass::TimedOut, "connecting"),
            };
            self.set_state(StoreState::Down(error));
            // Less up to a half, so that a fleet does not come back in step.
            sleep(pause.mul_f64(with_rng(|rng| rng.random_range(0.5..1.0)))).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn connect(
        &self,
        target: &Target,
        limit: Duration,
        duty: &impl Role,
    ) -> Result<(Arc<Link>, Driver), StoreError> {
        let spawn = |driver| Driver(tokio::spawn(driver));
        let (connection, driver) = target
            .dial(limit, duty.cap(), duty.push_handler(), spawn)
            .await?;
        let link = Arc::new(Link {
            connection,
            fate: Closed::new(),
            suspect: Notify::new(),
        });
        let prepared = async {
            duty.heartbeat(&link).await?;
            duty.prepare(&link).await
        };
        prepared.await.map_err(|trouble| trouble.error)?;
        Ok((link, driver))
    }

    /// Returns when the connection is of no more use, why, and after how many heartbeats. Nothing is in flight on it then.
    async fn watch(
        &self,
        link: &Link,
        mut driver: Driver,
        limit: Duration,
        duty: &impl Role,
    ) -> (StoreError, u64) {
        enum Seen {
            Ended,
            Suspect,
            Woken,
            Time,
        }
        let mut over = Over {
            supervisor: self,
            link,
            why: lost(),
        };
        let mut beats = 0;
        let error = loop {
            let ended = async {
                let _ = (&mut driver.0).await;
                Seen::Ended
            };
            let suspect = async {
                link.suspect.notified().await;
                Seen::Suspect
            };
            let poked = async {
                self.wake.notified().await;
                Seen::Woken
            };
            let time = async {
                sleep(limit / 3).await;
                Seen::Time
            };
            let seen = or(or(ended, suspect), or(poked, time)).await;
            let done = match seen {
                Seen::Ended => break lost(),
                Seen::Suspect => {
                    break StoreError::new(
                        ErrorClass::Refused,
                        "not the master any more, or not logged in",
                    );
                }
                Seen::Woken => timeout(limit * 2 / 3, duty.prepare(link)).await,
                Seen::Time => timeout(limit * 2 / 3, duty.heartbeat(link)).await,
            };
            match done {
                Err(_) => break StoreError::new(ErrorClass::TimedOut, "no heartbeat"),
                Ok(Err(trouble)) if trouble.reconnect => break trouble.error,
                Ok(_) => beats += 1,
            }
        };
        over.why = error.clone();
        drop(over);
        drop(driver);
        (error, beats)
    }
}

fn lost() -> StoreError {
    StoreError::new(ErrorClass::Unavailable, "connection lost")
}

/// Ends a link before its driver ends, also when whoever watches it is dropped with a runtime.
struct Over<'a> {
    supervisor: &'a Supervisor,
    link: &'a Link,
    why: StoreError,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        // First nobody finds it any more, then what is in flight learns why.
        self.supervisor.link.swap(None);
        self.link.fate.end(self.why.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_lite::future::{block_on, pending, poll_once, ready};

    use super::{Closed, lost};

    #[test]
    fn who_waits_for_an_answer_hears_of_the_end() {
        let fate = Closed::new();
        let mut waits = pin!(fate.or(pending::<()>()));
        assert_eq!(block_on(poll_once(waits.as_mut())), None);
        fate.end(lost());
        assert_eq!(block_on(poll_once(waits)), Some(Err(lost())));
    }

    #[test]
    fn who_comes_after_the_end_does_not_wait_and_an_answer_counts_all_the_same() {
        let fate = Closed::new();
        fate.end(lost());
        let mut waits = pin!(fate.or(pending::<()>()));
        assert_eq!(block_on(poll_once(waits.as_mut())), Some(Err(lost())));
        assert_eq!(block_on(poll_once(fate.or(ready(7)))), Some(Ok(7)));
    }
}
