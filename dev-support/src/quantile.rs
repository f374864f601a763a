//! Quantiles of measured times.

use std::time::Duration;

/// The smallest of the sorted values that this part of them does not exceed. Zero if there are no
/// values.
pub fn quantile(sorted: &[Duration], part: f64) -> Duration {
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}
