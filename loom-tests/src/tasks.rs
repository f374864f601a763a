//! Tasks that start or end while the store of a cache is given back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use everfresh::model::Tasks;
use loom::future::block_on;
use loom::thread::spawn;

use crate::Threads::Two;
use crate::run_model;

/// A cache gives its store back once no task uses it. The waits for the last task and its end meet.
#[test]
fn a_task_against_the_end() {
    run_model(Two, || {
        // The second counts the tasks at work, and is not a part of the model.
        let shared = Arc::new((Tasks::default(), AtomicUsize::new(0)));
        let task = spawn({
            let shared = shared.clone();
            move || {
                if shared.0.enter() {
                    shared.1.fetch_add(1, Ordering::Relaxed);
                    loom::thread::yield_now();
                    shared.1.fetch_sub(1, Ordering::Relaxed);
                }
                shared.0.leave();
            }
        });
        shared.0.end();
        block_on(shared.0.idle());
        let at_work = shared.1.load(Ordering::Relaxed);
        assert_eq!(at_work, 0, "a task uses a store that was given back");
        task.join().unwrap();
        assert_eq!(shared.1.load(Ordering::Relaxed), 0);
    });
}
