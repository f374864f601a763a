//! Waiting for an attempt: the only place where callers wait, and only callers without a value do.
//!
//! A flight belongs to exactly one claim of one entry. Its outcome is set once, and the event is
//! notified afterwards.
//!
//! Invariants, and the promise each serves:
//!
//! 1. A claimant delivers to the flight of its claim exactly once, whatever happens: the guard in
//!    `publish` delivers when it is dropped (P3: no waiter hangs). Others deliver to it as well:
//!    the end of the claim at its deadline and a claimant that takes over deliver a timeout, a late
//!    result that ends the epoch delivers itself. The first of them decides, and none waits for
//!    another (P2).
//! 2. A waiter checks the outcome, registers, and checks again, so it sees a delivery between the
//!    two checks (no lost wake-up).
//! 3. The flight in an entry is replaced only by the flight of a later claim, or by the closed
//!    flight when the entry has its successor. A waiter that finds the closed flight reads the
//!    table again. The thread that ends an epoch late swaps the closed flight in and delivers to
//!    the flight that it gets. A later claimant comes either before that exchange, and its waiters
//!    get the late result; or after it, and it finds its entry gone (P3).
//! 4. A published entry refers to no earlier entry and, once its flight is closed, to no later one.
//!    So a caller that keeps a value does not keep its successors alive.
//! 5. One alarm serves the waiters of a flight and its running load. The load registers before it
//!    sets the alarm and reads the clock once more afterwards, like every sleeper. A reader that
//!    finds the claim past its deadline wakes the load as well, so a key rests after a timeout even
//!    if the reader is faster than the alarm.

use std::future::poll_fn;
use std::task::Poll;

use crate::error::Error;
use crate::protocol::claim::{ClaimToken, TokenCell};
use crate::protocol::entry::Entry;
use crate::protocol::groups::{Moment, NOT_BEGUN};
use crate::protocol::wait_graph::WaitNode;
use crate::sync::event::Event;
use crate::sync::{Arc, AtomicU8, AtomicU64, OnceLock, Ordering, SetOnce, StrongArc, Weak};
use crate::time::alarm::{self, Sleeper};
use crate::time::clock::Clock;

/// The result of an attempt.
pub enum Outcome<K, V> {
    /// The new entry, whether or not it became resident.
    Published(StrongArc<Entry<K, V>>, Made),
    /// The reason why there is no new entry.
    Failed(Error),
    /// An earlier attempt on the same entry ended it without a value, after its deadline.
    Earlier(Error),
    /// The entry was no longer resident, and nothing was tried: read again.
    Superseded,
}

/// Where a value was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// The loader, in this process.
    Here,
    /// Another process. The value came from the store.
    Elsewhere,
    /// An earlier attempt on the same entry, whose result came after its deadline.
    Earlier,
}

impl<K, V> Clone for Outcome<K, V> {
    fn clone(&self) -> Self {
        match self {
            Outcome::Published(entry, made) => Outcome::Published(entry.clone(), *made),
            Outcome::Failed(error) => Outcome::Failed(error.clone()),
            Outcome::Earlier(error) => Outcome::Earlier(error.clone()),
            Outcome::Superseded => Outcome::Superseded,
        }
    }
}

/// A load that is queued, or whose key a caller reads from a store, as its waiters see it.
pub trait Help: Send + Sync {
    /// Sees to it that the load goes on while this thread waits: runs it here and now, if it is
    /// still queued and this thread must not wait for another thread to run it; or has the key read
    /// by a task that no caller polls.
    fn help(&self);
}

pub struct Flight<K, V> {
    outcome: SetOnce<Outcome<K, V>>,
    signals: Arc<Signals>,
}

/// The part that does not depend on the types of key and value, and that an alarm wakes. Its code
/// is compiled once, not for each cache.
struct Signals {
    token: TokenCell,
    /// 1 once a thread sets the outcome.
    decided: AtomicU8,
    event: Event,
    /// The process whose alarm rings at the deadline, once it is set.
    alarmed: AtomicU64,
    /// The beginning of the load, for the invalidation of groups.
    began: AtomicU64,
    /// The load that runs. It is woken at the deadline before the waiters.
    load: SetOnce<Weak<dyn Sleeper>>,
    /// The clock of that alarm, which is told when the flight is dropped.
    clock: OnceLock<Clock>,
    /// The node of this attempt in the wait graph, which finds cycles of loads; created when it is
    /// first needed.
    wait_node: SetOnce<Arc<WaitNode>>,
    /// The caller whose task reads the key from a store. It hands that over if others wait.
    reader: OnceLock<Arc<dyn Help>>,
    /// The queued job. A worker that waits for it runs it itself.
    task: SetOnce<Arc<dyn Help>>,
}

