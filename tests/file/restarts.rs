//! What a restart finds. A restart is a new store over the file of one that was dropped.
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dev_support::until;
use everfresh::store::{Birth, FileErrorKind, FileStore, Origin, Store, StoreKey};
use everfresh::testing::store_contract::{HOUR, key, payload, raw};
use everfresh::{Cache, ManualClock, SecondLevel, Source};
use futures_lite::future::block_on;

use crate::support::{Folder, MUCH};

const FRESH: Duration = Duration::from_secs(10);
const STALE: Duration = Duration::from_secs(100);

/// The program that is restarted. Its loader returns the number of earlier loads.
struct Program {
    folder: Folder,
    clock: ManualClock,
    loads: Arc<AtomicU64>,
}

impl Program {
    fn new() -> Self {
        Program {
            folder: Folder::new(),
            clock: ManualClock::new(),
            loads: Arc::default(),
        }
    }

    fn start(&self) -> Cache<u64, u64> {
        let store = Arc::new(self.folder.open(&self.clock));
        let loads = self.loads.clone();
        Cache::builder()
            .clock(&self.clock)
            .fresh_for(FRESH)
            .stale_for(STALE)
            .beta(0.0)
            .store(SecondLevel::new(store, "numbers:v1").unwrap())
            .compute(move |_: &u64| loads.fetch_add(1, Ordering::SeqCst))
            .build()
            .unwrap()
    }

    /// Ends the program, which takes a second, and waits until its store is closed.
    fn end(&self, cache: Cache<u64, u64>) {
        drop(cache);
        // The renewal of a lease looks again after a third of it, and ends.
        self.clock.advance(Duration::from_secs(1));
        until("the file is free", || {
            FileStore::open_with_clock(self.folder.file(), MUCH, &self.clock).is_ok()
        });
    }

    fn loads(&self) -> u64 {
        self.loads.load(Ordering::SeqCst)
    }
}

fn published(cache: &Cache<u64, u64>, count: u64) {
    until("the values are published", || {
        cache.store_stats().unwrap().published >= count
    });
}

#[test]
fn fresh_values_are_served_without_a_load_and_with_their_ages() {
    let program = Program::new();
    let cache = program.start();
    for key in 0..20 {
        cache.get_blocking(&key).unwrap();
    }
    published(&cache, 20);
    program.end(cache);
    program.clock.advance(Duration::from_secs(3));

    let cache = program.start();
    for key in 0..20 {
        let value = cache.get_blocking(&key).unwrap();
        assert_eq!(value.source(), Source::Store);
        assert!(value.age().abs_diff(Duration::from_secs(4)) < Duration::from_millis(1));
    }
    assert_eq!(program.loads(), 20);
}

#[test]
fn a_stale_value_is_served_and_refreshed_once() {
    let program = Program::new();
    let cache = program.start();
    assert_eq!(*cache.get_blocking(&1).unwrap(), 0);
    published(&cache, 1);
    program.end(cache);
    program.clock.advance(FRESH + Duration::from_secs(1));

    let cache = program.start();
    assert_eq!(*cache.get_blocking(&1).unwrap(), 0);
    until("the value is refreshed", || {
        *cache.get_blocking(&1).unwrap() == 1
    });
    published(&cache, 1);
    program.end(cache);
    let cache = program.start();
    assert_eq!(*cache.get_blocking(&1).unwrap(), 1);
    assert_eq!(program.loads(), 2);
}

#[test]
fn an_invalidated_value_does_not_come_back() {
    let program = Program::new();
    let cache = program.start();
    cache.get_blocking(&1).unwrap();
    published(&cache, 1);
    block_on(cache.invalidate_everywhere(&1)).unwrap();
    program.end(cache);
    let cache = program.start();
    assert_eq!(*cache.get_blocking(&1).unwrap(), 1);
}

