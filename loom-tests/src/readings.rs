//! A caller that reads the store itself, against a close.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use everfresh::model::{Help, Lifecycle, Readings};
use loom::thread::spawn;

use crate::Threads::Two;
use crate::run_model;

/// Counts how often its work was handed over. Not a part of the model.
#[derive(Default)]
struct Caller(AtomicUsize);

impl Help for Caller {
    fn help(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// P3: the work of a caller that begins while a close does is handed over, by one of the two. The
/// caller is not polled meanwhile.
#[test]
fn a_caller_that_begins_against_a_close() {
    run_model(Two, || {
        let shared = Arc::new((Readings::default(), Lifecycle::default()));
        let closing = spawn({
            let shared = shared.clone();
            move || {
                shared.1.begin_close(|| 0);
                shared.0.hand_over();
            }
        });
        let caller = Arc::new(Caller::default());
        let weak: Weak<dyn Help> = Arc::downgrade(&(caller.clone() as Arc<dyn Help>));
        if !shared.0.begin(1, weak, || shared.1.is_open()) {
            caller.help();
        }
        closing.join().unwrap();
        let handed_over = caller.0.load(Ordering::Relaxed);
        assert!(
            handed_over > 0,
            "a close waits for a caller that is not polled"
        );
    });
}
