//! Work that the task of one caller does, until another caller needs the result too.
//!
//! The first caller may stop to poll its future at any time, or drop it. So the work goes to a task
//! of its own as soon as another caller waits for it, or the first one goes away. There are two
//! orders. Either the other caller finds the work here, takes it and wakes the first one, which
//! then waits like all others. Or the first caller is in a step, and finds after it that the work
//! was asked for. So no caller waits for work that no task does (P3).

use std::task::Waker;

use crate::sync::{Mutex, lock};

pub struct Handover<W>(Mutex<State<W>>);

struct State<W> {
    /// `None` while the first caller works on it, after its end, and after it was handed over.
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

    /// Asks for the work. Returns it, and what wakes the first caller, unless that caller is in a
    /// step or the work has ended.
    #[must_use]
    pub fn ask(&self) -> Option<(W, Option<Waker>)> {
        let mut state = lock(&self.0);
        state.is_wanted = true;
        let work = state.work.take()?;
        Some((work, state.waker.take()))
    }
}
