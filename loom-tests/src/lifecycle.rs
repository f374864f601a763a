//! Loads that start or end while the cache is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use everfresh::model::{Lifecycle, Work};
use loom::future::block_on;
use loom::thread::spawn;

use crate::Threads::{Two, TwoBusy};
use crate::{Threads, run_model};

#[derive(Default)]
struct Cache {
    lifecycle: Lifecycle,
    /// Loads that have started, and loads that have ended. Not a part of the model.
    started: AtomicUsize,
    ended: AtomicUsize,
}

impl Cache {
    /// A load, if the cache takes it; `inside` is what it does before it ends.
    fn load(&self, is_inside: bool, inside: impl FnOnce()) {
        if self.lifecycle.start(Work::Load, || is_inside) {
            self.started.fetch_add(1, Ordering::Relaxed);
            inside();
            self.ended.fetch_add(1, Ordering::Relaxed);
            self.lifecycle.end(Work::Load);
        }
    }

    /// A close without a limit. Returns the loads that had started.
    fn close(&self) -> usize {
        self.lifecycle.begin_close(|| 0);
        block_on(self.lifecycle.until(Lifecycle::close_if_idle));
        let started = self.started.load(Ordering::Relaxed);
        let ended = self.ended.load(Ordering::Relaxed);
        assert_eq!(ended, started, "a load is lost");
        started
    }
}

fn against_a_close(threads: Threads, other: fn(&Cache)) {
    run_model(threads, move || {
        let cache = Arc::new(Cache::default());
        let thread = spawn({
            let cache = cache.clone();
            move || other(&cache)
        });
        let started = cache.close();
        thread.join().unwrap();
        let later = cache.started.load(Ordering::Relaxed) - started;
        assert_eq!(later, 0, "a load started after the close");
        assert_eq!(cache.lifecycle.loads(), 0);
    });
}

/// P3: a load comes before the close, which waits for its end, or is refused. A lost end is a
/// deadlock here.
#[test]
fn a_load_against_a_close() {
    against_a_close(TwoBusy, |cache| cache.load(false, || {}));
}

/// P3: the same for a load that starts while the cache closes, because a load of another cache
/// waits for it.
#[test]
fn a_load_inside_a_load_against_a_close() {
    against_a_close(TwoBusy, |cache| {
        cache.load(true, || cache.load(true, || {}));
    });
}

/// P3: two calls that close at one moment both end.
#[test]
fn two_closes_against_each_other() {
    against_a_close(Two, |cache| {
        cache.close();
    });
}

/// A lease is given back when the phase becomes closed, also if its renewal begins to wait at that
/// moment. A lost notification is a deadlock here.
#[test]
fn a_renewal_that_begins_to_wait_against_the_limit_of_a_close() {
    run_model(TwoBusy, || {
        let lifecycle = Arc::new(Lifecycle::default());
        lifecycle.start_part(Work::Duty);
        let other = spawn({
            let lifecycle = lifecycle.clone();
            move || {
                lifecycle.begin_close(|| 0);
                lifecycle.close();
                block_on(lifecycle.until(|lifecycle| lifecycle.duties() == 0));
            }
        });
        block_on(lifecycle.closed());
        lifecycle.end(Work::Duty);
        other.join().unwrap();
    });
}
