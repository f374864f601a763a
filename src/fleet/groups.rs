//! Groups in a fleet: invalidations go to the store and come from it, and payloads are compared
//! with the epochs of their cells. What is known of each cell, and the races, are in `cells`.
//!
//! | what happens | what this process does |
//! |---|---|
//! | a group is invalidated here | records it, invalidates its cell here, then tells the store |
//! | another process invalidates one | invalidates the cell here, when it is told |
//! | a payload of unknown or later epochs is read | compares its cells with the store first |
//! | a load of a key with groups begins | compares its cells first, if changes may be unknown |
//! | changes may have been missed | compares all cells; invalidates those of which it knows none |
//! | the store has lost a cell | stores a new invalidation, which makes its values invalid |

use std::hash::Hash;
use std::time::Duration;

use super::cells::{Basis, Compared, number};
use super::changes::COMPARED;
use super::outbox::Queued;
use super::pending_writes::WriteState;
use super::store_handle::closed;
use super::version::{Moment, Version};
use super::{Fleet, PAUSES, PendingWrite};
use crate::load::admission::is_inside_a_load;
use crate::load::lifecycle::Work;
use crate::observe::trace;
use crate::panics::isolated;
use crate::protocol::entry::Entry;
use crate::protocol::groups::{self, Cell};
use crate::store::envelope::{self, CellEpoch};
use crate::store::{Birth, Change, Epoch, ErrorClass, StoreError, StoreKey, Stored};
use crate::sync::future::or;
use crate::sync::{Arc, Ordering};

/// How often a cell is compared in one go. Each time the store may have lost it, or changed it.
const ATTEMPTS: usize = 4;

/// A cell, and the epoch that a payload tells of it.
type Asked = (Cell, Option<CellEpoch>);

/// A call that invalidates a cell in this process. Once that is done, also by a panic of user code,
/// the store may be told.
struct Call<'a, K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fleet: &'a Arc<Fleet<K, V>>,
    cell: Cell,
    number: u64,
}

impl<K, V> Drop for Call<'_, K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn drop(&mut self) {
        let fleet = self.fleet;
        if fleet.cells.made(self.cell, self.number) {
            let queued = Queued {
                name: fleet.name_of_cell(self.cell),
                cell: Some(self.cell),
                had_failed: false,
            };
            if fleet.queue.push(queued) {
                fleet.start_task();
            }
        }
    }
}

