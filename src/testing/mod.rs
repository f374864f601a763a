//! For tests of code that uses a cache, and of stores.

pub(crate) mod counting_loader;
pub mod store_contract;

/// Seeds the random numbers that caches draw on this thread, so that a test can repeat a run
/// exactly.
///
/// Caches draw the names by which a store knows them, pauses between attempts, backoffs and early
/// refreshes. Other threads draw their own numbers. So a run repeats exactly only if all of its
/// work is done on this thread: with a [`ManualClock`](crate::ManualClock), an async loader, and a
/// [`spawner`](crate::Builder::spawner) and a store whose futures the test itself polls. The
/// default hash function of keys stays random.
///
/// # Example
///
/// ```
/// use everfresh::store::Origin;
/// use everfresh::testing::seed_random;
///
/// seed_random(7);
/// let first = Origin::random();
/// seed_random(7);
/// assert_eq!(Origin::random(), first);
/// ```
pub fn seed_random(seed: u64) {
    crate::rng::seed(seed);
}
