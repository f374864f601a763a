//! The group cells as this process knows them: the epoch of each, and the invalidations that the
//! store does not know yet.
//!
//! The epoch of a cell is that of an ordinary record in the store, which every invalidation of a
//! group writes anew. A payload tells the epochs of its cells at the moment at which its load
//! began, and is valid as long as the store has exactly these. Only the store's clock takes part.
//!
//! No hit touches this, and no load of a value without groups. The lock is held for a few
//! instructions, and no other code runs under it.
//!
//! The races that it must survive (P4):
//!
//! 1. An invalidation is told while a payload is being checked and installed. The reader notes its
//!    beginning before the check; the message changes the epoch here before the cell of this
//!    process. So the check fails, or the value is born outdated.
//! 2. An invalidation is told while a load runs. `since` is then later than the beginning of the
//!    load, so its result has no epoch and is not shared.
//! 3. The answer to a comparison overtakes a message, or a message the answer. A message whose
//!    version is later than the last one that reached the values of this process reaches them,
//!    whatever was compared meanwhile.
//!    So does the first comparison of a cell after a gap, unless such a message came before.
//! 4. The message of this process's own invalidation comes. It does not invalidate again, because
//!    the call did so. It counts only while every change is told, because then the messages of
//!    others that the store made before have come before.
//! 5. An invalidation is recorded here first, then made in this process, then sent. Until the store
//!    knows it no payload of the cell is valid and none is made.
//! 6. Two calls invalidate one cell at once. A call is sent after a step in this process that was
//!    made after the call began, be it its own or that of a later call.

use std::collections::HashMap;

use foldhash::quality::RandomState;

use super::pending_writes::WriteState;
use super::version::Version;
use crate::protocol::groups::{Cell, Moment};
use crate::store::StoreError;
use crate::store::envelope::CellEpoch;
use crate::sync::event::Event;
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering, lock};

/// Why an epoch of this process is that of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Basis {
    /// It was compared in this gap, and every change since was told.
    Told { gap: u64 },
    /// It was compared by this comparison or a later one. The store does not tell every change.
    Compared { number: u64 },
}

/// One cell.
#[derive(Default)]
struct Known {
    /// The latest invalidation.
    version: Option<Version>,
    /// The latest invalidation that reached the values of this process.
    reached: Option<Version>,
    /// Loads that began before this moment may have begun before that version.
    since: Moment,
    /// The gap in which the cell was compared with the store, and the number of the comparison.
    gap: Option<u64>,
    comparison: u64,
    /// The version that the store gave the last invalidation of this process.
    ours: Option<Version>,
    /// The number of calls in this process that invalidated the cell; how many of them are made in
    /// this process, and how many the store knows or will never know.
    calls: u64,
    made: u64,
    sent: u64,
    /// Why the last attempt failed.
    failed: Option<StoreError>,
    /// The last call that the store will never know, and why.
    ended: Option<(u64, StoreError)>,
    is_flushing: bool,
    /// Whether the cell is in the queue of writes that are ready, or of those that failed.
    is_ready: bool,
    has_failed: bool,
}

/// What a comparison found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// The versions are the same, or that of this process is later than the answer.
    Done,
    /// A later invalidation. The values of this process must be invalidated.
    Later,
    /// The store has lost what this process knows: no record, or an older one. A new invalidation
    /// must be stored, unless it has one later than this time.
    Lost(u64),
}

#[derive(Default)]
pub(super) struct Cells {
    known: Mutex<State>,
    /// Notified when an invalidation of this process was sent, failed or was given up.
    changed: Event,
    comparisons: AtomicU64,
}

#[derive(Default)]
struct State {
    cells: HashMap<u16, Known, RandomState>,
    /// The gap of which this process was told last. The values in cells that are not in the map
    /// were invalidated then.
    gap: u64,
}

/// The number of a cell in a payload and in the name of its record.
pub(super) fn number(cell: Cell) -> u16 {
    cell.number() as u16
}

impl Known {
    fn is_pending(&self) -> bool {
        self.sent < self.calls
    }

    fn is_in_sync(&self, basis: Basis) -> bool {
        self.version.is_some()
            && self.version >= self.ours
            && match basis {
                Basis::Told { gap } => self.gap == Some(gap),
                Basis::Compared { number } => self.comparison >= number,
            }
    }

    fn is_at(&self, epoch: CellEpoch) -> bool {
        self.version
            .is_some_and(|version| version.epoch == epoch.epoch)
    }
}

