//! The control: the same callers, released the same way, at a plain shared value.
//!
//! A caller of the control waits only for the machine. As on a stale entry, one caller of each
//! crowd starts a computation in the background, so that both crowds share the cores with as much
//! work.
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use dev_support::forecast::{Forecast, LIGHT, MATCH, forecast};

use crate::crowd::{self, Answer, Seen};
use crate::subject::PATIENCE;

pub struct Control {
    pub shared: Arc<Shared>,
    ended: Receiver<()>,
}

/// The value that the callers of a control read.
pub struct Shared {
    value: OnceLock<Arc<Forecast>>,
    asked: AtomicBool,
    begin: Sender<()>,
}

impl Control {
    pub fn new() -> Control {
        let (begin, asked_for) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        // Light, because it only has to take longer than a crowd.
        let computes = move || {
            for () in asked_for {
                black_box(forecast(&MATCH, LIGHT));
                let _ = end.send(());
            }
        };
        let started = thread::Builder::new().spawn(computes);
        if let Err(error) = started {
            crate::give_up(&format!("a thread: {error}"));
        }
        Control {
            shared: Arc::new(Shared {
                value: OnceLock::from(Arc::new(forecast(&MATCH, 1_000))),
                asked: AtomicBool::new(false),
                begin,
            }),
            ended,
        }
    }

    /// Waits until the computation that the last crowd started has ended.
    pub fn settles(&self) {
        let _ = self.ended.recv_timeout(PATIENCE);
        self.shared.asked.store(false, Ordering::Relaxed);
    }
}

impl Shared {
    pub fn read(&self) -> Answer {
        let value = self.value.get().cloned();
        // Relaxed: the channel orders what matters. Most callers only load, as they do in a cache.
        if !self.asked.load(Ordering::Relaxed) && !self.asked.swap(true, Ordering::Relaxed) {
            let _ = self.begin.send(());
        }
        match value.is_some_and(|value| value.is_sound()) {
            true => Answer::Stale,
            false => Answer::Failed,
        }
    }
}

/// Threads at a value that does not exist yet: one computes it and the others wait. Also returns
/// the time of the computation.
pub fn once(callers: usize, simulations: u32) -> (Seen, Duration) {
    let cell = OnceLock::new();
    let seen = crowd::threads(callers, Duration::ZERO, |_| {
        let (value, _) = cell.get_or_init(|| {
            let began = Instant::now();
            let value = forecast(&MATCH, simulations);
            (value, began.elapsed())
        });
        match value.is_sound() {
            true => Answer::Waited,
            false => Answer::Failed,
        }
    });
    let load = cell.get().map_or(Duration::ZERO, |(_, load)| *load);
    (seen, load)
}
