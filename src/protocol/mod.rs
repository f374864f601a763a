//! The protocol: entries, their claims, and the slot table in which they live.
//!
//! It has no policy, no loader and no clock. Each step takes the time as a number, and the models
//! in `loom-tests` explore every step for which two threads can race.

pub mod adapt;
pub mod cached_slot;
pub mod claim;
pub mod compact;
pub mod control;
pub mod drop_later;
pub mod entries;
pub mod entry;
pub mod eviction;
pub mod fifo;
pub mod flight;
pub mod ghosts;
pub mod groups;
pub mod joins;
pub mod permits;
pub mod publish;
pub mod removal;
pub mod shadows;
pub mod shards;
pub mod table;
pub mod times;
pub mod uses;
pub mod wait_graph;
