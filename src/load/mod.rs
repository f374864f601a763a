//! How a value is made: the loader, the job that runs it, where it runs, and when.

pub mod admission;
pub mod batch;
pub(crate) mod batches;
pub mod call;
pub mod collector;
pub(crate) mod deadline;
pub mod engine;
pub mod job;
pub mod lifecycle;
pub mod load_many;
pub mod loader;
pub mod negative;
pub(crate) mod party;
pub mod policy;
pub mod pool;
pub mod pool_builder;
pub mod runner;
pub mod running;
pub(crate) mod runtime;
pub mod stack;
pub mod state;
pub mod wakes;
pub mod workers;
