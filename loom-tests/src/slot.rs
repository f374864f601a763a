//! The slot itself: what a guard borrows lives, and each count is given once.
//!
//! A value that a guard reads after it was freed, or that is dropped twice, panics (`watch` in the
//! sync shim); one that is never freed is counted here. The first thread has a lane of its own, the
//! others share one. A lane has one cell for notes, and the spare.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, Mutex};

use everfresh::model::{AtomicU64, CountedSlot, Held, Lanes, Slot, explore_slots};
use loom::thread::spawn;

use crate::Threads::{Three, Two};
use crate::run_model;

/// A value that counts those that live.
struct Value(u64, Arc<AtomicUsize>);

impl Drop for Value {
    fn drop(&mut self) {
        assert!(self.1.fetch_sub(1, SeqCst) > 0, "a value was dropped twice");
    }
}

/// Two slots of one table.
struct Slots {
    slots: [Slot<Value>; 2],
    lanes: Lanes<Value>,
    alive: Arc<AtomicUsize>,
}

impl Slots {
    /// The first slot holds 0, and the second one nothing.
    fn new() -> Arc<Self> {
        explore_slots();
        let slots = Slots {
            slots: [Slot::empty(), Slot::empty()],
            lanes: Lanes::default(),
            alive: Arc::default(),
        };
        slots.swap(0, Some(slots.value(0)));
        Arc::new(slots)
    }

    fn value(&self, number: u64) -> Arc<Value> {
        self.alive.fetch_add(1, SeqCst);
        Arc::new(Value(number, self.alive.clone()))
    }

    fn load(&self, slot: usize) -> Option<Held<Value>> {
        self.slots[slot].load(&self.lanes)
    }

    /// Reads the value of a guard, and drops the guard.
    fn read(&self, slot: usize) -> Option<u64> {
        self.load(slot).map(|held| held.0)
    }

    fn swap(&self, slot: usize, new: Option<Arc<Value>>) -> Option<Arc<Value>> {
        self.slots[slot].swap(new, &self.lanes)
    }

    fn exchange(&self, slot: usize, old: &Arc<Value>, new: Option<Arc<Value>>) -> bool {
        self.slots[slot].compare_exchange(Some(old), new, &self.lanes)
    }

    /// Empties the slots; no value may be left then.
    fn end(&self) {
        drop(self.swap(0, None));
        drop(self.swap(1, None));
        assert_eq!(self.alive.load(SeqCst), 0, "a value is never freed");
    }
}

fn beside<R: Send + 'static>(
    slots: &Arc<Slots>,
    act: impl FnOnce(&Slots) -> R + Send + 'static,
) -> loom::thread::JoinHandle<R> {
    let slots = slots.clone();
    spawn(move || act(&slots))
}

/// The first thread, in its own lane, reads what the other takes out and drops.
#[test]
fn a_borrowed_value_lives() {
    run_model(Two, || {
        let slots = Slots::new();
        let other = beside(&slots, |slots| drop(slots.swap(0, None)));
        assert!(matches!(slots.read(0), None | Some(0)));
        other.join().unwrap();
        slots.end();
    });
}

/// The same in a shared lane, for a value that is replaced.
#[test]
fn a_value_borrowed_in_a_shared_lane_lives() {
    run_model(Two, || {
        let slots = Slots::new();
        let other = beside(&slots, |slots| slots.read(0));
        drop(slots.swap(0, Some(slots.value(1))));
        assert!(matches!(other.join().unwrap(), Some(0 | 1)));
        slots.end();
    });
}

/// Two readers meet in the shared lane. One of them finds it full and counts.
#[test]
fn two_readers_of_a_shared_lane() {
    run_model(Three, || {
        let slots = Slots::new();
        let others = [(); 2].map(|()| beside(&slots, |slots| slots.read(0)));
        drop(slots.swap(0, None));
        for other in others {
            assert!(matches!(other.join().unwrap(), None | Some(0)));
        }
        slots.end();
    });
}

/// Two readers in their own lanes borrow one value, and one writer pays both.
#[test]
fn readers_of_two_lanes() {
    run_model(Three, || {
        let slots = Slots::new();
        let reader = beside(&slots, |slots| slots.read(0));
        let writer = beside(&slots, |slots| drop(slots.swap(0, None)));
        assert!(matches!(slots.read(0), None | Some(0)));
        assert!(matches!(reader.join().unwrap(), None | Some(0)));
        writer.join().unwrap();
        slots.end();
    });
}

