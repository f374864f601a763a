//! Writes that cannot reach the store at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use everfresh::store::{
    ChaosStore, Codec, ErrorClass, Fault, Format, MemoryStore, Namespace, Op, Postcard, Rejected,
};
use everfresh::{Cache, SecondLevel};
use futures_lite::future::block_on;

use crate::support::{FRESH, Fleet, Gate, Process, STALE, until};

/// Waits until so many attempts to write have failed.
fn failed(process: &Process, attempts: u64) {
    until("the attempts have failed", || {
        process.stats().retried >= attempts
    });
}

/// Waits until the store knows all writes of a process. The pauses between attempts end by the
/// test's clock, by less than a second in all.
fn flush(fleet: &Fleet, process: &Process) {
    until("all writes are flushed", || {
        fleet.clock.advance(Duration::from_millis(1));
        process.stats().pending == 0
    });
}

#[test]
fn a_write_that_waited_past_its_hard_limit_is_an_invalidation() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    block_on(b.cache.insert_everywhere(1, 300)).unwrap();
    a.chaos.disconnect();
    a.cache.insert(1, 100);
    failed(&a, 1);
    fleet.clock.advance(FRESH + STALE);
    a.chaos.reconnect();
    flush(&fleet, &a);
    assert_eq!(b.get(1), 0, "the value that waited is too old");
    assert_eq!(a.get(1), 0);
}

#[test]
fn a_write_that_waited_is_as_old_as_it_is() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.chaos.disconnect();
    a.cache.insert(1, 100);
    failed(&a, 1);
    fleet.clock.advance(FRESH / 2);
    a.chaos.reconnect();
    flush(&fleet, &a);
    assert_eq!(b.get(1), 100);
    fleet.origin.fail(true);
    fleet.clock.advance(FRESH / 2);
    let stale = b.cache.get_blocking(&1).unwrap();
    assert!(stale.freshness().is_stale(), "{:?}", stale.freshness());
    fleet.clock.advance(STALE - Duration::from_secs(1));
    assert_eq!(b.get(1), 100);
    fleet.clock.advance(Duration::from_secs(1));
    assert!(
        b.cache.get_blocking(&1).is_err(),
        "no value past its hard limit is served"
    );
}

#[test]
fn a_write_that_waited_loses_to_a_later_write_of_another_process() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.chaos.disconnect();
    a.cache.insert(1, 100);
    a.cache.insert(2, 101);
    failed(&a, 2);
    fleet.clock.advance(Duration::from_secs(2));
    block_on(b.cache.insert_everywhere(1, 200)).unwrap();
    a.chaos.reconnect();
    flush(&fleet, &a);
    assert_eq!((b.get(1), b.get(2)), (200, 101));
    assert_eq!((a.get(1), a.get(2)), (200, 101));
    assert_eq!((a.stats().superseded, fleet.origin.loads()), (1, 0));
}

#[test]
fn the_caller_of_a_write_learns_that_a_later_write_is_stored() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.chaos.next(Op::Set, Fault::Hold);
    std::thread::scope(|scope| {
        let write = scope.spawn(|| a.cache.insert_everywhere_blocking(1, 100));
        a.chaos.wait_for_calls(Op::Set, 1);
        fleet.clock.advance(Duration::from_millis(2));
        b.cache.insert_everywhere_blocking(1, 200).unwrap();
        a.chaos.let_go();
        let error = write.join().unwrap().unwrap_err();
        assert_eq!(error.class(), ErrorClass::Superseded);
    });
    assert_eq!((a.get(1), b.get(1)), (200, 200));
    // The next write of this process is later than what it has read.
    a.cache.insert_everywhere_blocking(1, 300).unwrap();
    until("the other has the value", || b.get(1) == 300);
}

#[test]
fn an_invalidation_that_waited_does_not_remove_a_later_write() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.chaos.disconnect();
    a.cache.invalidate(&1);
    a.cache.invalidate(&2);
    failed(&a, 2);
    fleet.clock.advance(Duration::from_secs(2));
    block_on(b.cache.insert_everywhere(1, 200)).unwrap();
    assert_eq!(b.get(2), 0);
    b.published(1);
    a.chaos.reconnect();
    flush(&fleet, &a);
    assert_eq!((a.get(1), b.get(1)), (200, 200));
    // The other value may have been loaded before the invalidation.
    until("the loaded value is removed", || b.cache.peek(&2).is_none());
}

