//! Caches that share a store, as processes of a fleet would: everything but the server.
#![allow(clippy::unwrap_used)]

mod loads;
mod race;
mod support;
mod together;
mod trouble;
mod writes;