impl<K, V> Fleet<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Invalidates the groups of a cell: `here` does so in this process.
    pub(super) fn invalidate_cell(
        self: &Arc<Self>,
        cell: Cell,
        here: &mut dyn FnMut(),
    ) -> PendingWrite {
        let lifecycle = &self.state.lifecycle;
        if !lifecycle.start(Work::Duty, is_inside_a_load) {
            here();
            return Box::pin(async { Err(closed()) });
        }
        self.pending.fetch_add(1, Ordering::Relaxed);
        let (number, is_first) = self.cells.begin(cell);
        if !is_first {
            self.cell_ended();
        }
        let call = Call {
            fleet: self,
            cell,
            number,
        };
        here();
        drop(call);
        if lifecycle.is_closed() {
            // The close may have looked at the queue before.
            self.give_up_all();
        }
        let fleet = self.clone();
        Box::pin(async move { fleet.cell_flushed(cell, number).await })
    }

    async fn cell_flushed(self: Arc<Self>, cell: Cell, number: u64) -> Result<(), StoreError> {
        loop {
            let changed = self.cells.changed();
            match self.cells.state(cell, number) {
                WriteState::Flushed => return Ok(()),
                WriteState::Failed(error) => return Err(error),
                WriteState::InFlight => changed.await,
            }
        }
    }

    /// Waits until the store knows the invalidations of this process. Returns false if one could
    /// not be flushed, or the last attempt found no store.
    pub(super) async fn cells_flushed(&self, cells: &[Cell]) -> bool {
        loop {
            let changed = self.cells.changed();
            match self.cells.last_state(cells) {
                WriteState::Flushed => return true,
                WriteState::Failed(_) => return false,
                WriteState::InFlight if self.queue.is_down() => return false,
                WriteState::InFlight if self.state.lifecycle.is_closed() => return false,
                WriteState::InFlight => or(changed, self.state.lifecycle.closed()).await,
            }
        }
    }

    pub(super) fn name_of_cell(&self, cell: Cell) -> StoreKey {
        StoreKey::of_cell(&self.namespace, number(cell))
    }

    /// Stores an invalidation that is later than everything before this birth. Returns its epoch;
    /// `None` if the store has a later one, or holds data not written by everfresh.
    pub(super) async fn store_cell(
        &self,
        name: &StoreKey,
        birth: Birth,
    ) -> Result<Option<Epoch>, StoreError> {
        let payload = self.format.seal_cell(name);
        let payload = payload.map_err(|_| StoreError::new(ErrorClass::Other, "not encrypted"))?;
        match self.store.set(name, payload, Duration::MAX, birth).await {
            Ok(Stored::Yes { epoch }) => Ok(Some(epoch)),
            Ok(Stored::Refused) => Ok(None),
            // Then no payload of this cell is ever valid.
            Err(error) if error.class() == ErrorClass::Foreign => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The store knows the invalidations of a cell up to this call.
    pub(super) fn cell_sent(&self, cell: Cell, call: u64, epoch: Option<Epoch>) {
        self.counters.flushed.add();
        let version = epoch.map(|epoch| self.version(epoch));
        if self.cells.sent(cell, call, version) {
            self.cell_ended();
        }
    }

    /// The invalidations of a cell up to this call will never be sent, so the payloads in the store
    /// may be older.
    pub(super) fn give_up_cell(&self, cell: Cell, call: u64, error: StoreError) {
        trace::given_up(&self.state.name);
        self.counters.given_up.add();
        self.state.lifecycle.lose(|lost| &lost.writes);
        // Before payloads of the cell can be valid again.
        self.distrust();
        if self.cells.end(cell, call, error) {
            self.cell_ended();
        }
    }

    fn cell_ended(&self) {
        self.pending.fetch_sub(1, Ordering::Relaxed);
        self.state.lifecycle.end(Work::Duty);
    }

    /// A message says that a cell was invalidated.
    pub(super) fn cell_changed(&self, cell: Cell, change: &Change) {
        let Some(epoch) = change.epoch else { return };
        let is_ours = change.origin == self.origin;
        if !is_ours {
            self.counters.notifications.add();
        }
        let groups = &self.state.groups;
        let (version, told_in) = (self.version(epoch), self.told_in());
        let told = self
            .cells
            .told(cell, version, is_ours, told_in, || groups.tick());
        if told {
            self.counters.followed_changes.add();
            self.outdate(cell);
        }
    }

    /// Invalidates a cell in this process.
    fn outdate(&self, cell: Cell) {
        self.state.groups.invalidate(cell);
        self.state.look(true);
    }

    /// The present gap, if every change is told now.
    fn told_in(&self) -> Option<u64> {
        let gap = self.store.gaps();
        let is_told = self.store.tells_everything() && self.store.state().is_up();
        is_told.then_some(gap)
    }

    /// Changes may have been missed before this moment.
    pub(super) fn cells_after_gap(self: &Arc<Self>, gap: u64) {
        let (known, is_unknown) = self.cells.begin_gap(gap);
        self.state.groups.invalidate_others(is_unknown);
        self.state.look(true);
        if !known.is_empty() {
            self.store.spawn(self.clone().recheck_cells(known));
        }
    }

    /// Compares all cells with the store, and invalidates those that have a later epoch.
    async fn recheck_cells(self: Arc<Self>, cells: Vec<Cell>) {
        let gaps = self.store.gaps();
        for cells in cells.chunks(COMPARED) {
            let asked: Vec<Asked> = cells.iter().map(|cell| (*cell, None)).collect();
            let mut pause = PAUSES.0;
            loop {
                if self.store.gaps() != gaps || self.state.lifecycle.is_closed() {
                    return;
                }
                if self.bring_in_sync(&asked).await.1 {
                    break;
                }
                self.rest(&mut pause, PAUSES.1).await;
            }
        }
    }

    /// Compares those of these cells with the store of which changes may be unknown, or of which a
    /// later epoch is told. Returns false if the store did not answer.
    async fn bring_in_sync(&self, asked: &[Asked]) -> (Basis, bool) {
        let basis = self.cells.basis(self.told_in());
        let mut behind = self.cells.behind(asked.iter().copied(), basis);
        for _ in 0..ATTEMPTS {
            if behind.is_empty() {
                return (basis, true);
            }
            for some in behind.chunks(COMPARED) {
                if !self.compare_cells(some, basis).await {
                    return (basis, false);
                }
            }
            // A payload may tell any epoch, so what it tells is compared once.
            let compared = behind.iter().map(|(cell, _)| (*cell, None));
            behind = self.cells.behind(compared, basis);
        }
        (basis, behind.is_empty())
    }

    async fn compare_cells(&self, cells: &[(Cell, Option<Version>)], basis: Basis) -> bool {
        let name = |(cell, _): &(Cell, _)| self.name_of_cell(*cell);
        let names: Vec<_> = cells.iter().map(name).collect();
        let timeline = self.timeline();
        let heads = self.store.heads(&names).await;
        let moment = self.answered_in(timeline);
        let groups = &self.state.groups;
        let (mut answered, mut lost) = (true, Vec::new());
        for (((cell, before), name), head) in cells.iter().zip(&names).zip(heads) {
            let found = match head {
                Ok(head) => head.map(|head| moment.version(head.epoch)),
                // No payload of this cell is ever valid.
                Err(error) if error.class() == ErrorClass::Foreign => continue,
                Err(_) => {
                    answered = false;
                    continue;
                }
            };
            let tick = || groups.tick();
            match self.cells.compared(*cell, *before, found, basis, tick) {
                Compared::Done => {}
                Compared::Later => self.outdate(*cell),
                Compared::Lost(micros) => lost.push((name, micros)),
            }
        }
        for (name, micros) in lost {
            let birth = Birth {
                origin: self.origin,
                micros,
                seen: None,
            };
            answered &= self.store_cell(name, birth).await.is_ok();
        }
        answered
    }

    /// The moment of an answer with these payloads, whose cells have been compared with the store
    /// if that is needed to judge them.
    pub(super) async fn answered_with<'a>(
        &self,
        timeline: u64,
        payloads: impl Iterator<Item = &'a [u8]>,
    ) -> Moment {
        let epochs = payloads.flat_map(envelope::cells);
        let asked: Vec<Asked> = epochs
            .filter_map(|epoch| Some((Cell::numbered(epoch.cell.into())?, Some(epoch))))
            .collect();
        let basis = match asked.is_empty() {
            true => None,
            false => Some(self.bring_in_sync(&asked).await.0),
        };
        self.answered_in(timeline).with(basis)
    }

    /// Whether a payload of a key is valid, as far as its groups go.
    pub(super) fn are_valid(&self, key: &K, cells: &[CellEpoch], moment: Moment) -> bool {
        // It was written by a program that knew fewer groups of the key.
        let lacks = |cell: &Cell| cells.iter().all(|epoch| epoch.cell != number(*cell));
        if self.cells_of_key(key).iter().any(lacks) {
            return false;
        }
        let is_valid = |basis| self.cells.are_valid(cells, basis);
        cells.is_empty() || moment.basis.is_some_and(is_valid)
    }

    /// Brings the cells of a key that is about to be loaded in sync, so that its result can be
    /// shared.
    pub(super) async fn prepare_cells(&self, cells: &[Cell]) {
        if !cells.is_empty() {
            let asked: Vec<Asked> = cells.iter().map(|cell| (*cell, None)).collect();
            self.bring_in_sync(&asked).await;
        }
    }

    /// Has the next results with these groups shared, because this one cannot be.
    pub(super) fn prepare_cells_soon(self: &Arc<Self>, cells: Vec<Cell>) {
        let fleet = self.clone();
        self.in_background(async move { fleet.prepare_cells(&cells).await });
    }

    /// The cells that follow from a key. None if user code panics; the load then fails by itself.
    pub(super) fn cells_of_key(&self, key: &K) -> Vec<Cell> {
        let mut groups = Vec::new();
        if self.state.group_by.is_some() {
            isolated(|| groups = self.state.groups_of(key, Vec::new()));
        }
        let mut cells: Vec<Cell> = groups.into_iter().map(Cell::of).collect();
        cells.sort_unstable();
        cells.dedup();
        cells
    }

    /// The epochs of the cells of a value when its load or its write began. `None` if the value
    /// must not be shared: an epoch is not known, or the value is outdated here.
    pub(super) fn epochs(
        &self,
        entry: &Entry<K, V>,
        began: groups::Moment,
    ) -> Option<Vec<CellEpoch>> {
        // The value is judged last. Otherwise an invalidation of this process could come to its end
        // in between, and give the older value its own epoch.
        let epochs = self.cells.epochs(entry.cells(), began)?;
        entry.is_current(&self.state.groups).then_some(epochs)
    }

    /// The same of an answer without a value.
    pub(super) fn epochs_of_key(&self, key: &K, began: groups::Moment) -> Option<Vec<CellEpoch>> {
        let cells = self.cells_of_key(key);
        let epochs = self.cells.epochs(cells.iter().copied(), began)?;
        let is_outdated = |cell: &Cell| self.state.groups.is_invalidated(*cell, began);
        (!cells.iter().any(is_outdated)).then_some(epochs)
    }
}
