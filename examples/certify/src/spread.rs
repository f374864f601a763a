//! The distribution of the times of a run.
use std::time::Duration;

use dev_support::quantile::quantile;

/// The quantiles of one run, at the same parts for all runs, and few enough to keep them for every
/// run.
#[derive(Clone)]
pub struct Spread {
    /// Parts from 0 to 1 and their quantiles; both grow.
    pub quantiles: Vec<(f64, Duration)>,
}

/// Denser towards the end, where the slow callers are: counts of two hundredths, then of
/// hundredths, and so on.
fn parts() -> impl Iterator<Item = f64> {
    let to_nine_tenths = (0..45).map(|fiftieth| f64::from(fiftieth) / 50.0);
    let nines = [1e2, 1e3, 1e4].into_iter().flat_map(|fine: f64| {
        let from = fine as u32 - 10;
        (from..from + 9).map(move |count| f64::from(count) / fine)
    });
    to_nine_tenths.chain(nines).chain([0.9999, 1.0])
}

impl Spread {
    /// The spread of sorted times. Parts that need more times are left out: a hundred times have no
    /// p99.9.
    pub fn of(sorted: &[Duration]) -> Spread {
        let callers = sorted.len() as f64;
        let shown = |part: &f64| *part == 1.0 || (1.0 - part) * callers > 0.999_999;
        let quantiles = parts().filter(shown);
        Spread {
            quantiles: quantiles
                .map(|part| (part, quantile(sorted, part)))
                .collect(),
        }
    }

    /// The quantile of this part, or of the next part if there are too few times for this one.
    pub fn at(&self, part: f64) -> Duration {
        let found = self.quantiles.iter().find(|(shown, _)| *shown >= part);
        found.map_or(Duration::ZERO, |(_, time)| *time)
    }
}

/// The times of the calls of several runs.
#[derive(Default)]
pub struct Times {
    /// The times of all runs, the shortest first.
    all: Vec<Duration>,
    /// The spread of each run.
    pub runs: Vec<Spread>,
}

impl Times {
    /// Adds a run, whose times are sorted.
    pub fn include(&mut self, sorted: &[Duration]) {
        self.all.extend(sorted);
        // A merging sort is fast here, because this run is sorted, and so are all before it.
        self.all.sort();
        self.runs.push(Spread::of(sorted));
    }

    /// The quantile of all calls of all runs.
    pub fn quantile(&self, part: f64) -> Duration {
        quantile(&self.all, part)
    }

    pub fn spread(&self) -> Spread {
        Spread::of(&self.all)
    }

    /// The slowest call of the median run: half of the runs have a slower one. One unlucky run does
    /// not change it, but one waiting caller in each run does.
    pub fn slowest_of_middle(&self) -> Duration {
        let mut slowest: Vec<Duration> = self.runs.iter().map(|run| run.at(1.0)).collect();
        slowest.sort_unstable();
        quantile(&slowest, 0.5)
    }

    /// The quantile of the calls of the worst run.
    pub fn worst(&self, part: f64) -> Duration {
        let worst = self.runs.iter().map(|run| run.at(part)).max();
        worst.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_quantiles_of_the_tables_and_no_more_than_there_are() {
        let sorted: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        let Spread { quantiles } = Spread::of(&sorted);
        for part in [0.5, 0.99, 1.0] {
            assert!(
                quantiles.contains(&(part, quantile(&sorted, part))),
                "{part}"
            );
        }
        assert!(quantiles.is_sorted());
        assert_eq!(quantiles.iter().filter(|(part, _)| *part > 0.99).count(), 1);
        assert_eq!(quantiles[0], (0.0, Duration::from_millis(1)));
    }

    #[test]
    fn one_unlucky_run_of_three_moves_nothing_that_is_judged() {
        let calm: Vec<Duration> = (1..=1_000).map(Duration::from_micros).collect();
        let mut unlucky = calm.clone();
        unlucky[991..].fill(Duration::from_secs(1));
        let mut times = Times::default();
        for run in [&calm, &unlucky, &calm] {
            times.include(run);
        }
        assert_eq!(times.quantile(0.99), Duration::from_micros(990));
        assert_eq!(times.slowest_of_middle(), Duration::from_millis(1));
        assert_eq!(times.worst(0.999), Duration::from_secs(1));
    }

    #[test]
    fn one_caller_that_waits_in_each_run_is_the_slowest_of_the_middle_run() {
        let mut times = Times::default();
        for _ in 0..50 {
            let mut run = vec![Duration::from_micros(1); 99];
            run.push(Duration::from_millis(200));
            times.include(&run);
        }
        assert_eq!(times.quantile(0.99), Duration::from_micros(1));
        assert_eq!(times.slowest_of_middle(), Duration::from_millis(200));
    }
}
