//! Stores without a server: the contracts on the store in memory, envelopes, codecs, and a store
//! that fails on command.
//!
//! No test sleeps or depends on real time.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod chaos;
mod clocks;
mod codecs;
mod cool_downs;
mod encryption;
mod envelopes;
mod explore;
mod golden;
mod groups;
mod hostile;
mod late_writes;
mod memory;
mod names;
mod protocol;
mod records;
mod refusals;
mod schemas;
mod wrong;
