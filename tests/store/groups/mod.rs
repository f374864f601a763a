//! All interleavings of a group in a fleet: two processes, one cell, one key, a network that delays
//! and loses messages, and a store that loses the cell or whose clock is set back.
//!
//! The model follows the rules of `fleet::cells`, not its source. The claim is P4 for groups: once
//! a process was told of an invalidation, it serves nothing that was loaded before that, neither
//! from its table nor from the store. The protocols that look right and are wrong are models that
//! must fail.

mod model;
mod rules;

use self::model::{Fleet, Rules};
use crate::explore::explore;

const OCCUR: &[&str] = &[
    "a payload is installed",
    "a result is shared",
    "after an invalidation",
];

/// Without faults of the store.
fn plain(rules: Rules) -> Fleet {
    Fleet {
        rules,
        invalidations: [1, 1],
        comparisons: 1,
        loads: 1,
        reads: 1,
        gaps: 0,
        loses_cell: false,
        sets_clock_back: false,
        restarts: false,
        begins_known: true,
    }
}

fn with_a_gap(rules: Rules) -> Fleet {
    Fleet {
        gaps: 1,
        comparisons: 2,
        reads: 0,
        invalidations: [0, 1],
        begins_known: false,
        ..plain(rules)
    }
}

/// The cell may be lost, and a process that knows nothing may come.
fn with_a_loss(rules: Rules) -> Fleet {
    Fleet {
        loses_cell: true,
        restarts: true,
        comparisons: 2,
        invalidations: [0, 1],
        ..plain(rules)
    }
}

fn with_a_clock_set_back(rules: Rules) -> Fleet {
    Fleet {
        sets_clock_back: true,
        comparisons: 2,
        invalidations: [1, 0],
        ..plain(rules)
    }
}

fn explored(fleet: Fleet) -> (usize, Vec<&'static str>) {
    let occur = match (fleet.reads, fleet.loads) {
        (0, _) => &[],
        (_, 0) => &OCCUR[..1],
        _ => OCCUR,
    };
    explore(fleet, occur)
}

fn holds(fleet: Fleet) {
    let (states, failed) = explored(fleet);
    assert!(failed.is_empty(), "{failed:?}");
    assert!(states > 1_000, "only {states} states");
}

fn fails(fleet: Fleet) {
    let rules = fleet.rules;
    let (states, failed) = explored(fleet);
    println!("{rules:?}: {failed:?} after {states} states");
    assert!(!failed.is_empty(), "no claim fails with {rules:?}");
}

#[test]
fn an_invalidation_of_a_group_wins() {
    holds(plain(Rules::AsSpecified));
}

#[test]
fn an_invalidation_of_a_group_wins_although_messages_are_missed() {
    for begins_known in [true, false] {
        holds(Fleet {
            begins_known,
            ..with_a_gap(Rules::AsSpecified)
        });
    }
}

#[test]
fn an_invalidation_of_a_group_wins_although_the_store_loses_it() {
    holds(Fleet {
        loads: 0,
        ..with_a_loss(Rules::AsSpecified)
    });
}

#[test]
fn an_invalidation_of_a_group_wins_although_the_clock_is_set_back() {
    holds(with_a_clock_set_back(Rules::AsSpecified));
}

#[test]
fn a_result_has_the_epoch_of_its_beginning() {
    fails(plain(Rules::EpochOfThePublication));
}

#[test]
fn a_payload_is_compared_with_its_cell() {
    fails(plain(Rules::ReaderWithoutCheck));
}

#[test]
fn a_payload_with_a_later_epoch_may_be_older() {
    fails(with_a_clock_set_back(Rules::LaterEpochsAreValid));
}

#[test]
fn a_payload_is_not_read_while_an_invalidation_waits() {
    fails(plain(Rules::PendingInvalidationIsIgnored));
}

#[test]
fn a_cell_is_compared_after_a_gap() {
    fails(Fleet {
        begins_known: true,
        ..with_a_gap(Rules::GapIsNotCompared)
    });
}

#[test]
fn the_store_learns_of_an_invalidation_after_this_process() {
    fails(plain(Rules::SentBeforeItIsMade));
}

#[test]
fn an_own_message_counts_only_if_every_change_is_told() {
    fails(Fleet {
        invalidations: [1, 1],
        comparisons: 1,
        begins_known: true,
        ..with_a_gap(Rules::EchoCountsAfterAGap)
    });
}

#[test]
fn a_message_counts_although_a_comparison_came_first() {
    fails(Fleet {
        begins_known: false,
        ..plain(Rules::ComparedMessageIsIgnored)
    });
}

#[test]
fn a_first_comparison_is_no_message() {
    fails(with_a_gap(Rules::FirstComparisonIsTrusted));
}

#[test]
fn a_lost_cell_makes_its_values_invalid() {
    fails(Fleet {
        begins_known: false,
        ..with_a_loss(Rules::LostCellIsUnchanged)
    });
}

#[test]
fn a_payload_begins_at_its_check() {
    fails(plain(Rules::BeginsAtTheInstallation));
}
