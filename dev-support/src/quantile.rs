//! Quantiles of measured times.

use std::time::Duration;

/// The smallest of the sorted values that is not exceeded by this part of them; zero if there is
/// none.
pub fn quantile(sorted: &[Duration], part: f64) -> Duration {
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}
