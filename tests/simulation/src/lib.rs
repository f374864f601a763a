//! A fleet of caches on one store, simulated.
//!
//! One seed decides all that happens in a run: the clocks of the processes and how far they drift,
//! what callers read and write, when messages and requests arrive, when connections break, fall
//! silent or are slow, when processes are paused or killed, and what the server loses. The caches,
//! their second levels and the store in memory are the real ones. The clock, the network, the
//! origin and the executor belong to the simulation, and all of a run happens on one thread. So the
//! same seed gives the same run, event by event.
//!
//! A checker knows the truth about each value and compares it with what processes do: see
//! [`claims`].
//!
//! ```text
//! cargo run --release -p simulation -- --seeds 10000      all seeds from 0
//! cargo run --release -p simulation -- --seed 17          one seed, with its history
//! cargo run --release -p simulation -- --fault NAME       seeds that find a built-in fault
//! ```

pub mod claims;
mod ending;
pub mod faults;
mod flood;
mod link;
pub mod log;
mod network;
mod node;
mod origin;
mod random;
pub mod report;
pub mod run;
mod script;
mod server;
mod tasks;
mod world;
