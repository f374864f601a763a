//! Random numbers: one small generator for each thread.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher, RandomState};

use rand::SeedableRng;
use rand::rngs::SmallRng;

thread_local! {
    // Without a destructor, so that it can be used until the thread's very end.
    static RNG: Cell<Option<SmallRng>> = const {
        assert!(!std::mem::needs_drop::<SmallRng>());
        Cell::new(None)
    };
}

/// Creates the generator of a thread that has none.
#[cold]
fn seeded() -> SmallRng {
    // The standard library's keys are random per thread, and it asks the system for them only once.
    SmallRng::seed_from_u64(RandomState::new().build_hasher().finish())
}

/// Runs `draw` with this thread's small generator; no user code runs inside.
pub(crate) fn with_rng<R>(draw: impl FnOnce(&mut SmallRng) -> R) -> R {
    let kept = RNG.try_with(Cell::take).ok().flatten();
    let mut rng = kept.unwrap_or_else(seeded);
    let drawn = draw(&mut rng);
    let _ = RNG.try_with(|kept| kept.set(Some(rng)));
    drawn
}

/// Gives this thread a generator with this seed.
#[cfg(any(test, feature = "test-util"))]
pub(crate) fn seed(seed: u64) {
    let _ = RNG.try_with(|kept| kept.set(Some(SmallRng::seed_from_u64(seed))));
}