/// A reader that meets an overwrite borrows the old value or the new one: it tries again.
#[test]
fn a_reader_of_a_slot_that_is_overwritten() {
    run_model(Two, || {
        let slots = Slots::new();
        let other = beside(&slots, |slots| {
            drop(slots.swap(0, Some(slots.value(1))));
            drop(slots.swap(0, Some(slots.value(2))));
        });
        let read = slots.read(0);
        assert!(read.is_some(), "a reader missed a value that was there");
        other.join().unwrap();
        slots.end();
    });
}

/// A reader whose lane is full notes in the spare, and counts.
#[test]
fn a_reader_with_a_full_lane() {
    run_model(Two, || {
        let slots = Slots::new();
        slots.swap(1, Some(slots.value(1)));
        let kept = slots.load(1).unwrap();
        let other = beside(&slots, |slots| drop(slots.swap(0, None)));
        let counted = slots.load(0);
        other.join().unwrap();
        assert!(counted.is_none_or(|held| held.0 == 0));
        drop(kept);
        slots.end();
    });
}

/// A reader that is about to borrow is paid by the writer of another slot, to which the value went.
#[test]
fn a_value_that_moves_to_another_slot() {
    run_model(Two, || {
        let slots = Slots::new();
        let other = beside(&slots, |slots| {
            let moved = slots.swap(0, None);
            assert!(slots.swap(1, moved).is_none());
            drop(slots.swap(1, None));
        });
        assert!(matches!(slots.read(0), None | Some(0)));
        other.join().unwrap();
        slots.end();
    });
}

/// Guards of one value come and go while it leaves the slot and comes back.
#[test]
fn a_value_that_comes_back() {
    run_model(Two, || {
        let slots = Slots::new();
        let other = beside(&slots, |slots| {
            let value = slots.swap(0, None).unwrap();
            assert!(slots.slots[0].compare_exchange(None, Some(value.clone()), &slots.lanes));
            drop(value);
        });
        let first = slots.load(0);
        let second = slots.load(0);
        assert!(first.is_none_or(|held| held.0 == 0));
        other.join().unwrap();
        assert!(second.is_none_or(|held| held.0 == 0));
        slots.end();
    });
}

/// A guard that was paid leaves the cell alone, which may be that of a later guard by now.
#[test]
fn a_paid_guard_and_a_later_note() {
    run_model(Two, || {
        let slots = Slots::new();
        let paid = slots.load(0).unwrap();
        drop(slots.swap(0, Some(slots.value(1))));
        let later = slots.load(0).unwrap();
        let other = beside(&slots, |slots| drop(slots.swap(0, None)));
        assert_eq!(paid.0, 0);
        drop(paid);
        assert_eq!(later.0, 1);
        other.join().unwrap();
        drop(later);
        slots.end();
    });
}

/// A guard may be dropped by another thread than the one that loaded it, and after its table.
#[test]
fn a_guard_that_outlives_its_table() {
    run_model(Two, || {
        let slots = Slots::new();
        let alive = slots.alive.clone();
        let guard = slots.load(0).unwrap();
        let other = spawn(move || guard.0);
        slots.end_of_table();
        assert_eq!(other.join().unwrap(), 0);
        assert_eq!(alive.load(SeqCst), 0, "a value is never freed");
    });
}

impl Slots {
    /// What a table does when it is dropped.
    fn end_of_table(self: Arc<Self>) {
        drop(self.swap(0, None));
    }
}

/// Of two exchanges of one value one wins, also while a reader borrows it.
#[test]
fn two_exchanges_and_a_reader() {
    run_model(Three, || {
        let slots = Slots::new();
        let old = slots.load(0).unwrap().into_arc();
        let other = beside(&slots, {
            let old = old.clone();
            move |slots| slots.exchange(0, &old, None)
        });
        let reader = beside(&slots, |slots| slots.read(0));
        let mine = slots.exchange(0, &old, Some(slots.value(1)));
        assert_ne!(mine, other.join().unwrap());
        assert!(matches!(reader.join().unwrap(), None | Some(0 | 1)));
        drop(old);
        slots.end();
    });
}