impl<K, V> Flight<K, V> {
    pub fn new(token: ClaimToken) -> Self {
        Flight {
            outcome: SetOnce::new(),
            signals: Arc::new(Signals::new(token)),
        }
    }

    /// The flight of an attempt that begins.
    #[inline(never)]
    pub fn start(token: ClaimToken) -> StrongArc<Self> {
        StrongArc::new(Self::new(token))
    }

    /// The flight of an entry whose attempts are over.
    pub fn closed() -> Self {
        Self::new(ClaimToken::NEVER)
    }

    pub(crate) fn wait_node(&self) -> &Arc<WaitNode> {
        self.signals
            .wait_node
            .get_or_init(|| Arc::new(WaitNode::default()))
    }

    pub fn is_closed(&self) -> bool {
        self.token() == ClaimToken::NEVER
    }

    pub fn token(&self) -> ClaimToken {
        self.signals.token.get()
    }

    /// The claimant renews its claim: first this, then the claim word.
    pub fn renew(&self, token: ClaimToken) {
        self.signals.renew(token);
    }

    /// Sets the outcome unless another thread does, then wakes all waiters.
    pub fn deliver(&self, outcome: Outcome<K, V>) {
        self.decide(outcome);
        self.wake_waiters();
    }

    /// Sets the outcome unless another thread does. The caller wakes the waiters later.
    pub fn decide(&self, outcome: Outcome<K, V>) {
        // If a late claimant and the one that took over decide at once, one of them does and the
        // other does not wait for it. Relaxed: the outcome publishes itself.
        if self.signals.decided.swap(1, Ordering::Relaxed) == 0 {
            self.outcome.get_or_init(|| outcome);
        }
    }

    /// Wakes every waiter that listened before and saw no outcome. A waker that panics strands no
    /// other waiter.
    pub fn wake_waiters(&self) {
        self.signals.event.notify_all();
    }

    /// Whether the attempt is over.
    pub fn has_ended(&self) -> bool {
        self.outcome.get().is_some()
    }

    pub fn outcome(&self) -> Option<Outcome<K, V>> {
        self.outcome.get().cloned()
    }

    /// Sets the queued job for which this flight waits, before the job can run.
    pub fn waits_for(&self, task: Arc<dyn Help>) {
        // Each flight has one job, so the cell is empty.
        let _ = self.signals.task.set(task);
        // A worker may be waiting already, and must not wait for a job that only it could run.
        self.signals.event.notify_all();
    }

    /// Sets the caller whose task reads the key from a store, before it begins.
    pub fn is_read_by(&self, reader: Arc<dyn Help>) {
        // Each flight has one job, so the cell is empty.
        let _ = self.signals.reader.set(reader);
        // Another caller may be waiting already, and must not depend on that task.
        self.signals.event.notify_all();
    }

    fn progress(&self) -> Option<Outcome<K, V>> {
        if let Some(reader) = self.signals.reader.get() {
            reader.help();
        }
        if let Some(task) = self.signals.task.get() {
            task.help();
        }
        self.outcome()
    }

    /// Waits for the outcome, at most until the deadline of its claim by this clock; `None` if the
    /// deadline came first.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only removes this waiter.
    pub async fn land(&self, clock: &Clock) -> Option<Outcome<K, V>> {
        if let Some(outcome) = self.outcome() {
            return Some(outcome);
        }
        self.set_alarm(clock);
        // The deadline is read again each time, because the claimant may renew its claim.
        self.wait(|| clock.now() >= self.token().deadline()).await
    }

    /// Registers the load that runs, which is woken at the deadline, at once if that has passed.
    pub fn watch(&self, load: &Arc<dyn Sleeper>, clock: &Clock) {
        // Each flight has one load, so the cell is empty.
        let _ = self.signals.load.set(Arc::downgrade(load));
        self.set_alarm(clock);
        // The alarm of a waiter may have rung before this flight knew the load.
        if clock.now() >= self.token().deadline() {
            load.wake();
        }
    }

    /// The load begins, at this moment of the groups: its next step may read an old value. Called
    /// again when it reads another source, whose answer replaces that of the first.
    pub fn begins(&self, now: Moment) {
        // An exchange, and AcqRel: see `began`.
        self.signals.began.swap(now, Ordering::AcqRel);
    }

