//! For tests of code that uses a cache, and of stores.

pub(crate) mod counting_loader;
pub mod store_contract;
