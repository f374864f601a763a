//! The metrics of the second level.
