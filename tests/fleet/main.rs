//! Caches that share a store, as processes of a fleet would: everything but the server.

mod loads;
mod support;
mod together;
mod trouble;
mod writes;