#[test]
fn a_write_that_is_repeated_after_a_lost_answer_is_not_superseded_by_itself() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    let lost = || Fault::Lose(ErrorClass::TimedOut);
    a.chaos.next(Op::Set, lost());
    assert!(a.cache.insert_everywhere_blocking(1, 100).is_err());
    fleet.clock.advance(Duration::from_secs(2));
    flush(&fleet, &a);
    assert_eq!((a.get(1), b.get(1), a.stats().superseded), (100, 100, 0));
    // Nor is a later write of this process superseded by it.
    a.chaos.next(Op::Set, lost());
    assert!(a.cache.insert_everywhere_blocking(1, 101).is_err());
    a.cache.invalidate(&1);
    flush(&fleet, &a);
    assert_eq!((b.get(1), a.stats().superseded), (0, 0));
}

/// A refresh that finds nothing ends after another process wrote the key, of which this process
/// hears or does not.
fn nothing_is_found_after_a_write(hears: bool) {
    let fleet = Fleet::new();
    let b = fleet.process();
    let chaos = Arc::new(ChaosStore::new(fleet.memory.clone()));
    let level = SecondLevel::new(chaos.clone(), "test:v1").unwrap();
    let (gate, loads) = (Gate::default(), Arc::new(AtomicU64::new(0)));
    let (passed, counted) = (gate.clone(), loads.clone());
    let a: Cache<u64, u64> = Cache::builder()
        .clock(&fleet.clock)
        .fresh_for(FRESH)
        .stale_for(STALE)
        .threads(1)
        .store(level)
        .compute(move |_: &u64| {
            counted.fetch_add(1, Ordering::SeqCst);
            passed.pass();
            None::<u64>
        })
        .build()
        .unwrap();
    b.get(1);
    b.published(1);
    assert_eq!(*a.get_blocking(&1).unwrap(), 0);
    fleet.clock.advance(FRESH);
    gate.shut();
    assert_eq!(*a.get_blocking(&1).unwrap(), 0);
    until("the refresh runs", || loads.load(Ordering::SeqCst) == 1);
    chaos.lose_changes(!hears);
    b.cache.insert_everywhere_blocking(1, 555).unwrap();
    gate.open();
    until("the answer is refused", || {
        assert_eq!(*fleet.process().cache.get_blocking(&1).unwrap(), 555);
        a.store_stats().unwrap().refused == 1
    });
    assert_eq!((b.get(1), fleet.origin.loads()), (555, 1));
    until("this process reads it too", || {
        a.get_blocking(&1).is_ok_and(|value| *value == 555)
    });
}

#[test]
fn a_load_that_finds_nothing_does_not_remove_a_later_write() {
    nothing_is_found_after_a_write(true);
    nothing_is_found_after_a_write(false);
}

#[test]
fn a_read_waits_for_no_write_that_cannot_be_told_now() {
    let fleet = Fleet::new();
    let a = fleet.process();
    a.get(1);
    a.published(1);
    a.chaos.disconnect();
    a.cache.invalidate(&1);
    failed(&a, 1);
    // A later write of the key comes during the pause after the failed attempt.
    a.cache.invalidate(&1);
    std::thread::scope(|scope| {
        let read = scope.spawn(|| a.get(1));
        // No time passes, so no pause ends.
        until("the key is loaded without the store", || read.is_finished());
        assert_eq!(read.join().unwrap(), 1);
    });
    // A write that is new is tried at once, and so are all when the store is back.
    failed(&a, 2);
    a.chaos.reconnect();
    until("the write is flushed", || a.stats().pending == 0);
}

