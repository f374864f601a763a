//! Panics of user code that runs where no caller could receive them.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs user code on behalf of other callers. Its panic ends here, after the panic hook has
/// reported it.
pub(crate) fn isolated(run: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(run)) {
        discard(payload);
    }
}

/// Drops the payload of a panic, which may be a user's type whose `Drop` panics.
pub(crate) fn discard(payload: Box<dyn Any + Send>) {
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        // Each payload could panic again without end, so the second one is leaked.
        std::mem::forget(another);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use super::isolated;

    struct Bomb(u32);

    impl Drop for Bomb {
        fn drop(&mut self) {
            if self.0 > 0 {
                panic_any(Bomb(self.0 - 1));
            }
        }
    }

    #[test]
    fn a_payload_that_panics_when_it_is_dropped_is_isolated_too() {
        for depth in 0..4 {
            isolated(|| panic_any(Bomb(depth)));
        }
    }
}
