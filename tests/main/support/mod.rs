//! Support code of the tests.

pub mod nested;
pub mod random;
pub mod tally;
pub use dev_support::caches::*;
pub use dev_support::until;
pub use nested::reading_itself;
pub use tally::{Tally, Tracked};
