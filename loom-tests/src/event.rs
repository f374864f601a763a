//! Waiting for something that happens: no notification is lost, and none stops at a waker that
//! panics.
//!
//! A lost wake-up is a deadlock here, which the checker reports. What is waited for is written and
//! read `Relaxed`, so that a look sees it only by the edges of the event itself.

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
struct Door {
    open: AtomicU8,
    event: Event,
}

impl Door {
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

/// P3: a notification while a waiter registers is heard by it, or what it tells of is seen.
#[test]
fn a_notification_against_a_waiter() {
    run_model(Two, || {
        let door = Arc::new(Door::default());
        let opener = spawn({
            let door = door.clone();
            move || door.open()
        });
        door.wait();
        opener.join().unwrap();
    });
}

/// P3: two waiters hear of one notification.
#[test]
fn a_notification_against_two_waiters() {
    run_model(Three, || {
        let door = Arc::new(Door::default());
        let waiters = [(); 2].map(|()| {
            let door = door.clone();
            spawn(move || door.wait())
        });
        door.open();
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

/// P3: a waiter that goes away meanwhile takes its own wake-up with it, and no other's.
#[test]
fn a_notification_against_a_waiter_that_goes_away() {
    run_model(Three, || {
        let door = Arc::new(Door::default());
        let leaver = spawn({
            let door = door.clone();
            move || {
                let mut opened = pin!(door.event.listen());
                let mut context = Context::from_waker(Waker::noop());
                let _ = opened.as_mut().poll(&mut context);
            }
        });
        let opener = spawn({
            let door = door.clone();
            move || door.open()
        });
        door.wait();
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

/// P5: a waker that panics strands no other waiter, wherever that is.
#[test]
fn a_waker_that_panics() {
    run_model(Two, || {
        let door = Arc::new(Door::default());
        let mut opened = pin!(door.event.listen());
        let panics = Waker::from(Arc::new(Panics));
        let mut context = Context::from_waker(&panics);
        assert!(opened.as_mut().poll(&mut context).is_pending());
        let waiter = spawn({
            let door = door.clone();
            move || door.wait()
        });
        door.open();
        waiter.join().unwrap();
    });
}
