//! Values whose epochs are ahead of the clock of the server, as after it was set back.
use std::time::Duration;

use dev_support::until;
use everfresh::Source;
use everfresh::store::{Epoch, Format, Postcard, Store, Terms, envelope};
use everfresh::testing::store_contract::{HOUR, StoreUnderTest};
use futures_lite::future::block_on;

use super::{FRESH, Origin, Process, name};
use crate::server::OnServer;

const PLANTED: u64 = 1_000_000;

/// Stores a value as the server would have an hour later.
fn plant_from_the_future(world: &OnServer, key: u64) -> Epoch {
    let terms = Terms {
        fresh_for: FRESH,
        stale_for: HOUR,
        stale_if_error_for: HOUR,
        cost: Duration::ZERO,
    };
    let format = Format::<u64>::new(Postcard);
    let mut payload = format.seal(&name(key), &PLANTED, &terms).unwrap();
    let later = world.store.now().unwrap() + 3_600_000_000;
    let epoch = Epoch::from_micros(later).unwrap();
    assert!(envelope::stamp(&mut payload, epoch));
    world.plant(&name(key), payload);
    epoch
}

fn stored_at(world: &OnServer, key: u64) -> Option<Epoch> {
    let heads = block_on(world.store.heads(&[name(key)]));
    Some(heads[0].clone().unwrap()?.epoch)
}

#[test]
fn a_value_from_the_future_is_stale_and_refreshed_once_in_the_fleet() {
    let (origin, world) = (Origin::default(), OnServer::new());
    let processes = [0; 3].map(|_| origin.patient(&world.server));
    for key in 0..8 {
        let planted = plant_from_the_future(&world, key);
        let first = processes[0].cache.get_blocking(&key).unwrap();
        assert_eq!((*first, first.freshness().is_stale()), (PLANTED, true));
        until("all have the next value", || {
            let get = |process: &Process| process.get(key);
            processes.iter().map(get).max() < Some(PLANTED)
        });
        assert_eq!(origin.loads(), key + 1);
        assert!(stored_at(&world, key) < Some(planted));
        for process in &processes {
            assert_eq!(process.resident(key), (key, Source::Fresh));
        }
    }
    let other = origin.patient(&world.server);
    assert_eq!(
        other.cache.get_blocking(&1).unwrap().source(),
        Source::Store
    );
    assert_eq!((other.get(1), origin.loads()), (1, 8));
}

#[test]
fn a_write_over_a_value_from_the_future_is_later_than_it() {
    let (origin, world) = (Origin::default(), OnServer::new());
    let (a, b) = (origin.patient(&world.server), origin.patient(&world.server));
    for key in 0..8 {
        plant_from_the_future(&world, key);
        assert_eq!((a.get(key), b.get(key)), (PLANTED, PLANTED));
        until("it is refreshed", || {
            a.get(key) != PLANTED && b.get(key) != PLANTED
        });
        plant_from_the_future(&world, key);
        match key % 2 {
            0 => _ = block_on(a.cache.invalidate_everywhere(&key)).unwrap(),
            _ => block_on(a.cache.insert_everywhere(key, 7)).unwrap(),
        }
        let loads = origin.loads();
        let value = a.get(key);
        until("the other has it too", || b.get(key) == value);
        // No later read waits for a loader.
        until("the result is stored", || stored_at(&world, key).is_some());
        for process in [&a, &b] {
            assert_eq!(process.resident(key), (value, Source::Fresh));
        }
        assert_eq!(origin.loads(), loads + u64::from(key % 2 == 0));
    }
}
