//! Wakers that panic or drop tasks: all other callers are still woken.

use std::panic::panic_any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread;

use everfresh::{Cache, Clock, Loaded, ManualClock, Source};

use crate::support::gates::{End, Gates, numbering};
use crate::support::*;

/// Counts its calls, and panics at each one if the flag is set.
#[derive(Default)]
struct Called {
    panics: bool,
    times: AtomicU64,
}

impl Called {
    fn new(panics: bool) -> (Arc<Called>, Waker) {
        let called = Arc::new(Called {
            panics,
            times: AtomicU64::new(0),
        });
        (called.clone(), Waker::from(called))
    }

    fn times(&self) -> u64 {
        self.times.load(Ordering::SeqCst)
    }
}

/// A payload that panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the payload of a panic");
    }
}

impl Wake for Called {
    fn wake(self: Arc<Self>) {
        self.times.fetch_add(1, Ordering::SeqCst);
        if self.panics {
            panic_any(Bomb);
        }
    }
}

fn is_pending_with(reading: &mut Reading<u64>, waker: &Waker) -> bool {
    reading
        .as_mut()
        .poll(&mut Context::from_waker(waker))
        .is_pending()
}

/// Three callers that wait for one key. The wakers of the first and the last panic.
fn three_callers(cache: &Cache<u64, u64>, key: u64) -> Vec<(Reading<u64>, Arc<Called>)> {
    [true, false, true]
        .map(|panics| {
            let (called, waker) = Called::new(panics);
            let mut reading = get(cache, key);
            assert!(is_pending_with(&mut reading, &waker));
            (reading, called)
        })
        .into()
}

#[test]
fn a_waker_that_panics_strands_no_other_caller_of_its_load() {
    let (cache, tasks, gates) = by_hand(builder(&ManualClock::new()));
    let callers = three_callers(&cache, 1);
    tasks.poll_all();
    gates.end(0, End::Value(7));
    tasks.poll_all();
    for (reading, called) in callers {
        assert_eq!(called.times(), 1);
        assert_eq!(*ready(reading).unwrap(), 7);
    }
    assert_eq!(cache.stats().published, 1);
    // The flight, which has lost these waiters, still wakes later ones.
    assert_eq!(*cache.get_blocking(&1).unwrap(), 7);
}

#[test]
fn a_waker_that_panics_at_a_deadline_strands_no_other_caller() {
    let clock = ManualClock::new();
    let (first, ..) = by_hand(builder(&clock).load_timeout(secs(5)));
    let (second, ..) = by_hand(builder(&clock).load_timeout(secs(5)));
    let mut callers = three_callers(&first, 1);
    callers.extend(three_callers(&second, 1));
    clock.advance(secs(5));
    for (reading, called) in callers {
        assert_eq!(called.times(), 1);
        assert!(ready(reading).unwrap_err().is_timeout());
    }
}

#[test]
fn a_waker_that_panics_does_not_affect_later_deadlines() {
    let hanging = || {
        let loader = numbering();
        loader.hold();
        let builder = Cache::builder()
            .clock(Clock::precise())
            .threads(1)
            .load_timeout(secs(1));
        (computing(builder, &loader), loader)
    };
    let (first, first_loader) = hanging();
    let callers = three_callers(&first, 1);
    until("the clock thread calls all wakers", || {
        callers.iter().all(|(_, called)| called.times() > 0)
    });
    // The same thread handles the next deadline.
    let (second, second_loader) = hanging();
    assert!(second.get_blocking(&1).unwrap_err().is_timeout());
    first_loader.release();
    second_loader.release();
}

/// Reads the key when it is called, and keeps how the value was served.
struct Reads {
    cache: Cache<u64, u64>,
    served: Mutex<Option<Source>>,
}

impl Wake for Reads {
    fn wake(self: Arc<Self>) {
        let source = self.cache.get_if_present(&1).map(|value| value.source());
        *self.served.lock().unwrap() = source;
    }
}

/// The source of a stale value that a caller reads as soon as its refresh wakes it.
fn read_when_woken(end: impl FnOnce(&ManualClock, &Tasks, &Gates<u64>)) -> Option<Source> {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock).load_timeout(secs(5)));
    cache.insert(1, Loaded::new(7).fresh_for(millis(0)));
    let mut refreshing = refresh(&cache, 1);
    let reads = Arc::new(Reads {
        cache,
        served: Mutex::default(),
    });
    assert!(is_pending_with(
        &mut refreshing,
        &Waker::from(reads.clone())
    ));
    tasks.poll_all();
    end(&clock, &tasks, &gates);
    assert!(ready(refreshing).is_err());
    reads.served.lock().unwrap().take()
}

#[test]
fn a_caller_that_its_failed_refresh_wakes_reads_the_value_as_served_after_a_failure() {
    let failed = read_when_woken(|_, tasks, gates| {
        gates.end(0, End::Fail);
        tasks.poll_all();
    });
    assert_eq!(failed, Some(Source::AfterFailure));
    let timed_out = read_when_woken(|clock, _, _| clock.advance(secs(5)));
    assert_eq!(timed_out, Some(Source::AfterFailure));
}

/// A task of a small executor. Its waker puts it into a queue, and the task is dropped with its
/// last handle.
struct Task {
    future: Mutex<Option<Reading<u64>>>,
    queue: std::sync::mpsc::Sender<Arc<Task>>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        let _ = self.queue.send(self.clone());
    }
}

#[test]
fn a_waker_may_drop_the_task_that_waits() {
    // The executor is gone, so the waker is the last handle of its task, and drops the read while
    // it wakes it.
    let (cache, tasks, gates) = by_hand(builder(&ManualClock::new()));
    let (queue, executor) = std::sync::mpsc::channel();
    drop(executor);
    let (task, mut other) = (
        Arc::new(Task {
            future: Mutex::new(Some(get(&cache, 1))),
            queue,
        }),
        get(&cache, 1),
    );
    let waker = Waker::from(task.clone());
    let pending = (task.future.lock().unwrap().as_mut())
        .is_some_and(|reading| is_pending_with(reading, &waker));
    assert!(pending);
    drop((task, waker));
    let (called, waker) = Called::new(false);
    assert!(is_pending_with(&mut other, &waker));
    tasks.poll_all();
    gates.end(0, End::Value(7));
    let delivering = thread::spawn(move || tasks.poll_all());
    until("the delivery ends", || delivering.is_finished());
    assert_eq!(called.times(), 1);
    assert_eq!(*ready(other).unwrap(), 7);
}
