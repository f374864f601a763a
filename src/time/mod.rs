//! Clocks, and alarms for callers that wait until a time.

pub mod alarm;
pub mod clock;
#[cfg(any(test, feature = "test-util"))]
pub mod manual;
pub mod rearm;
