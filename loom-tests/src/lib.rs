//! Models of the protocol, run by loom through the sync shim of the crate.
//!
//! Each model asserts a promise of the crate, written `P1` to `P8` as in the documentation of the
//! protocol files. The setup of a model comes before the first spawn, where it costs nothing. Times
//! are plain numbers: no model has a clock.
#![cfg(all(test, loom))]

mod admission;
mod alarm;
mod batcher;
mod batches;
mod cached_slot;
mod canaries;
mod change_queue;
mod claim;
mod collector;
mod deadline;
mod event;
mod eviction;
mod fifo;
mod fixture;
mod flight;
mod groups;
mod handover;
mod late;
mod lifecycle;
mod load;
mod negative;
mod permits;
mod places;
mod pool;
mod publish;
mod readings;
mod removal;
mod shards;
mod slot;
mod table;
mod tasks;
mod terms;
mod wait_graph;
mod write_queue;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of threads of a model, including `main`.
#[derive(Clone, Copy)]
enum Threads {
    /// Explored completely.
    Two,
    /// Both threads do many steps, such as making room repeatedly. Explored up to three
    /// preemptions.
    TwoBusy,
    /// Whole calls of a cache, whose steps are hundreds. Explored up to two preemptions: three took
    /// minutes and gigabytes.
    TwoLong,
    /// Explored up to three preemptions, because a complete exploration takes too long.
    Three,
}

/// Explores a model completely and prints the number of executions, with the name of the test,
/// which its thread has.
fn run_model(threads: Threads, model: impl Fn() + Sync + Send + 'static) {
    let bound = match threads {
        Threads::Two => None,
        Threads::TwoBusy | Threads::Three => Some(3),
        Threads::TwoLong => Some(2),
    };
    let executions = Arc::new(AtomicUsize::new(0));
    let mut checker = loom::model::Builder::new();
    checker.preemption_bound = bound;
    checker.max_branches = 10_000;
    // The environment could set these, and a capped model would end early and green.
    checker.max_permutations = None;
    checker.max_duration = None;
    checker.checkpoint_file = None;
    let counted = executions.clone();
    checker.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });

    let thread = std::thread::current();
    let name = thread.name().unwrap_or("a model");
    let executions = executions.load(Ordering::Relaxed);
    match bound {
        None => println!("{name}: {executions} executions, exhaustive"),
        Some(bound) => println!("{name}: {executions} executions at {bound} preemptions"),
    }
}