fn set(store: &FileStore, key: &StoreKey, value: &[u8]) {
    let set = store.set(key, payload(key, value), HOUR, Birth::latest(Origin(1)));
    block_on(set).unwrap();
}

fn get(store: &FileStore, key: &StoreKey) -> Option<Vec<u8>> {
    let read = block_on(store.read(std::slice::from_ref(key)));
    let payload = read.into_iter().next().unwrap().unwrap()?;
    Some(raw().open(key, &payload).unwrap().value)
}

#[test]
fn a_payload_is_the_same_with_its_epoch_its_times_and_its_cost() {
    let (folder, clock, k) = (Folder::new(), ManualClock::new(), key("a"));
    let store = folder.open(&clock);
    set(&store, &k, b"one");
    let before = block_on(store.read(std::slice::from_ref(&k)));
    drop(store);
    let store = folder.open(&clock);
    assert_eq!(block_on(store.read(std::slice::from_ref(&k))), before);
    assert_eq!(store.data_left(&k), Some(HOUR));
    assert_eq!(store.recovery().values, 1);
}

#[test]
fn a_lease_ends_with_the_process() {
    let (folder, clock, k) = (Folder::new(), ManualClock::new(), key("a"));
    let store = folder.open(&clock);
    let ask = everfresh::store::Acquire {
        seen: None,
        token: everfresh::store::Token {
            origin: Origin(1),
            serial: 1,
        },
        lease: HOUR,
    };
    block_on(store.acquire(&k, ask)).unwrap();
    assert!(store.lease_left(&k).is_some());
    drop(store);
    assert_eq!(folder.open(&clock).lease_left(&k), None);
}

#[test]
fn an_expired_value_that_was_removed_stays_away_if_the_clock_goes_back() {
    let (folder, k) = (Folder::new(), key("a"));
    let clock = ManualClock::new();
    let store = folder.open(&clock);
    set(&store, &k, b"one");
    clock.advance(HOUR);
    block_on(store.invalidate(&k, Birth::latest(Origin(1)))).unwrap();
    drop(store);
    let store = folder.open(&ManualClock::new());
    assert_eq!(get(&store, &k), None);
}

#[test]
fn a_value_from_the_future_is_stale_and_refreshed_once() {
    let mut program = Program::new();
    program.clock.advance(HOUR);
    let cache = program.start();
    assert_eq!(*cache.get_blocking(&1).unwrap(), 0);
    published(&cache, 1);
    program.end(cache);

    // The clock of the machine was set back before the next run.
    program.clock = ManualClock::new();
    let cache = program.start();
    let value = cache.get_blocking(&1).unwrap();
    assert!(value.freshness().is_stale(), "its age is unknown");
    assert_eq!(*value, 0);
    until("the value is refreshed", || {
        *cache.get_blocking(&1).unwrap() == 1
    });
    published(&cache, 1);
    program.end(cache);
    let cache = program.start();
    let value = cache.get_blocking(&1).unwrap();
    assert_eq!((*value, value.source()), (1, Source::Store));
    assert!(value.age().abs_diff(Duration::from_secs(1)) < Duration::from_millis(1));
    assert_eq!(program.loads(), 2);
}

#[test]
fn the_oldest_values_leave_a_full_store_for_good() {
    let (folder, clock) = (Folder::new(), ManualClock::new());
    let open = || FileStore::open_with_clock(folder.file(), 100_000, &clock).unwrap();
    let store = open();
    let keys: Vec<_> = (0..300).map(|n| key(&n.to_string())).collect();
    for key in &keys {
        set(&store, key, &[7; 1_000]);
    }
    let kept = |store: &FileStore| -> Vec<bool> {
        keys.iter().map(|key| get(store, key).is_some()).collect()
    };
    let before = kept(&store);
    let count = before.iter().filter(|is_kept| **is_kept).count();
    assert!((50..100).contains(&count), "{count} are kept");
    assert!(before[300 - count..].iter().all(|is_kept| *is_kept));
    drop(store);
    // Its clock stood still, so the epochs run ahead of it.
    clock.advance(Duration::from_secs(1));
    assert_eq!(kept(&open()), before);
}

