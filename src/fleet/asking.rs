//! Asking for leases, for one job or for several that miss together.
//!
//! Jobs that miss together ask together, in one round trip. Those that are granted their leases
//! load together: with a loader that takes many keys they are one batch. A job that has to wait for
//! another process goes on alone.

use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::fetch::Asking;
use super::lease::{Duty, Grant, Lease};
use super::pending_writes::WriteState;
use super::version::Moment;
use super::{Fleet, Underway};
use crate::error::Error;
use crate::load::job::Job;
use crate::protocol::groups::Cell;
use crate::store::{Acquire, Acquired, Epoch, StoreError, StoreKey, Token};
use crate::sync::event::Event;
use crate::sync::future::or;
use crate::sync::{Arc, Ordering};
use crate::time::clock::{Tick, ticks};

/// A job that asks for the lease of its key. The epoch is that of a payload that was read and
/// cannot be used.
pub(super) type Ask<K, V> = (StoreKey, Asking<K, V>, Option<Epoch>);

/// A job on its way to the lease of its key.
struct Turn<K, V> {
    key: StoreKey,
    job: Job<K, V>,
    token: Token,
    /// The epoch that this process has or cannot read; a placeholder has none.
    seen: Option<Epoch>,
    /// The cells of the groups that follow from the key.
    cells: Vec<Cell>,
    _underway: Underway<K, V>,
}

/// How things were before a question.
struct Before {
    changes: Option<Changes>,
    not_stored: u64,
    gaps: u64,
    duty: Duty,
}

/// The changes of a key from a moment on.
struct Changes {
    event: Arc<Event>,
    times: u64,
}

/// What a job does after an answer.
enum Next<K, V> {
    /// It loads, or has ended.
    Done,
    Asks(Turn<K, V>),
    Waits(Waiting<K, V>),
}

/// A job that waits for the process that has the lease.
struct Waiting<K, V> {
    turn: Turn<K, V>,
    until: Tick,
    changes: Option<Changes>,
    not_stored: u64,
}

