//! A load that waits at a gate, seen from three sides: by the gate, which starts or refuses it; by
//! a load that waits for it, which starts it at once; and by a caller that waits for it.
//!
//! Whichever thread takes the load out of its cell first goes on with it. The others find the cell
//! empty and do nothing (a helped load against its permit).

use crate::load::admission::ask::Refusal;
use crate::load::admission::gate::{Gate, Permit, Waiter};
use crate::observe::reason::LoadReason;
use crate::protocol::flight::Help;
use crate::sync::{Arc, AtomicU8, Mutex, Ordering, SetOnce, Weak, lock};

/// A load that can wait. None of these functions is called with a lock held.
pub trait Waiting: Send + Sized + 'static {
    /// Goes on with the permit of the gate at which it waited.
    fn admitted(self, permit: Permit, queued: &Queued<Self>);
    /// Goes on without a permit, because another load waits for it.
    fn helped(self, queued: &Queued<Self>);
    fn refused(self, refusal: Refusal);
}

pub struct Queued<W> {
    load: Mutex<Option<W>>,
    gate: Weak<Gate>,
    reason: LoadReason,
    /// Whether it waits for a start only, and so cannot be helped.
    is_free: bool,
    owner: usize,
    /// 1 once it waits as a cold load.
    promoted: AtomicU8,
    /// What helps the load after it has left this gate.
    next: SetOnce<Arc<dyn Help>>,
    this: Weak<Queued<W>>,
}

impl<W: Waiting> Queued<W> {
    pub fn new(
        load: W,
        gate: &Arc<Gate>,
        reason: LoadReason,
        is_free: bool,
        owner: usize,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Queued {
            load: Mutex::new(Some(load)),
            gate: Arc::downgrade(gate),
            reason,
            is_free,
            owner,
            promoted: AtomicU8::new(0),
            next: SetOnce::new(),
            this: this.clone(),
        })
    }

    /// The load, unless another thread took it.
    pub fn take(&self) -> Option<W> {
        lock(&self.load).take()
    }

    /// Sets what helps the load from here on.
    pub fn goes_on_as(&self, next: Arc<dyn Help>) {
        let _ = self.next.set(next);
    }

    /// Lets the load wait as a cold one, because a caller waits for it.
    pub fn promote(&self) {
        // Relaxed: twice in the lane would do no harm.
        let is_first = self.promoted.swap(1, Ordering::Relaxed) == 0;
        if let (true, Some(gate), Some(this)) = (is_first, self.gate.upgrade(), self.this.upgrade())
        {
            gate.promote(this);
        }
    }
}

impl<W: Waiting> Waiter for Queued<W> {
    fn admit(&self, permit: Permit) {
        // Without a load the permit is dropped, and goes to the next one.
        if let Some(load) = self.take() {
            load.admitted(permit, self);
        }
    }

    fn refuse(&self, refusal: Refusal) {
        if let Some(load) = self.take() {
            load.refused(refusal);
        }
    }

    fn owner(&self) -> usize {
        self.owner
    }
}

impl<W: Waiting> Help for Queued<W> {
    fn help(&self) {
        if let Some(next) = self.next.get() {
            return next.help();
        }
        if super::is_inside_a_load() {
            if self.is_free {
                return;
            }
            if let Some(load) = self.take() {
                load.helped(self);
            }
            if let Some(next) = self.next.get() {
                next.help();
            }
        } else if self.reason != LoadReason::Cold && !self.is_free {
            self.promote();
        }
    }
}