/// A slot that is read by counting may be dropped while it is full.
#[test]
fn a_counted_slot() {
    run_model(Two, || {
        explore_slots();
        let alive = Arc::new(AtomicUsize::new(2));
        let value = |number| Some(Arc::new(Value(number, alive.clone())));
        let shared = Arc::new((CountedSlot::new(value(0)), Lanes::default()));
        shared.0.compare_exchange(None, None, &shared.1);
        let other = spawn({
            let shared = shared.clone();
            move || shared.0.load(&shared.1)
        });
        drop(shared.0.swap(value(1), &shared.1));
        let read = other.join().unwrap().unwrap();
        drop(shared);
        assert!(read.0 < 2);
        drop(read);
        assert_eq!(alive.load(SeqCst), 0, "a value is never freed");
    });
}

/// Runs a model and returns every outcome that it had.
fn outcomes<T: Ord + Send + 'static>(model: impl Fn() -> T + Send + Sync + 'static) -> BTreeSet<T> {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let collected = seen.clone();
    run_model(Two, move || {
        let outcome = model();
        collected.lock().unwrap().insert(outcome);
    });
    Arc::into_inner(seen).unwrap().into_inner().unwrap()
}

/// Everything written before a pointer was stored is visible to a thread that loads the pointer.
#[test]
fn a_slot_publishes() {
    let seen = outcomes(|| {
        explore_slots();
        let shared = Arc::new((Slot::empty(), Lanes::default(), AtomicU64::new(0)));
        let other = spawn({
            let shared = shared.clone();
            move || {
                shared.2.store(1, Relaxed);
                assert!((shared.0).compare_exchange(None, Some(Arc::new(1)), &shared.1));
            }
        });
        let found = shared.0.load(&shared.1).is_some();
        let received = shared.2.load(Relaxed);
        other.join().unwrap();
        (found, received)
    });
    assert_eq!(
        seen,
        BTreeSet::from([(false, 0), (false, 1), (true, 1)]),
        "a slot's pointer came before what was written before it"
    );
}

/// A reference that a slot returned is the owner's only one, unless a thread has loaded it
/// meanwhile. So is a reference that an exchange did not store.
#[test]
fn a_slot_lets_go() {
    let seen = outcomes(|| {
        explore_slots();
        let shared = Arc::new((Slot::empty(), Lanes::default()));
        let other = spawn({
            let shared = shared.clone();
            move || shared.0.load(&shared.1)
        });
        let (slot, lanes) = &*shared;
        let mut mine = Arc::new(1);
        assert!(slot.compare_exchange(None, Some(mine.clone()), lanes));
        assert!(slot.compare_exchange(Some(&mine), None, lanes));
        assert!(!slot.compare_exchange(Some(&Arc::new(2)), Some(mine.clone()), lanes));
        let alone = Arc::get_mut(&mut mine).is_some();
        (alone, other.join().unwrap().is_some())
    });
    // Both, if the reader was paid for a note that it then took back.
    assert!(seen.is_superset(&BTreeSet::from([(true, false), (false, true)])));
    assert!(!seen.contains(&(true, true)), "a guard was not counted");
}

/// A thread that finds the remembered item in its slot again also sees what was written before the
/// item came back.
#[test]
fn a_renewal_acquires() {
    let seen = outcomes(|| {
        let [first, second] = [1, 2].map(Arc::new);
        let shared = Arc::new((Slot::empty(), Lanes::default(), AtomicU64::new(0)));
        let (slot, lanes, data) = &*shared;
        slot.swap(Some(first.clone()), lanes);
        let mut seen = Some(first.clone());
        let other = spawn({
            let shared = shared.clone();
            move || {
                let (slot, lanes, data) = &*shared;
                assert!(slot.compare_exchange(Some(&first), Some(second.clone()), lanes));
                data.store(1, Relaxed);
                assert!(slot.compare_exchange(Some(&second), Some(first), lanes));
            }
        });
        let between = slot.load(lanes).is_some_and(|held| *held == 2);
        slot.renew(&mut seen, lanes);
        let looked = seen.is_some_and(|value| *value == 1);
        let received = data.load(Relaxed);
        other.join().unwrap();
        slot.swap(None, lanes);
        (between, looked, received)
    });
    assert!(seen.contains(&(true, true, 1)));
    assert!(
        !seen.contains(&(true, true, 0)),
        "the fence does not order the read after it"
    );
}
