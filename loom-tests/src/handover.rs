//! Work that one caller does until another one needs it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use everfresh::model::{AtomicUsize, Handover};
use loom::thread::spawn;

use crate::Threads::Three;
use crate::run_model;

/// P3: the first caller takes one step and is never polled again. The work goes to a task of its
/// own, once, however many others ask for it.
#[test]
fn a_step_against_two_callers_that_ask() {
    run_model(Three, || {
        let shared = Arc::new((Handover::new(7_u8), AtomicUsize::new(0)));
        let others: Vec<_> = (0..2)
            .map(|_| {
                let shared = shared.clone();
                spawn(move || {
                    if shared.0.ask().is_some() {
                        shared.1.fetch_add(1, Ordering::AcqRel);
                    }
                })
            })
            .collect();
        let work = shared.0.take();
        let wanted = work.and_then(|work| shared.0.put_back(work, None));
        if wanted.is_some() {
            shared.1.fetch_add(1, Ordering::AcqRel);
        }
        for other in others {
            other.join().unwrap();
        }
        let handed_over = shared.1.load(Ordering::Acquire);
        assert_eq!(handed_over, 1, "work is left to a caller that is gone");
    });
}
