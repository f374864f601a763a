//! The smallest programs of seeds that found a fault, in the cache or in what judges it.

use super::programs::run;
use super::promises::Key;
use super::steps::{How, Program, Step};

#[test]
fn programs_that_once_found_a_fault_behave_as_the_model_predicts() {
    use How::{Fail, Panic, Value};
    use Step::{Abort, Advance, End, Get, Insert, Poll, Refresh, Start};

    let ms = 1_000_000;
    let of_13747191278813725064 = [
        &[Get(1), Get(0), Insert(0), Advance(999 * ms), Refresh(0)][..],
        &[End(29, Fail), Get(0), Refresh(0), Start(0), End(2, Fail)],
        &[End(0, Value), Refresh(0), End(13, Fail), End(0, Value)],
        &[Refresh(0), Abort(0), Advance(100 * ms), Get(0)],
    ];
    let of_14056356674379739618 = [
        &[Insert(0), Refresh(0), End(0, Fail), Get(0), Get(0)][..],
        &[Advance(400 * ms), Advance(500 * ms), Get(1), Refresh(0)],
        &[Advance(10 * ms), End(7, Fail), Refresh(0), End(1, Fail)],
        &[Refresh(0), Advance(100 * ms), Abort(13), Get(0)],
    ];
    let of_9152837161271027684 = [
        &[Get(0); 9][..],
        &[Advance(10 * ms), Get(0), Get(0), Get(0), Get(0)],
        &[End(0, Value), Get(0), Get(0), Get(1), End(0, Value)],
        &[Advance(400 * ms), Get(0), Poll(0), Get(0), Get(0)],
        &[Advance(799 * ms), Get(1), End(0, Fail), Advance(60 * ms)],
        &[
            Get(1),
            End(45, Fail),
            Refresh(1),
            End(58, Panic),
            Refresh(1),
        ],
        &[Poll(23), Get(1), Abort(30), Advance(172 * ms), Get(1)],
    ];
    // A load that starts in the last unit of its claim runs under what is left of it.
    let in_the_last_unit = [
        &[Insert(0), Refresh(0), Abort(0), Refresh(0)][..],
        &[Advance(800 * ms), Start(0), Advance(10 * ms), Refresh(0)],
    ];
    let in_the_last_unit_of_a_cold_key = [
        &[Get(0), End(0, Value), Poll(0), Advance(1_000 * ms)][..],
        &[Get(0), Get(0), Abort(0), Start(0), Refresh(0)],
        &[Advance(800 * ms), Start(0), Advance(10 * ms), Refresh(0)],
    ];
    let programs = [
        in_the_last_unit.concat(),
        in_the_last_unit_of_a_cold_key.concat(),
        of_13747191278813725064.concat(),
        of_14056356674379739618.concat(),
        of_9152837161271027684.concat(),
    ];
    for steps in programs {
        let draws_early = false;
        run::<Key>(Program { draws_early, steps });
    }
}
