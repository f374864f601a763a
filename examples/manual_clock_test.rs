//! Tests of code that uses a cache, with a clock that moves by hand and a loader that counts, waits
//! and fails on request.
//!
//! `cargo test --example manual_clock_test`; in your `Cargo.toml`, under `[dev-dependencies]`:
//! `everfresh = { version = "0.1", features = ["test-util"] }`.

use std::{error::Error, time::Duration};

use everfresh::{BuildError, Cache, Clock};

/// The code under test. The caller passes its origin and its clock.
struct Prices(Cache<u32, u64>);

impl Prices {
    fn new<E: Error + Send + Sync + 'static>(
        clock: impl Into<Clock>,
        origin: impl Fn(&u32) -> Result<u64, E> + Send + Sync + 'static,
    ) -> Result<Self, BuildError> {
        let cache = Cache::builder()
            .fresh_for(Duration::from_secs(10))
            .stale_for(Duration::from_secs(50))
            .clock(clock)
            .try_compute(origin);
        Ok(Prices(cache.build()?))
    }

    /// The price of an article and whether it may be out of date.
    fn of(&self, article: u32) -> Option<(u64, bool)> {
        let price = self.0.get_blocking(&article).ok()?;
        Some((*price, price.freshness().is_stale()))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let prices = Prices::new(Clock::coarse(), |_| Ok::<_, std::io::Error>(700))?;
    assert_eq!(prices.of(7), Some((700, false)));
    println!("here the clock is real; `cargo test --example manual_clock_test` moves it by hand");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use everfresh::{CountingLoader, ManualClock};

    type Rig = (Prices, ManualClock, CountingLoader<u32, u64>);

    /// A price of 700 that was loaded just now.
    fn rig() -> Result<Rig, BuildError> {
        let (clock, origin) = (ManualClock::new(), CountingLoader::new(|_| 700));
        let asked = origin.clone();
        let prices = Prices::new(&clock, move |article| asked.compute(article))?;
        assert_eq!(prices.of(7), Some((700, false)));
        Ok((prices, clock, origin))
    }

    #[test]
    fn an_old_price_is_given_while_one_refresh_runs() -> Result<(), BuildError> {
        let (prices, clock, origin) = rig()?;
        clock.advance(Duration::from_secs(11));
        origin.hold(); // loads that begin now do not end before `release`
        (0..8).for_each(|_| assert_eq!(prices.of(7), Some((700, true))));
        origin.wait_for_calls(2);
        assert_eq!((origin.calls(), origin.running()), (2, 1));
        origin.release();
        Ok(())
    }

    #[test]
    fn an_old_price_is_served_for_50_s_of_an_outage() -> Result<(), BuildError> {
        let (prices, clock, origin) = rig()?;
        origin.fail_next(usize::MAX);
        clock.advance(Duration::from_secs(59));
        assert_eq!(prices.of(7), Some((700, true)));
        clock.advance(Duration::from_secs(2));
        assert_eq!(prices.of(7), None);
        Ok(())
    }
}