#[test]
fn while_the_store_is_down_one_write_is_tried_after_each_pause() {
    const WRITES: u64 = 1_000;
    let fleet = Fleet::new();
    let a = fleet.process();
    a.chaos.disconnect();
    for key in 0..WRITES {
        a.cache.invalidate(&key);
    }
    until("no write is under way", || {
        a.cache.invalidate_everywhere_blocking(&WRITES).is_err() && a.stats().retried > 64
    });
    let (before, mut pauses) = (a.stats().retried, 0);
    for tried in 1..=10 {
        until("a write is tried", || {
            // The clock may move before the probe begins to wait, so once more.
            fleet.clock.advance(Duration::from_secs(5));
            pauses += 1;
            a.stats().retried >= before + tried
        });
    }
    let tries = a.stats().retried - before;
    assert!(
        tries <= pauses + 1,
        "one write after each pause: {tries}, {pauses}"
    );
    assert_eq!(a.stats().pending, WRITES + 1);
    a.chaos.reconnect();
    until("all writes are flushed", || a.stats().pending == 0);
}

/// A value that counts itself and its copies.
#[derive(Clone)]
struct Counted {
    _count: Arc<()>,
}

struct CountedCodec(Arc<AtomicU64>, Arc<()>);

impl Codec<Counted> for CountedCodec {
    fn id(&self) -> u8 {
        99
    }

    fn encode(&self, _: &Counted, out: &mut Vec<u8>) -> Result<(), Rejected> {
        self.0.fetch_add(1, Ordering::SeqCst);
        out.push(1);
        Ok(())
    }

    fn decode(&self, _: &[u8]) -> Result<Counted, Rejected> {
        Ok(Counted {
            _count: self.1.clone(),
        })
    }
}

#[test]
fn writes_that_wait_hold_no_values_beyond_the_capacity() {
    const WRITES: u64 = 5_000;
    let fleet = Fleet::new();
    let chaos = Arc::new(ChaosStore::new(fleet.memory.clone()));
    let (encoded, values) = (Arc::new(AtomicU64::new(0)), Arc::new(()));
    let format = Format::new(CountedCodec(encoded.clone(), values.clone()));
    let namespace = Namespace::new("test:v1").unwrap();
    let cache: Cache<u64, Counted> = Cache::builder()
        .capacity(100)
        .clock(&fleet.clock)
        .store(SecondLevel::with(
            chaos.clone(),
            namespace,
            format,
            Postcard,
        ))
        .load(async |_: &u64| std::future::pending::<Counted>().await)
        .build()
        .unwrap();
    chaos.disconnect();
    for key in 0..WRITES {
        let _count = values.clone();
        cache.insert(key, Counted { _count });
    }
    let stats = || cache.store_stats().unwrap();
    until("every write waits", || {
        cache.invalidate_everywhere_blocking(&WRITES).is_err() && stats().pending == WRITES + 1
    });
    // Those in the table, and the few that are about to be sent.
    until("no write keeps a value", || {
        Arc::strong_count(&values) <= 202
    });
    let tried = encoded.load(Ordering::SeqCst);
    chaos.reconnect();
    until("all writes are flushed", || stats().pending == 0);
    let told = encoded.load(Ordering::SeqCst) - tried;
    assert!((1..=100).contains(&told), "{told} values were left to tell");
    assert_eq!(fleet.memory.len() as u64, told);
}

#[test]
fn no_write_is_lost_while_other_keys_are_forgotten() {
    const KEYS: u64 = 30_000;
    let store = Arc::new(MemoryStore::new());
    // A small cache soon forgets the keys that are not resident.
    let cache: Cache<u64, u64> = Cache::builder()
        .capacity(16)
        .store(SecondLevel::new(store, "many:v1").unwrap())
        .compute(|n: &u64| *n)
        .build()
        .unwrap();
    let stats = || cache.store_stats().unwrap();
    thread::scope(|scope| {
        for first in (0..8).map(|thread| thread * KEYS) {
            let (cache, stats) = (&cache, &stats);
            scope.spawn(move || {
                for key in first..first + KEYS {
                    cache.invalidate(&key);
                    if key % 64 == 0 {
                        until("few writes wait", || stats().pending < 5_000);
                    }
                }
            });
        }
    });
    until("all writes are flushed", || stats().pending == 0);
    assert_eq!((stats().flushed, stats().given_up), (8 * KEYS, 0));
}