    /// The beginning of the load, [`NOT_BEGUN`] before it.
    pub fn began(&self) -> Moment {
        // This exchange and the one in `begins` have one order. If this caller is the first, the
        // load that begins sees what this caller has seen, above all the write to the origin before
        // an invalidation.
        self.signals.began.fetch_add(0, Ordering::AcqRel)
    }

    /// Whether the load has begun. If not, it will see what this caller has done before.
    pub fn has_begun(&self) -> bool {
        // This exchange and the one in `set_alarm`, before the loader is called, have one order: of
        // the two threads, the later one sees the earlier one.
        self.signals.alarmed.fetch_add(0, Ordering::AcqRel);
        self.signals.load.get().is_some()
    }

    /// Wakes the load that runs, if the flight has one, because its deadline has passed.
    pub fn wake_load(&self) {
        self.signals.wake_load();
    }

    /// Waits until `is_over` holds after a delivery; `is_over` does before the delivery is made.
    pub async fn ended(&self, is_over: impl Fn() -> bool) {
        loop {
            // Listens before it checks, so that a delivery between the two is not lost.
            let listener = self.signals.event.listen();
            if is_over() {
                return;
            }
            listener.await;
        }
    }

    /// The part that an alarm wakes.
    pub fn sleeper(&self) -> Weak<dyn Sleeper> {
        let signals: Weak<Signals> = Arc::downgrade(&self.signals);
        signals
    }

    fn set_alarm(&self, clock: &Clock) {
        self.signals.set_alarm(clock, &|| self.sleeper());
    }

    /// Waits until one of these flights has its outcome or is past its deadline.
    ///
    /// # Cancel safety
    ///
    /// As [`land`](Self::land).
    pub async fn land_any(flights: &[StrongArc<Self>], clock: &Clock) {
        let mut ends: Vec<_> = (flights.iter())
            .map(|flight| Box::pin(flight.land(clock)))
            .collect();
        poll_fn(
            |cx| match ends.iter_mut().any(|end| end.as_mut().poll(cx).is_ready()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            },
        )
        .await;
    }

    /// Waits for the outcome, or until `is_over` holds after a wake-up. A worker of a pool runs the
    /// job for which it waits if that is still queued.
    pub async fn wait(&self, is_over: impl Fn() -> bool) -> Option<Outcome<K, V>> {
        loop {
            if let Some(outcome) = self.progress() {
                return Some(outcome);
            }
            let listener = self.signals.event.listen();
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

impl Signals {
    fn new(token: ClaimToken) -> Self {
        Signals {
            token: TokenCell::new(token),
            decided: AtomicU8::new(0),
            event: Event::new(),
            alarmed: AtomicU64::new(0),
            began: AtomicU64::new(NOT_BEGUN),
            load: SetOnce::new(),
            clock: OnceLock::new(),
            wait_node: SetOnce::new(),
            reader: OnceLock::new(),
            task: SetOnce::new(),
        }
    }

    /// The claimant renews its claim: first this, then the claim word.
    fn renew(&self, token: ClaimToken) {
        self.token.set(token);
        // The alarm that is set rings at the old deadline, and `watch` sets another. A waiter that
        // sets it first has read the old deadline or the new one.
        // Release, and Acquire in `set_alarm`: a waiter that finds this sets it by the new token.
        self.alarmed.swap(0, Ordering::Release);
    }

    /// Wakes the load that runs, if the flight has one, because its deadline has passed.
    fn wake_load(&self) {
        // This exchange and the one in `set_alarm` have one order. If the load that starts is the
        // later one, it sees the clock that this caller saw. Else its registration is seen here.
        self.alarmed.fetch_add(0, Ordering::AcqRel);
        if let Some(load) = self.load.get().and_then(Weak::upgrade) {
            load.wake();
        }
    }

    /// Sets the alarm, once for the load and all waiters, and again after a fork because the
    /// parent's alarm does not ring here.
    fn set_alarm(&self, clock: &Clock, sleeper: &dyn Fn() -> Weak<dyn Sleeper>) {
        // AcqRel pairs with the exchange in `wake_load`, after which a load may rely on the alarm
        // of a waiter, and with the one in `renew`.
        let process = alarm::process();
        let before = self.alarmed.swap(u64::from(process), Ordering::AcqRel);
        if before != u64::from(process) {
            let deadline = self.token.get().deadline();
            clock.wake_at(process, deadline, sleeper());
            let _ = self.clock.set(clock.clone());
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        if let Some(clock) = self.clock.take() {
            clock.dropped();
        }
    }
}

impl Sleeper for Signals {
    fn wake(&self) {
        // First the load, whose claim then cools, so that a waiter which reads again finds that.
        self.wake_load();
        self.event.notify_all();
    }
}
