//! A forked process has the caches of its parent, but neither its pools nor its clock thread. A
//! read that cannot be served returns an error after the load timeout. A cache that is built there
//! works.
//!
//! This binary has a single test, so that no other thread holds a lock at the moment of a fork. A
//! child only reads and exits; its exit status tells the result.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::pin::pin;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use everfresh::{BoxFuture, Cache, Cached, Clock, CountingLoader, Error};

/// The limit only turns a hang of a child into a failure.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Got {
    Value = 10,
    Timeout,
    AnotherError,
}

impl Got {
    const ALL: [Got; 3] = [Got::Value, Got::Timeout, Got::AnotherError];

    fn of(read: Result<Cached<u64, u64>, Error>) -> Self {
        match read {
            Ok(_) => Got::Value,
            Err(error) if error.is_timeout() => Got::Timeout,
            Err(_) => Got::AnotherError,
        }
    }
}

/// Returns the result of a read in a child of this process.
fn in_a_child(read: impl FnOnce() -> Result<Cached<u64, u64>, Error>) -> Got {
    // SAFETY: the child runs `read` on its only thread, and exits without unwinding. The test has
    // no other thread inside the allocator or the cache; the C library makes its own locks usable
    // in the child.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "the system cannot fork");
    if child == 0 {
        let got = Got::of(read());
        // SAFETY: ends the process at once, without destructors.
        unsafe { libc::_exit(got as i32) };
    }
    let started = Instant::now();
    let mut status = 0;
    // SAFETY: `status` is valid, and `child` is a child that was not waited for.
    while unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } == 0 {
        if started.elapsed() > LIMIT {
            // SAFETY: the child was not waited for, so its process id is not reused.
            unsafe { libc::kill(child, libc::SIGKILL) };
            panic!("the child hangs");
        }
        std::thread::yield_now();
    }
    assert!(libc::WIFEXITED(status), "the child died: {status}");
    let got = libc::WEXITSTATUS(status);
    let known = Got::ALL.into_iter().find(|known| *known as i32 == got);
    known.expect("the child exits by itself")
}

/// The number of threads of this process, if the system tells it.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

fn run_here(load: BoxFuture) {
    let mut load = load;
    let mut context = Context::from_waker(Waker::noop());
    while load.as_mut().poll(&mut context).is_pending() {}
}

#[test]
fn a_child_reads_what_is_resident_and_waits_no_longer_than_the_load_timeout() {
    for clock in [Clock::precise(), Clock::coarse()] {
        let loader = CountingLoader::new(|key: &u64| *key);
        let computing = loader.clone();
        let cache: Cache<u64, u64> = Cache::builder()
            .clock(clock)
            .threads(1)
            .load_timeout(Duration::from_millis(200))
            .try_compute(move |key: &u64| computing.compute(key))
            .build()
            .unwrap();
        // The parent waits once, so its pool has run a load and its clock has a thread.
        assert_eq!(*cache.get_blocking(&1).unwrap(), 1);
        assert_eq!(in_a_child(|| cache.get_blocking(&1)), Got::Value, "a hit");
        assert_eq!(
            in_a_child(|| cache.get_blocking(&2)),
            Got::Timeout,
            "a miss"
        );
        // The same in a child of a child.
        let grandchild = || match in_a_child(|| cache.get_blocking(&3)) {
            Got::Timeout => cache.get_blocking(&4),
            _ => cache.get_blocking(&1),
        };
        assert_eq!(in_a_child(grandchild), Got::Timeout);
        // A load runs in the parent, which has set an alarm for it.
        loader.hold();
        let mut waiting = pin!(cache.get(&5));
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        assert_eq!(
            in_a_child(|| cache.get_blocking(&5)),
            Got::Timeout,
            "a load of the parent"
        );
        loader.release();
        // The parent continues.
        assert_eq!(*cache.get_blocking(&6).unwrap(), 6);
    }
    // A load on the thread of its caller works, and starts no pool.
    let cache: Cache<u64, u64> = Cache::builder()
        .run_on_caller(true)
        .compute(|key: &u64| *key)
        .build()
        .unwrap();
    let read = || {
        let read = cache.get_blocking(&2);
        // The second one is the clock.
        if threads() > 2 {
            std::process::abort();
        }
        read
    };
    assert_eq!(in_a_child(read), Got::Value);
    // A loader that needs no thread of the parent works.
    let cache: Cache<u64, u64> = Cache::builder()
        .spawner(run_here)
        .load(|key: &u64| {
            let key = *key;
            async move { key }
        })
        .build()
        .unwrap();
    assert_eq!(*cache.get_blocking(&1).unwrap(), 1);
    assert_eq!(in_a_child(|| cache.get_blocking(&2)), Got::Value);
    // The shared pool runs in the parent. A child starts its own, also for a cache of the parent
    // that has not loaded yet.
    let on_the_shared_pool = || {
        let builder = Cache::builder().load_timeout(Duration::from_millis(200));
        builder.compute(|key: &u64| *key).build().unwrap()
    };
    let [used, unused]: [Cache<u64, u64>; 2] = [(); 2].map(|()| on_the_shared_pool());
    assert_eq!(*used.get_blocking(&1).unwrap(), 1);
    let built_here = || on_the_shared_pool().get_blocking(&2);
    assert_eq!(in_a_child(built_here), Got::Value);
    assert_eq!(in_a_child(|| unused.get_blocking(&2)), Got::Value);
    assert_eq!(in_a_child(|| used.get_blocking(&2)), Got::Timeout);
    let grandchild = || match in_a_child(built_here) {
        Got::Value => built_here(),
        _ => used.get_blocking(&2),
    };
    assert_eq!(in_a_child(grandchild), Got::Value);
    assert_eq!(*used.get_blocking(&3).unwrap(), 3);
}
