//! Waiting for an event: no notification is lost, and none stops at a waker that panics.
//!
//! A lost wake-up is a deadlock here, which the checker reports. The condition is written and read
//! `Relaxed`, so that a check sees it only by the edges of the event itself.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Wake, Waker};

use everfresh::model::{AtomicU8, Event};
use loom::future::block_on;
use loom::thread::spawn;

use crate::Threads::{Three, Two};
use crate::run_model;

#[derive(Default)]
struct Gate {
    open: AtomicU8,
    event: Event,
}

impl Gate {
    fn open(&self) {
        self.open.store(1, Ordering::Relaxed);
        self.event.notify_all();
    }

    fn wait(&self) {
        loop {
            let opened = self.event.listen();
            if self.open.load(Ordering::Relaxed) == 1 {
                return;
            }
            block_on(opened);
        }
    }
}

/// P3: a notification while a waiter registers reaches it, or the waiter sees the condition.
#[test]
fn a_notification_against_a_waiter() {
    run_model(Two, || {
        let gate = Arc::new(Gate::default());
        let opener = spawn({
            let gate = gate.clone();
            move || gate.open()
        });
        gate.wait();
        opener.join().unwrap();
    });
}

/// P3: one notification reaches two waiters.
#[test]
fn a_notification_against_two_waiters() {
    run_model(Three, || {
        let gate = Arc::new(Gate::default());
        let waiters = [(); 2].map(|()| {
            let gate = gate.clone();
            spawn(move || gate.wait())
        });
        gate.open();
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

/// P3: a waiter that is dropped meanwhile removes its own wake-up, and no other.
#[test]
fn a_notification_against_a_waiter_that_goes_away() {
    run_model(Three, || {
        let gate = Arc::new(Gate::default());
        let leaver = spawn({
            let gate = gate.clone();
            move || {
                let mut opened = pin!(gate.event.listen());
                let mut context = Context::from_waker(Waker::noop());
                let _ = opened.as_mut().poll(&mut context);
            }
        });
        let opener = spawn({
            let gate = gate.clone();
            move || gate.open()
        });
        gate.wait();
        leaver.join().unwrap();
        opener.join().unwrap();
    });
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker panics");
    }
}

/// P5: a waker that panics strands no other waiter, in any order.
#[test]
fn a_waker_that_panics() {
    run_model(Two, || {
        let gate = Arc::new(Gate::default());
        let mut opened = pin!(gate.event.listen());
        let panics = Waker::from(Arc::new(Panics));
        let mut context = Context::from_waker(&panics);
        assert!(opened.as_mut().poll(&mut context).is_pending());
        let waiter = spawn({
            let gate = gate.clone();
            move || gate.wait()
        });
        gate.open();
        waiter.join().unwrap();
    });
}
