//! What the features `metrics` and `tracing` tell, heard by a recorder and a subscriber for the whole process. Tests keep
//! apart by the names of their caches.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod connection;
mod counted;
mod fleet;
mod names;
mod recorder;
mod subscriber;
mod traces;

/// The key of every value in these tests: nowhere may it be told.
const SECRET: u64 = 918_273_645;

/// Whether a text has the key in it, in decimal or hexadecimal, in one piece.
fn tells(text: &str) -> bool {
    let text = text.to_lowercase().replace('_', "");
    text.contains("918273645") || text.contains(&format!("{SECRET:x}"))
}
