//! The store in Redis, against servers that each test starts for itself, and what happens to servers.
//!
//! Without a `redis-server` in the path these tests fail; they are never skipped. Ports come from the operating system. Times are limits on failures,
//! and the store's own timeout, which is short here.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod server;

mod cluster;
mod contracts;
mod differential;
mod faults;
mod fleet;
mod runtimes;
mod sentinel;
mod tls;