impl Cells {
    fn known(&self) -> MutexGuard<'_, State> {
        lock(&self.known)
    }

    fn with<R>(&self, cell: Cell, look: impl FnOnce(&mut Known) -> R) -> Option<R> {
        self.known().cells.get_mut(&number(cell)).map(look)
    }

    fn with_new<R>(&self, cell: Cell, look: impl FnOnce(&mut Known) -> R) -> R {
        look(self.known().cells.entry(number(cell)).or_default())
    }

    /// The basis of comparisons that begin now, in this gap if every change is told.
    pub(super) fn basis(&self, told_in: Option<u64>) -> Basis {
        match told_in {
            Some(gap) => Basis::Told { gap },
            // Relaxed: the number orders nothing but itself. The first is 1.
            None => Basis::Compared {
                number: self.comparisons.fetch_add(1, Ordering::Relaxed) + 1,
            },
        }
    }

    /// The cells that must be compared before a payload or a load with these cells can be judged,
    /// with their known versions. An epoch that is later than the known one may be one of which
    /// this process is not told yet.
    pub(super) fn behind(
        &self,
        cells: impl Iterator<Item = (Cell, Option<CellEpoch>)>,
        basis: Basis,
    ) -> Vec<(Cell, Option<Version>)> {
        let state = self.known();
        let mut behind: Vec<_> = cells
            .filter_map(|(cell, epoch)| {
                let Some(known) = state.cells.get(&number(cell)) else {
                    return Some((cell, None));
                };
                let is_later =
                    |version: Version| epoch.is_some_and(|told| told.epoch > version.epoch);
                let is_behind = !known.is_in_sync(basis) || known.version.is_some_and(is_later);
                is_behind.then_some((cell, known.version))
            })
            .collect();
        behind.sort_unstable_by_key(|(cell, _)| *cell);
        behind.dedup_by_key(|(cell, _)| *cell);
        behind
    }

    /// Whether a payload of these cells is valid. The caller has noted its beginning before.
    pub(super) fn are_valid(&self, cells: &[CellEpoch], basis: Basis) -> bool {
        let state = self.known();
        cells.iter().all(|epoch| {
            let known = state.cells.get(&epoch.cell);
            known.is_some_and(|known| {
                !known.is_pending() && known.is_in_sync(basis) && known.is_at(*epoch)
            })
        })
    }

    /// The epochs of these cells when a load began; `None` if one of them is not known. The value
    /// is current, as far as this process knows.
    pub(super) fn epochs(
        &self,
        cells: impl Iterator<Item = Cell>,
        began: Moment,
    ) -> Option<Vec<CellEpoch>> {
        let state = self.known();
        cells
            .map(|cell| {
                let known = state.cells.get(&number(cell))?;
                let version = known.version.filter(|_| !known.is_pending())?;
                let (cell, epoch) = (number(cell), version.epoch);
                (known.since <= began).then_some(CellEpoch { cell, epoch })
            })
            .collect()
    }

    /// A message says that a cell was invalidated. `told_in` is the present gap if every change is
    /// told, and `tick` makes a new moment. Returns whether the values of this process must be
    /// invalidated.
    pub(super) fn told(
        &self,
        cell: Cell,
        version: Version,
        is_ours: bool,
        told_in: Option<u64>,
        tick: impl FnOnce() -> Moment,
    ) -> bool {
        self.with_new(cell, |known| {
            if is_ours {
                // Otherwise the next comparison finds it, and takes it for another process's.
                if told_in.is_some() && known.gap == told_in {
                    known.version = known.version.max(Some(version));
                    known.reached = known.reached.max(Some(version));
                }
                return false;
            }
            let reaches = known.reached < Some(version);
            if reaches {
                known.reached = Some(version);
                known.version = known.version.max(Some(version));
                known.since = tick();
            }
            reaches
        })
    }

    /// The store has this version of a cell, of which `before` was known when it was asked.
    pub(super) fn compared(
        &self,
        cell: Cell,
        before: Option<Version>,
        found: Option<Version>,
        basis: Basis,
        tick: impl FnOnce() -> Moment,
    ) -> Compared {
        let mut state = self.known();
        let told = state.gap;
        let known = state.cells.entry(number(cell)).or_default();
        let is_same = |version: &Version| found.is_some_and(|found| found.epoch == version.epoch);
        let later = match (known.version, found) {
            (Some(version), _) if is_same(&version) => {
                // The same invalidation, perhaps in a later timeline. If it was found by the first
                // comparison, its message may have been missed since.
                known.version = known.version.max(found);
                let is_same_gap = matches!(basis, Basis::Told { gap } if known.gap == Some(gap));
                match is_same_gap || known.reached >= Some(version) {
                    true => Compared::Done,
                    false => {
                        known.reached = known.version;
                        known.since = tick();
                        Compared::Later
                    }
                }
            }
            (version, Some(found)) if version < Some(found) => {
                let is_first = version.is_none();
                known.version = Some(found);
                known.since = tick();
                // If every change is told, and the values of cells that were not known were
                // invalidated after the last gap, a message of an invalidation comes or has come.
                match is_first && matches!(basis, Basis::Told { gap } if gap == told) {
                    true => Compared::Done,
                    false => {
                        known.reached = known.reached.max(Some(found));
                        Compared::Later
                    }
                }
            }
            // A message came after the question.
            (version, _) if version != before => return Compared::Done,
            (version, _) => {
                let micros = version.map_or(2, |version| version.epoch.micros());
                return Compared::Lost(micros - 1);
            }
        };
        match basis {
            Basis::Told { gap } => known.gap = known.gap.max(Some(gap)),
            Basis::Compared { number } => known.comparison = known.comparison.max(number),
        }
        later
    }

    /// After a gap: returns the cells that must be compared, and those whose values must be
    /// invalidated because nothing is known of them.
    pub(super) fn begin_gap(&self, gap: u64) -> (Vec<Cell>, impl Fn(Cell) -> bool + use<>) {
        let mut state = self.known();
        state.gap = gap;
        let is_known = |known: &Known| known.version.is_some();
        let known = state.cells.iter().filter(|(_, known)| is_known(known));
        let mut known: Vec<_> = known.map(|(cell, _)| *cell).collect();
        known.sort_unstable();
        let cells = known
            .iter()
            .filter_map(|cell| Cell::numbered((*cell).into()));
        let cells = cells.collect();
        (cells, move |cell| {
            known.binary_search(&number(cell)).is_err()
        })
    }
}

