//! The store in one file: the contracts, restarts, kills, and a disk that is full.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod contracts;
mod encrypted;
mod kills;
mod restarts;
mod support;