#[test]
fn the_file_is_rewritten_before_it_is_large() {
    let (folder, clock) = (Folder::new(), ManualClock::new());
    let store = folder.open(&clock);
    let keys: Vec<_> = (0..10).map(|n| key(&n.to_string())).collect();
    let length = || fs::metadata(folder.file()).unwrap().len();
    for turn in 0..100_u8 {
        for key in &keys {
            set(&store, key, &[turn; 20_000]);
        }
    }
    // 20 MB were written. The last rewrite may still run.
    until("the file is short", || length() < 2_000_000);
    drop(store);
    clock.advance(Duration::from_secs(1));
    let store = folder.open(&clock);
    for key in &keys {
        assert_eq!(get(&store, key).unwrap(), [99; 20_000]);
    }
}

#[test]
fn a_rewrite_that_fails_leaves_the_file_as_it_is() {
    let (folder, clock) = (Folder::new(), ManualClock::new());
    let store = folder.open(&clock);
    // The new file cannot be made where a folder is.
    let new = folder.file().with_extension("new");
    fs::create_dir(&new).unwrap();
    for turn in 0..100_u8 {
        set(&store, &key("a"), &[turn; 40_000]);
    }
    assert!(fs::metadata(folder.file()).unwrap().len() > 4_000_000);
    drop(store);
    assert_eq!(
        FileStore::open(folder.file(), MUCH).unwrap_err().kind(),
        FileErrorKind::Io
    );
    fs::remove_dir(&new).unwrap();
    clock.advance(Duration::from_secs(1));
    let store = folder.open(&clock);
    assert_eq!(get(&store, &key("a")).unwrap(), [99; 40_000]);
    set(&store, &key("a"), b"short");
    until("the file is short", || {
        fs::metadata(folder.file()).unwrap().len() < 1_000_000
    });
    assert_eq!(get(&store, &key("a")).unwrap(), b"short");
}

#[test]
fn a_file_has_one_user() {
    let (folder, clock) = (Folder::new(), ManualClock::new());
    let store = folder.open(&clock);
    let error = FileStore::open(folder.file(), MUCH).unwrap_err();
    assert_eq!(error.kind(), FileErrorKind::InUse);
    assert!(error.to_string().contains("give each process a file"));
    drop(store);
    folder.open(&clock);
}

#[test]
fn other_files_are_left_alone() {
    let folder = Folder::new();
    for (bytes, kind) in [
        (&b"a letter"[..], FileErrorKind::Foreign),
        (b"EVFFILE\x02 and more", FileErrorKind::Version),
    ] {
        fs::write(folder.file(), bytes).unwrap();
        let error = FileStore::open(folder.file(), MUCH).unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(fs::read(folder.file()).unwrap(), bytes);
    }
    let error = FileStore::open(folder.file().join("no"), MUCH).unwrap_err();
    assert_eq!(error.kind(), FileErrorKind::Io);
}

#[test]
fn a_damaged_file_is_opened_and_reported() {
    let (folder, clock) = (Folder::new(), ManualClock::new());
    let store = folder.open(&clock);
    set(&store, &key("a"), b"one");
    set(&store, &key("b"), b"two");
    drop(store);
    let mut bytes = fs::read(folder.file()).unwrap();
    bytes[8] ^= 1;
    fs::write(folder.file(), &bytes).unwrap();
    let store = folder.open(&clock);
    let recovery = store.recovery();
    assert_eq!((recovery.values, recovery.damaged), (0, bytes.len() as u64));
    set(&store, &key("b"), b"three");
    drop(store);
    let store = folder.open(&clock);
    assert_eq!(store.recovery().damaged, 0);
    assert_eq!(get(&store, &key("b")).unwrap(), b"three");
}