/// The invalidations of this process.
impl Cells {
    /// A call begins to invalidate a cell. Returns its number, and whether no other is pending.
    pub(super) fn begin(&self, cell: Cell) -> (u64, bool) {
        self.with_new(cell, |known| {
            let is_first = !known.is_pending();
            known.calls += 1;
            known.failed = None;
            (known.calls, is_first)
        })
    }

    /// The call has invalidated the cell in this process. Returns whether it must be queued.
    pub(super) fn made(&self, cell: Cell, call: u64) -> bool {
        self.with_new(cell, |known| {
            known.made = known.made.max(call);
            let must_queue = known.made > known.sent && !(known.is_flushing || known.is_ready);
            known.is_ready |= must_queue;
            must_queue
        })
    }

    /// A task takes the cell from one of the two queues.
    pub(super) fn is_taken(&self, cell: Cell, had_failed: bool) {
        self.with(cell, |known| match had_failed {
            true => known.has_failed = false,
            false => known.is_ready = false,
        });
    }

    /// Begins an attempt to send the calls that were made; returns the last of them.
    pub(super) fn attempt(&self, cell: Cell) -> Option<u64> {
        self.with(cell, |known| {
            let begins = known.made > known.sent && !known.is_flushing;
            known.is_flushing |= begins;
            begins.then_some(known.made)
        })
        .flatten()
    }

    /// The store knows all calls up to this one, and made them this version. Returns whether no
    /// call is pending now.
    pub(super) fn sent(&self, cell: Cell, call: u64, version: Option<Version>) -> bool {
        let is_last = self.with(cell, |known| {
            known.is_flushing = false;
            known.sent = known.sent.max(call);
            known.failed = None;
            // Until its message comes, or a comparison finds it, no payload is valid.
            known.ours = known.ours.max(version);
            !known.is_pending()
        });
        self.changed.notify_all();
        is_last.unwrap_or(false)
    }

    /// The store will never know the calls up to this one.
    pub(super) fn end(&self, cell: Cell, call: u64, error: StoreError) -> bool {
        let is_last = self.with(cell, |known| {
            known.is_flushing = false;
            known.sent = known.sent.max(call);
            known.failed = None;
            known.ended = Some((call, error));
            !known.is_pending()
        });
        self.changed.notify_all();
        is_last.unwrap_or(false)
    }

    /// An attempt failed, or was never made, and the cell waits for the probe. Returns whether it
    /// must be queued for that.
    pub(super) fn put_off(&self, cell: Cell, error: &StoreError, was_flushing: bool) -> bool {
        let must_queue = self.with(cell, |known| {
            known.is_flushing &= !was_flushing;
            if known.is_flushing || !known.is_pending() {
                return false;
            }
            known.failed = Some(error.clone());
            !std::mem::replace(&mut known.has_failed, true)
        });
        self.changed.notify_all();
        must_queue.unwrap_or(false)
    }

    /// The state of a call.
    pub(super) fn state(&self, cell: Cell, call: u64) -> WriteState {
        let state = self.with(cell, |known| {
            let ended = known.ended.as_ref();
            match (&known.failed, ended) {
                // Also of earlier calls that the same attempt would have sent.
                (_, Some((last, error))) if known.sent == *last && call <= *last => {
                    WriteState::Failed(error.clone())
                }
                _ if known.sent >= call => WriteState::Flushed,
                (Some(error), _) => WriteState::Failed(error.clone()),
                (None, _) => WriteState::InFlight,
            }
        });
        state.unwrap_or(WriteState::Flushed)
    }

    /// The state of the last call for any of these cells.
    pub(super) fn last_state(&self, cells: &[Cell]) -> WriteState {
        let state = self.known();
        let mut last = WriteState::Flushed;
        for cell in cells {
            match state.cells.get(&number(*cell)) {
                Some(known) if known.is_pending() => match &known.failed {
                    Some(error) => return WriteState::Failed(error.clone()),
                    None => last = WriteState::InFlight,
                },
                _ => {}
            }
        }
        last
    }

    pub(super) fn changed(&self) -> impl Future<Output = ()> + '_ {
        self.changed.listen()
    }
}
