//! A part of the seeds, and the built-in faults, each of which must be found.

use std::thread;

use simulation::faults::Fault;
use simulation::log::seconds;
use simulation::report::Report;
use simulation::run::run;

/// How many seeds the tests try. `cargo run --release -p simulation` tries more.
const SEEDS: u64 = 200;

fn assert_holds(report: &Report) {
    if let Some(violation) = &report.violation {
        let of = violation.key.map(|key| (violation.database, key));
        panic!(
            "{}seed {} fails at {}: {violation}\nreplay: cargo run -p simulation -- --seed {}",
            report.history(of),
            report.seed,
            seconds(violation.at),
            report.seed
        );
    }
}

#[test]
fn the_claims_hold_in_each_run() {
    let half = |first: u64| {
        for seed in (first..SEEDS).step_by(2) {
            assert_holds(&run(seed, None));
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| half(0));
        half(1);
    });
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..12 {
        let (first, second) = (run(seed, None), run(seed, None));
        assert!(
            first.events.len() > 100,
            "only {} events",
            first.events.len()
        );
        assert_eq!(first, second, "seed {seed}");
    }
}

#[test]
fn two_seeds_give_two_runs() {
    assert_ne!(run(1, None).events, run(2, None).events);
}

#[test]
fn each_built_in_fault_is_found_and_replayed() {
    for fault in Fault::ALL {
        let found = (0..SEEDS)
            .map(|seed| run(seed, Some(fault)))
            .find(|report| report.violation.is_some());
        let report = found.unwrap_or_else(|| panic!("{fault:?} was not found"));
        let claim = report.violation.as_ref().map(|violation| violation.claim);
        let is_it = claim.is_some_and(|claim| fault.breaks().contains(&claim));
        assert!(
            is_it,
            "{fault:?} breaks {claim:?} with seed {}",
            report.seed
        );
        assert_eq!(run(report.seed, Some(fault)), report, "{fault:?}");
    }
}
