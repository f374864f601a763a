//! Models of negative entries: whole calls of the cache against writes of the same key.
//!
//! The origin never has a value, so every load ends with "not found".

use std::future::Future;
use std::hash::{BuildHasherDefault, Hasher};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use everfresh::{BoxFuture, Cache, Cached, Error, ManualClock};
use loom::thread::{Builder, spawn};

use crate::Threads::{Two, TwoBusy, TwoLong};
use crate::fixture::KEY;
use crate::run_model;

/// The same hash in every execution, and never the tag of an empty way.
#[derive(Clone, Copy, Default)]
struct Fixed(u64);

impl Hasher for Fixed {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().map(|byte| u64::from(*byte) + 1).sum();
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Four times as many as a model's thread has.
const WORDS_OF_STACK: usize = 1 << 14;

type Whole = Cache<u8, u64, BuildHasherDefault<Fixed>>;

/// Loads that were started and wait for the model to run them.
#[derive(Clone, Default)]
struct Loads(Arc<Mutex<(usize, Vec<BoxFuture>)>>);

impl Loads {
    fn started(&self) -> usize {
        self.0.lock().unwrap().0
    }

    fn take(&self) -> BoxFuture {
        self.0.lock().unwrap().1.pop().expect("a load was started")
    }
}

/// Runs a load to its end. The load never waits.
fn run(mut load: BoxFuture) {
    assert!(poll(load.as_mut()).is_ready());
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Builds the cache on a larger stack than that of a model's thread: without optimizations, as
/// seeded faults are built, the settings are copied again and again.
fn cache() -> (Whole, Loads, ManualClock) {
    let builder = Builder::new().stack_size(WORDS_OF_STACK);
    builder.spawn(build).unwrap().join().unwrap()
}

fn build() -> (Whole, Loads, ManualClock) {
    let (loads, clock) = (Loads::default(), ManualClock::new());
    let spawned = loads.clone();
    let cache = Cache::builder()
        .capacity(1)
        .hasher(BuildHasherDefault::default())
        .clock(&clock)
        .fresh_for(Duration::from_secs(10))
        .stale_for(Duration::from_secs(10))
        .not_found_for(Duration::from_secs(1_000))
        .beta(0.0)
        .spawner(move |load| {
            let mut spawned = spawned.0.lock().unwrap();
            spawned.0 += 1;
            spawned.1.push(load);
        })
        .load(async |_: &u8| None)
        .build()
        .unwrap();
    (cache, loads, clock)
}

type Reading<'a> = Pin<Box<dyn Future<Output = Result<Cached<u8, u64>, Error>> + 'a>>;

fn get(cache: &Whole) -> Reading<'_> {
    Box::pin(cache.get(&KEY))
}

/// The answer of a call that need not wait: the value, or "not found".
fn answer(reading: &mut Reading<'_>) -> Option<Option<u64>> {
    match poll(reading.as_mut()) {
        Poll::Pending => None,
        Poll::Ready(Ok(cached)) => Some(Some(*cached)),
        Poll::Ready(Err(error)) => {
            assert!(error.is_not_found());
            Some(None)
        }
    }
}

/// A load that has begun and has not ended.
fn begun(cache: &Whole, loads: &Loads) -> BoxFuture {
    assert_eq!(answer(&mut get(cache)), None);
    loads.take()
}

/// P4: the answer of a load does not count after an invalidation.
#[test]
fn answer_against_invalidate() {
    run_model(TwoLong, || {
        let (cache, loads, _clock) = cache();
        let load = begun(&cache, &loads);
        let writes = cache.clone();
        // In a thread of its own, so that two preemptions stop the load between two of its steps
        // for the whole call.
        let writer = Builder::new().stack_size(WORDS_OF_STACK).spawn(move || {
            writes.invalidate(&KEY);
            assert_eq!(
                answer(&mut get(&writes)),
                None,
                "an old answer still counts"
            );
        });
        run(load);
        writer.unwrap().join().unwrap();
        assert_eq!(answer(&mut get(&cache)), None, "an old answer still counts");
        assert_eq!(loads.started(), 2, "one load after the invalidation");
    });
}

/// P4: nor does it count after an invalidation of all keys.
#[test]
fn answer_against_invalidate_all() {
    run_model(TwoLong, || {
        let (cache, loads, _clock) = cache();
        let load = begun(&cache, &loads);
        let loader = spawn(move || run(load));
        cache.invalidate_all();
        assert_eq!(answer(&mut get(&cache)), None, "an old answer still counts");
        loader.join().unwrap();
        assert_eq!(answer(&mut get(&cache)), None, "an old answer still counts");
    });
}

/// P4: nor does it count after an insert, even if the inserted value was removed since.
#[test]
fn answer_against_insert() {
    run_model(TwoBusy, || {
        let (cache, loads, clock) = cache();
        let load = begun(&cache, &loads);
        let loader = spawn(move || run(load));
        cache.insert(KEY, 9);
        assert_eq!(answer(&mut get(&cache)), Some(Some(9)));
        loader.join().unwrap();
        assert_eq!(answer(&mut get(&cache)), Some(Some(9)));
        clock.advance(Duration::from_secs(100));
        assert_eq!(cache.sweep(), 1);
        assert_eq!(answer(&mut get(&cache)), None, "an old answer still counts");
    });
}

/// P3: a caller that comes while a load ends gets its answer, or the answer of one more load.
#[test]
fn answer_against_a_caller() {
    run_model(TwoLong, || {
        let (cache, loads, _clock) = cache();
        let load = begun(&cache, &loads);
        let loader = spawn(move || run(load));
        let mut caller = get(&cache);
        let told = answer(&mut caller);
        loader.join().unwrap();
        if loads.started() == 2 {
            // It came after the first placeholder was removed and before its entry was committed.
            run(loads.take());
        }
        let told = told.or_else(|| answer(&mut caller));
        assert_eq!(told, Some(None), "a caller is not told");
        assert_eq!(answer(&mut get(&cache)), Some(None), "it is not remembered");
    });
}

/// P3: a caller that waited for a load and reads again finds its negative entry.
#[test]
fn answer_against_a_caller_that_waited() {
    run_model(Two, || {
        let (cache, loads, _clock) = cache();
        let mut caller = get(&cache);
        assert_eq!(answer(&mut caller), None);
        let load = loads.take();
        let loader = spawn(move || run(load));
        if answer(&mut caller).is_some() {
            assert_eq!(answer(&mut get(&cache)), Some(None), "it is asked twice");
        }
        loader.join().unwrap();
        assert_eq!(loads.started(), 1, "a second load");
    });
}

/// P4: a refresh that finds no value does not remove a value that was inserted meanwhile.
#[test]
fn answer_of_a_refresh_against_insert() {
    run_model(TwoBusy, || {
        let (cache, loads, clock) = cache();
        cache.insert(KEY, 5);
        clock.advance(Duration::from_secs(11));
        assert_eq!(answer(&mut get(&cache)), Some(Some(5)));
        let refresh = loads.take();
        let refresher = spawn(move || run(refresh));
        cache.insert(KEY, 9);
        assert_eq!(
            cache.get_if_present(&KEY).as_deref(),
            Some(&9),
            "an insert is undone"
        );
        refresher.join().unwrap();
        assert_eq!(
            cache.get_if_present(&KEY).as_deref(),
            Some(&9),
            "an insert is undone"
        );
    });
}
