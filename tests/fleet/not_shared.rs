//! Keys without a value, and values that cannot be stored: no process waits for another in vain.

use std::thread::scope;
use std::time::Duration;

use everfresh::store::{ErrorClass, Fault, Format, Op, Postcard};
use futures_lite::future::block_on;

use crate::support::{FRESH, Fleet, Process, until};

const PROCESSES: usize = 8;

fn denied(processes: &[Process]) -> u64 {
    let stats = processes.iter().map(Process::stats);
    stats.map(|stats| stats.leases_denied).sum()
}

fn is_not_found(process: &Process) -> bool {
    let answer = process.cache.get_blocking(&1);
    answer.is_err_and(|error| error.is_not_found())
}

#[test]
fn all_processes_share_the_answer_that_a_key_has_no_value() {
    let fleet = Fleet::new();
    let processes: Vec<_> = (0..PROCESSES).map(|_| fleet.process()).collect();
    fleet.origin.empty(true);
    fleet.origin.gate.shut();
    scope(|scope| {
        let reads = processes.iter().map(|p| scope.spawn(|| is_not_found(p)));
        let reads: Vec<_> = reads.collect();
        until("the others wait", || denied(&processes) >= 7);
        fleet.origin.gate.let_one_pass();
        assert!(reads.into_iter().all(|read| read.join().unwrap()));
    });
    // So do processes that come later.
    assert!(is_not_found(&fleet.process()));
    assert_eq!(fleet.origin.loads(), 1);
}

#[test]
fn the_answer_that_a_key_has_no_value_lasts_for_its_time() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    fleet.origin.empty(true);
    assert!(is_not_found(&a));
    a.published(1);
    assert!(is_not_found(&b));
    fleet.origin.empty(false);
    until("its time is over", || {
        fleet.clock.advance(Duration::from_millis(100));
        !is_not_found(&b)
    });
    assert_eq!((b.get(1), fleet.origin.loads()), (1, 2));
    until("the other process takes the value over", || {
        !is_not_found(&a)
    });
    assert_eq!((a.get(1), fleet.origin.loads()), (1, 2));
}

#[test]
fn a_value_leaves_all_processes_when_one_finds_no_value() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.get(1);
    a.published(1);
    b.get(1);
    fleet.origin.empty(true);
    assert!(block_on(a.cache.refresh(&1)).unwrap_err().is_not_found());
    until("the value leaves", || is_not_found(&b));
    assert_eq!(fleet.origin.loads(), 2);
}

#[test]
fn the_answer_that_a_key_has_no_value_does_not_undo_a_later_write() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    a.get(1);
    a.published(1);
    fleet.origin.empty(true);
    fleet.origin.gate.shut();
    fleet.clock.advance(FRESH);
    assert_eq!(a.get(1), 0);
    until("the refresh has begun", || fleet.origin.loads() == 2);
    // The process that refreshes is not told of the write.
    a.chaos.lose_changes(true);
    block_on(b.cache.insert_everywhere(1, 555)).unwrap();
    fleet.origin.gate.open();
    until("the answer is refused", || a.stats().refused == 1);
    assert_eq!((b.get(1), fleet.process().get(1)), (555, 555));
    until("the process reads the value", || {
        a.cache.get_blocking(&1).is_ok_and(|value| *value == 555)
    });
    assert_eq!(fleet.origin.loads(), 2);
}

#[test]
fn a_caller_that_wants_a_new_answer_does_not_get_that_of_another_process() {
    let fleet = Fleet::new();
    let (a, b) = (fleet.process(), fleet.process());
    fleet.origin.empty(true);
    assert!(is_not_found(&a));
    a.published(1);
    fleet.origin.empty(false);
    let loaded = block_on(b.cache.refresh_from_now(&1)).unwrap();
    assert_eq!((*loaded, fleet.origin.loads()), (1, 2));
    // Nor does the process that has found no value itself.
    let c = fleet.process();
    fleet.origin.empty(true);
    assert!(c.cache.get_blocking(&2).is_err());
    c.published(1);
    fleet.origin.empty(false);
    assert_eq!(*block_on(c.cache.refresh(&2)).unwrap(), 3);
}

/// All processes wait for the load of one, whose result is not stored.
fn all_load_at_once(processes: &[Process], fleet: &Fleet) {
    fleet.origin.gate.shut();
    scope(|scope| {
        for process in processes {
            scope.spawn(|| process.get(1));
        }
        until("the others wait", || denied(processes) >= 7);
        fleet.origin.gate.let_one_pass();
        // None has passed the gate since.
        until("all load at once", || fleet.origin.loads() == 8);
        fleet.origin.gate.open();
    });
    assert_eq!(fleet.origin.loads(), 8);
}

#[test]
fn a_value_that_cannot_be_encoded_frees_all_waiting_processes_at_once() {
    let fleet = Fleet::new();
    let process = |_| fleet.process_of(Format::new(Postcard).limit(0));
    let processes: Vec<_> = (0..PROCESSES).map(process).collect();
    all_load_at_once(&processes, &fleet);
}

#[test]
fn a_value_that_the_store_does_not_take_frees_all_waiting_processes_at_once() {
    let fleet = Fleet::new();
    let processes: Vec<_> = (0..PROCESSES).map(|_| fleet.process()).collect();
    for process in &processes {
        let fault = Fault::Fail(ErrorClass::TooLarge);
        process.chaos.always(Op::Publish, Some(fault));
    }
    all_load_at_once(&processes, &fleet);
}