impl<K, V> Fleet<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Asks for leases, until each job has a value, its lease, or an end.
    pub(super) fn ask(self: &Arc<Self>, mut asks: Vec<Ask<K, V>>) {
        if asks.len() > 1 {
            self.store.spawn(self.clone().ask_together(asks));
        } else if let Some(ask) = asks.pop() {
            self.keep_asking(self.turn(ask));
        }
    }

    fn turn(&self, (key, asking, unusable): Ask<K, V>) -> Turn<K, V> {
        let Asking { job, _underway } = asking;
        let resident = (!job.is_cold()).then(|| self.versions.seen(key.hash()));
        Turn {
            token: Token {
                origin: self.origin,
                serial: self.serial.fetch_add(1, Ordering::Relaxed),
            },
            seen: unusable.or(resident.flatten()),
            cells: self.cells_of_key(job.key()),
            key,
            job,
            _underway,
        }
    }

    fn keep_asking(self: &Arc<Self>, turn: Turn<K, V>) {
        self.store.spawn(self.clone().asks(Next::Asks(turn)));
    }

    async fn asks(self: Arc<Self>, mut next: Next<K, V>) {
        loop {
            let turn = match next {
                Next::Done => return,
                Next::Asks(turn) => turn,
                Next::Waits(waiting) => match self.held(waiting).await {
                    Some(turn) => turn,
                    None => return,
                },
            };
            if !(self.flushed(turn.key.hash()).await && self.cells_flushed(&turn.cells).await) {
                return self.unleased(turn.job);
            }
            self.prepare_cells(&turn.cells).await;
            let Some((turn, before)) = self.before(turn) else {
                return;
            };
            let timeline = self.timeline();
            let answer = self.store.acquire(&turn.key, self.question(&turn)).await;
            let payload = stored(&answer).into_iter();
            let moment = self.answered_with(timeline, payload).await;
            next = self.acquired(turn, before, answer, moment);
        }
    }

    /// Asks for all leases in one round trip. A job that has to wait goes on in a task of its own.
    async fn ask_together(self: Arc<Self>, asks: Vec<Ask<K, V>>) {
        let (mut flushed, mut cells) = (Vec::new(), Vec::new());
        for ask in asks {
            let turn = self.turn(ask);
            match self.is_flushed(&turn) {
                true => {
                    cells.extend_from_slice(&turn.cells);
                    flushed.push(turn);
                }
                false => self.keep_asking(turn),
            }
        }
        cells.sort_unstable();
        cells.dedup();
        self.prepare_cells(&cells).await;
        let (mut turns, mut questions) = (Vec::new(), Vec::new());
        for turn in flushed {
            if let Some((turn, before)) = self.before(turn) {
                questions.push((turn.key.clone(), self.question(&turn)));
                turns.push((turn, before));
            }
        }
        let timeline = self.timeline();
        let answers = self.store.acquire_many(&questions).await;
        let payloads = answers.iter().filter_map(stored);
        let moment = self.answered_with(timeline, payloads).await;
        // So that jobs with leases that were granted together load together.
        let hold = self.state.hold();
        for ((turn, before), answer) in turns.into_iter().zip(answers) {
            // If user code panics here, the other jobs still get their answers.
            let acquired = || match self.acquired(turn, before, answer, moment) {
                Next::Done => {}
                next => {
                    self.store.spawn(self.clone().asks(next));
                }
            };
            let _ = catch_unwind(AssertUnwindSafe(acquired));
        }
        drop(hold);
    }

    /// The facts to note before the question. `None` if the job ends here.
    fn before(&self, turn: Turn<K, V>) -> Option<(Turn<K, V>, Before)> {
        let hash = turn.key.hash();
        if !turn.job.is_wanted() {
            return None;
        }
        if self.state.lifecycle.is_closed() {
            turn.job.closed();
            return None;
        }
        let before = Before {
            // Before asking, so that no change after the answer is missed.
            changes: self.versions.event(hash).map(|event| Changes {
                times: event.times(),
                event,
            }),
            not_stored: self.versions.not_stored(hash),
            // Before the grant, so that a change after it is told, or is in a later gap.
            gaps: self.store.gaps(),
            // From here on, because the answer may be a lease.
            duty: Duty::begin(&self.state.lifecycle),
        };
        Some((turn, before))
    }

    fn question(&self, turn: &Turn<K, V>) -> Acquire {
        Acquire {
            seen: turn.seen,
            token: turn.token,
            lease: self.lease,
        }
    }

    /// Handles an answer.
    fn acquired(
        self: &Arc<Self>,
        mut turn: Turn<K, V>,
        before: Before,
        answer: Result<Acquired, StoreError>,
        moment: Moment,
    ) -> Next<K, V> {
        let Before { duty, .. } = before;
        match answer {
            Ok(Acquired::Stored(payload)) => {
                duty.done();
                match self.install(turn.job, &turn.key, &payload, moment) {
                    None => return Next::Done,
                    Some((back, None)) => self.unleased(back),
                    Some((back, epoch)) => {
                        turn.job = back;
                        turn.seen = epoch;
                        return Next::Asks(turn);
                    }
                }
            }
            Ok(Acquired::Granted { base }) => {
                self.counters.leases_granted.add();
                let base = self.version(base);
                let Turn {
                    key, job, token, ..
                } = turn;
                let gaps = before.gaps;
                let grant = Grant { token, base, gaps };
                let lease = Lease::granted(self, key, grant, job.interest(), duty);
                (self.load)(job.under(Box::new(lease)));
            }
            Ok(Acquired::Held { left }) => {
                duty.done();
                self.counters.leases_denied.add();
                // From the answer on.
                let now = self.state.clock.now();
                return Next::Waits(Waiting {
                    turn,
                    until: now.saturating_add(ticks(left).max(1_000_000)),
                    changes: before.changes,
                    not_stored: before.not_stored,
                });
            }
            Ok(Acquired::Cooling { left }) => {
                duty.done();
                turn.job.cool(Error::failed(FleetCools), ticks(left));
            }
            Err(_) => self.unleased(turn.job),
        }
        Next::Done
    }

    /// Waits for the process that has the lease. `None` if the job loads without one.
    async fn held(&self, waiting: Waiting<K, V>) -> Option<Turn<K, V>> {
        let Waiting {
            turn,
            until,
            changes,
            not_stored,
        } = waiting;
        let ends = or(
            self.state.clock.sleep_until(until),
            self.state.lifecycle.closed(),
        );
        match changes {
            Some(Changes { event, times }) => or(event.listen_since(times), ends).await,
            None => ends.await,
        }
        if self.versions.not_stored(turn.key.hash()) != not_stored {
            // Not one after the other, because no result of this key can be shared.
            self.unleased(turn.job);
            return None;
        }
        Some(turn)
    }

    fn is_flushed(&self, turn: &Turn<K, V>) -> bool {
        let is_flushed = |state: WriteState| matches!(state, WriteState::Flushed);
        is_flushed(self.versions.write_state(turn.key.hash()))
            && is_flushed(self.cells.last_state(&turn.cells))
    }

    /// Waits until the store knows the writes of this process. Returns false if one could not be
    /// flushed, or the last attempt for any key found no store.
    async fn flushed(&self, hash: u128) -> bool {
        loop {
            let Some(event) = self.versions.event(hash) else {
                return true;
            };
            let changed = event.listen();
            match self.versions.write_state(hash) {
                WriteState::Flushed => return true,
                WriteState::Failed(_) => return false,
                WriteState::InFlight if self.queue.is_down() => return false,
                WriteState::InFlight if self.state.lifecycle.is_closed() => return false,
                WriteState::InFlight => or(changed, self.state.lifecycle.closed()).await,
            }
        }
    }
}

/// The payload of an answer, if it is one.
fn stored(answer: &Result<Acquired, StoreError>) -> Option<&[u8]> {
    match answer {
        Ok(Acquired::Stored(payload)) => Some(payload),
        _ => None,
    }
}

/// Loads of the key failed a moment ago, in this process or in many others.
#[derive(Debug)]
struct FleetCools;

impl std::fmt::Display for FleetCools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("loads of this key failed a moment ago; it is tried again soon")
    }
}

impl std::error::Error for FleetCools {}
