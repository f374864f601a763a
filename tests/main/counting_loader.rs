//! The counting loader itself, on which the other tests rely.

use std::thread;

use everfresh::{CountingLoader, InjectedFailure};

use crate::support::*;

#[test]
fn it_counts_calls_in_total_and_for_each_key() {
    let loader = CountingLoader::new(|key: &u64| key + 1);
    assert_eq!((loader.calls(), loader.calls_for(&1)), (0, 0));
    assert_eq!(loader.compute(&1), Ok(2));
    assert_eq!(loader.clone().compute(&2), Ok(3));
    assert_eq!(ready(Box::pin(loader.load(&2))), Ok(3));
    assert_eq!(
        (loader.calls(), loader.calls_for(&1), loader.calls_for(&2)),
        (3, 1, 2)
    );
    assert_eq!(loader.running(), 0);
}

#[test]
fn it_fails_and_panics_as_often_as_requested() {
    let loader = CountingLoader::new(|key: &u64| *key);
    loader.fail_next(2);
    loader.panic_next(1);
    assert!(thread::scope(|scope| scope.spawn(|| loader.compute(&1)).join()).is_err());
    assert_eq!(loader.compute(&1), Err(InjectedFailure));
    assert_eq!(loader.compute(&1), Err(InjectedFailure));
    assert_eq!(loader.compute(&1), Ok(1));
    assert_eq!((loader.calls(), loader.running()), (4, 0));
}

#[test]
fn paused_calls_return_once_the_loader_is_released_and_not_before() {
    let loader = CountingLoader::new(|key: &u64| *key);
    loader.hold();
    let mut first = Box::pin(loader.load(&1));
    assert!(is_pending(&mut first));
    assert_eq!((loader.calls(), loader.running()), (1, 1));
    loader.release();
    loader.hold();
    let mut second = Box::pin(loader.load(&2));
    assert!(is_pending(&mut second));
    assert_eq!(
        ready(first),
        Ok(1),
        "the first call was paused before the release"
    );
    assert!(
        is_pending(&mut second),
        "the second call was paused after it"
    );
    drop(second);
    assert_eq!((loader.calls(), loader.running()), (2, 0));
}

#[test]
fn paused_threads_do_not_spin_and_can_be_waited_for() {
    let loader = CountingLoader::new(|key: &u64| *key);
    loader.hold();
    thread::scope(|scope| {
        let calls: Vec<_> = (0..4)
            .map(|key| {
                let loader = &loader;
                scope.spawn(move || loader.compute(&key))
            })
            .collect();
        loader.wait_for_calls(4);
        assert_eq!(loader.running(), 4);
        loader.release();
        loader.wait_until_idle();
        for (key, call) in calls.into_iter().enumerate() {
            assert_eq!(call.join().unwrap(), Ok(key as u64));
        }
    });
    assert!(format!("{loader:?}").contains("calls: 4"));
}
