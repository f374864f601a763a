//! The store in Redis, against servers that each test starts for itself, and the faults of servers.
//!
//! Without a `redis-server` in the path these tests fail; they are never skipped. Ports come from
//! the operating system. Times are limits that end a hang, and the store's own timeout, which is
//! short in tests of failures.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod server;

mod cluster;
mod contracts;
mod differential;
mod encrypted;
mod faults;
mod fleet;
mod mistakes;
mod runtimes;
mod sentinel;
mod tls;
