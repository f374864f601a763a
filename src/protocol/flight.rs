//! Waiting for an attempt: the only place where callers wait, and they do so only without a value.
//!
//! A flight belongs to exactly one claim of one entry. Its outcome is set once; the event is notified after.
//!
//! Invariants, and the promise each serves:
//!
//! 1. Whoever holds a claim delivers to that claim's flight exactly once, whatever happens; the
//!    guard in `publish` does it when dropped (P3: none hangs). Who takes over delivers as well, that it
//!    timed out; the first of the two decides, and neither waits for the other (P2).
//! 2. A waiter looks for the outcome, registers, and looks again, so a delivery between the two
//!    looks is seen (no lost wake-up).
//! 3. The flight in an entry is replaced only by that of a later claim, or by the closed one when the
//!    entry has its successor. A waiter that finds the closed flight reads the table again.
//! 4. A published entry refers to no earlier one and, once its flight is closed, to no later one: a
//!    value that somebody keeps does not keep its successors.

use crate::error::Error;
use crate::protocol::claim::ClaimToken;
use crate::protocol::entry::Entry;
use crate::protocol::wait_graph::WaitNode;
use crate::sync::event::Event;
use crate::sync::{Arc, AtomicU8, AtomicU64, Ordering, SetOnce};
use crate::time::alarm::{self, Sleeper};
use crate::time::clock::Clock;

/// What an attempt came to.
pub enum Outcome<K, V> {
    /// The entry it made, whether or not it became resident.
    Published(Arc<Entry<K, V>>, Made),
    /// Why there is none.
    Failed(Error),
    /// The entry was no longer resident, nothing was tried: read again.
    Superseded,
}

/// Who made a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// The loader, in this process.
    Here,
    /// Another process; it came from the store.
    Elsewhere,
}

impl<K, V> Clone for Outcome<K, V> {
    fn clone(&self) -> Self {
        match self {
            Outcome::Published(entry, made) => Outcome::Published(entry.clone(), *made),
            Outcome::Failed(error) => Outcome::Failed(error.clone()),
            Outcome::Superseded => Outcome::Superseded,
        }
    }
}

/// A queued load, as those who wait for it see it.
pub trait Help: Send + Sync {
    /// Runs it here and now, if it still waits and this thread must not wait for another to run it.
    fn help(&self);
}

pub struct Flight<K, V> {
    pub token: ClaimToken,
    /// 1 once somebody sets the outcome.
    decided: AtomicU8,
    outcome: SetOnce<Outcome<K, V>>,
    event: Event,
    /// The process whose alarm wakes waiters at the deadline, once it is set.
    alarmed: AtomicU64,
    /// What this attempt itself waits for, to find cycles of loads; made when it is first asked for.
    wait_node: SetOnce<Arc<WaitNode>>,
    /// The queued job, which a worker that waits for it runs itself.
    task: SetOnce<Arc<dyn Help>>,
}

impl<K, V> Flight<K, V> {
    pub fn new(token: ClaimToken) -> Self {
        Flight {
            token,
            decided: AtomicU8::new(0),
            outcome: SetOnce::new(),
            event: Event::new(),
            alarmed: AtomicU64::new(0),
            wait_node: SetOnce::new(),
            task: SetOnce::new(),
        }
    }

    /// The flight of an entry whose attempts are over.
    pub fn closed() -> Self {
        Self::new(ClaimToken::NEVER)
    }

    pub(crate) fn wait_node(&self) -> &Arc<WaitNode> {
        self.wait_node.get_or_init(|| Arc::new(WaitNode::default()))
    }

    pub fn is_closed(&self) -> bool {
        self.token == ClaimToken::NEVER
    }

    /// Sets the outcome unless somebody does, then wakes everybody.
    pub fn deliver(&self, outcome: Outcome<K, V>) {
        // Of a late claimant and whoever takes over one decides, and the other does not wait for it. Relaxed: the outcome publishes itself.
        if self.decided.swap(1, Ordering::Relaxed) == 0 {
            self.outcome.get_or_init(|| outcome);
        }
        // A waiter that listened before this and saw no outcome is woken; one that panics when it
        // is woken strands no other.
        self.event.notify_all();
    }

    /// Whether the attempt is over.
    pub fn has_ended(&self) -> bool {
        self.outcome.get().is_some()
    }

    pub fn outcome(&self) -> Option<Outcome<K, V>> {
        self.outcome.get().cloned()
    }

    /// Says which queued job this flight waits for, before the job can run.
    pub fn waits_for(&self, task: Arc<dyn Help>) {
        // Each flight has one job, so the cell is empty.
        let _ = self.task.set(task);
        // A worker may be waiting already, and must not wait for a job that only it could run.
        self.event.notify_all();
    }

    fn progress(&self) -> Option<Outcome<K, V>> {
        if let Some(task) = self.task.get() {
            task.help();
        }
        self.outcome()
    }

    /// Waits for the outcome, at most until the deadline of its claim by this clock; `None` if that came first.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only removes this waiter.
    pub async fn land(self: &Arc<Self>, clock: &Clock) -> Option<Outcome<K, V>>
    where
        K: Send + Sync + 'static,
        V: Send + Sync + 'static,
    {
        let deadline = self.token.deadline();
        // Before it is waited for, and once for all who do, but again after a fork: the parent's
        // alarm does not ring here. Relaxed: the alarm is set by a thread that is running.
        let process = u64::from(alarm::process());
        if self.alarmed.swap(process, Ordering::Relaxed) != process {
            let sleeper: Arc<dyn Sleeper> = self.clone();
            clock.wake_at(deadline, Arc::downgrade(&sleeper));
        }
        self.wait(|| clock.now() >= deadline).await
    }

    /// Waits for the outcome, or until whoever wakes this flight has made it be over; a worker of a pool runs the job it
    /// waits for if that is still queued.
    pub async fn wait(&self, is_over: impl Fn() -> bool) -> Option<Outcome<K, V>> {
        loop {
            if let Some(outcome) = self.progress() {
                return Some(outcome);
            }
            let listener = self.event.listen();
            if let Some(outcome) = self.progress() {
                return Some(outcome);
            }
            if is_over() {
                return None;
            }
            listener.await;
        }
    }
}

impl<K: Send + Sync, V: Send + Sync> Sleeper for Flight<K, V> {
    fn wake(&self) {
        self.event.notify_all();
    }
}
