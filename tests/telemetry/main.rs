//! The output of the features `metrics` and `tracing`, as a recorder and a subscriber of the whole
//! process receive it. Each test recognises its caches by name.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod connection;
mod counted;
mod fleet;
mod names;
mod recorder;
mod subscriber;
mod traces;

/// The key of every value in these tests. No metric, span or event may contain it.
const SECRET: u64 = 918_273_645;

/// Whether a text contains the key, in decimal or hexadecimal digits.
fn reveals_key(text: &str) -> bool {
    let text = text.to_lowercase().replace('_', "");
    text.contains("918273645") || text.contains(&format!("{SECRET:x}"))
}
