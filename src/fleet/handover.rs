//! Work that the task of one caller does, until another caller needs the result too.
//!
//! The first caller may stop to poll its future at any time, or drop it. So the work goes to a task
//! of its own as soon as another caller waits for it, or the first one goes away. The two meet in
//! one of two orders: either the other caller finds the work here and takes it, or the first one,
//! which is at work, finds after its step that it was asked for. So no caller waits for a task that
//! does nothing (P3). A caller that takes the work wakes the first one, which then waits like all
//! others.

use std::task::Waker;

use crate::sync::{Mutex, lock};

pub struct Handover<W>(Mutex<State<W>>);

struct State<W> {
    /// `None` while it is worked at, once it is over, and once it was handed over.
    work: Option<W>,
    /// Wakes the first caller.
    waker: Option<Waker>,
    is_wanted: bool,
}

impl<W> Handover<W> {
    pub fn new(work: W) -> Self {
        Handover(Mutex::new(State {
            work: Some(work),
            waker: None,
            is_wanted: false,
        }))
    }

    /// The work, for a step of the first caller.
    pub fn take(&self) -> Option<W> {
        lock(&self.0).work.take()
    }

    /// Ends a step of the first caller, which `waker` wakes. Returns the work if it was asked for
    /// meanwhile; the first caller then hands it over.
    #[must_use]
    pub fn put_back(&self, work: W, waker: Option<Waker>) -> Option<W> {
        // An old waker is dropped outside of the lock, because that may run user code.
        let mut old = waker;
        let mut state = lock(&self.0);
        if state.is_wanted {
            return Some(work);
        }
        state.work = Some(work);
        std::mem::swap(&mut state.waker, &mut old);
        drop(state);
        drop(old);
        None
    }

    /// Asks for the work. Returns it, and what wakes the first caller, unless that is at work or
    /// the work is over.
    #[must_use]
    pub fn ask(&self) -> Option<(W, Option<Waker>)> {
        let mut state = lock(&self.0);
        state.is_wanted = true;
        let work = state.work.take()?;
        Some((work, state.waker.take()))
    }
}
