//! How the times of one run are spread.

use std::time::Duration;

/// The smallest of the sorted values that this part of them does not exceed.
pub fn quantile(sorted: &[Duration], part: f64) -> Duration {
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

/// The quantiles of one run, at the same parts for all: few enough to keep those of every run.
pub struct Spread {
    /// A part from 0 to 1 and what it does not exceed; both grow.
    pub quantiles: Vec<(f64, Duration)>,
}

/// Denser towards the end, where the slow callers are: counts of two hundredths, then of hundredths, and so on.
fn parts() -> impl Iterator<Item = f64> {
    let to_nine_tenths = (0..45).map(|fiftieth| f64::from(fiftieth) / 50.0);
    let nines = [1e2, 1e3, 1e4].into_iter().flat_map(|fine: f64| {
        let from = fine as u32 - 10;
        (from..from + 9).map(move |count| f64::from(count) / fine)
    });
    to_nine_tenths.chain(nines).chain([0.9999, 1.0])
}

impl Spread {
    /// Of sorted times. A part that so few times cannot show is left out: of a hundred there is no p99.9.
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
}
