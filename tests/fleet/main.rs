//! Caches that share a store, as the processes of a fleet do, without a server.
#![allow(clippy::unwrap_used)]

mod batches;
mod clocks;
mod closing;
mod deploys;
mod encrypted;
mod gaps;
mod groups;
mod loads;
mod lost;
mod messages;
mod not_shared;
mod outbox;
mod race;
mod refusals;
mod support;
mod terms;
mod together;
mod trouble;
mod writes;
