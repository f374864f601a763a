//! The slot table: its membership at every moment.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};

use everfresh::model::{AtomicU64, Held, Inserted, Place, Table};
use loom::thread::spawn;

use crate::Threads::{Three, Two, TwoBusy};
use crate::run_model;

/// A key, and the number of the item among those of its key.
type Pair = (u64, u64);

const KEY: u64 = 1;

fn table() -> Arc<Table<Pair>> {
    Arc::new(Table::new(2))
}

/// Inserts an item unless its key is in the table.
fn insert_if_room(table: &Table<Pair>, item: &Arc<Pair>) -> Result<Option<Place>, Full> {
    loop {
        let Some(seen) = table.missing(item.0, |other| other.0 == item.0) else {
            return Ok(None);
        };
        match table.insert(item.0, item, seen) {
            Inserted::Here(place) => return Ok(Some(place)),
            Inserted::Changed => {}
            Inserted::Full(_) => return Err(Full),
        }
    }
}

/// Every way of a set is taken.
#[derive(Debug)]
struct Full;

fn insert(table: &Table<Pair>, item: &Arc<Pair>) -> Option<Place> {
    insert_if_room(table, item).expect("there is room for all items of these models")
}

fn replace(table: &Table<Pair>, place: Place, old: &Arc<Pair>, new: Arc<Pair>) -> bool {
    table.replace(place, old, &new)
}

fn find(table: &Table<Pair>, key: u64) -> Option<u64> {
    table
        .find(key, |other| other.0 == key)
        .map(|(_, held)| held.1)
}

fn find_only(table: &Table<Pair>) -> Option<u64> {
    table.find_only().map(|(_, held)| held.1)
}

fn everything(table: &Table<Pair>) -> Vec<Held<Pair>> {
    table.items(0).map(|(_, item)| item).collect()
}

/// A table that holds one item.
fn with(item: &Arc<Pair>) -> (Arc<Table<Pair>>, Place) {
    let table = table();
    let place = insert(&table, item).expect("the table is empty");
    (table, place)
}

/// P3: two inserters of one key put it into the set once.
#[test]
fn one_key_by_two() {
    run_model(Two, || {
        let table = table();
        let other = spawn({
            let table = table.clone();
            move || insert(&table, &Arc::new((KEY, 2))).is_some()
        });
        let mine = insert(&table, &Arc::new((KEY, 1))).is_some();
        // A reader finds it once it is in the table.
        let seen = find(&table, KEY);
        let other = other.join().unwrap();
        assert!(mine != other, "not exactly one insert succeeded");
        let value = if mine { 1 } else { 2 };
        assert_eq!(seen, Some(value));
        assert_eq!(everything(&table).len(), 1, "a key is twice in its set");
        // The loser gave its way back.
        assert!(insert(&table, &Arc::new((2, 0))).is_some());
    });
}

/// P3: three inserters of one key put it into the set once.
#[test]
fn one_key_by_three() {
    run_model(Three, || {
        let table = table();
        let insert_one = |table: &Table<Pair>, which| {
            // Full if the other two have reserved both ways; one of them will commit.
            let inserted = insert_if_room(table, &Arc::new((KEY, which)));
            usize::from(matches!(inserted, Ok(Some(_))))
        };
        let others = [2, 3].map(|which| {
            let table = table.clone();
            spawn(move || insert_one(&table, which))
        });
        let mine = insert_one(&table, 1);
        let others = others.map(|other| other.join().unwrap());
        let inserted: usize = mine + others.iter().sum::<usize>();
        assert_eq!(inserted, 1, "not exactly one insert succeeded");
        assert_eq!(everything(&table).len(), 1, "a key is twice in its set");
    });
}

/// P4: two inserts of different keys into one set do not lose either.
#[test]
fn two_keys_by_two() {
    run_model(TwoBusy, || {
        let table = table();
        let other = spawn({
            let table = table.clone();
            move || insert(&table, &Arc::new((2, 2))).is_some()
        });
        assert!(insert(&table, &Arc::new((1, 1))).is_some());
        assert_eq!(find(&table, 1), Some(1), "an inserted item is not found");
        assert!(other.join().unwrap());
        let found = (find(&table, 1), find(&table, 2));
        assert_eq!(found, (Some(1), Some(2)), "an inserted item is not found");
    });
}

/// P3: an inserter that read the set before a removal and another insert does not insert its key
/// twice.
///
/// The set then has the same ways occupied as at that read; only the version differs.
#[test]
fn insert_against_remove_and_insert() {
    run_model(Two, || {
        let bystander = Arc::new((2, 0));
        let (table, place) = with(&bystander);
        let other = spawn({
            let table = table.clone();
            move || {
                assert!(table.remove(place, &bystander).is_some());
                insert(&table, &Arc::new((KEY, 2))).is_some()
            }
        });
        let mine = insert(&table, &Arc::new((KEY, 1))).is_some();
        let other = other.join().unwrap();
        assert_eq!(everything(&table).len(), 1, "a key is twice in its set");
        assert!(mine != other, "not exactly one insert succeeded");
    });
}

/// P4: an insert during the removal of the old item either finds that item or replaces it.
#[test]
fn insert_against_remove() {
    run_model(Two, || {
        let old = Arc::new((KEY, 1));
        let (table, place) = with(&old);
        let remover = spawn({
            let table = table.clone();
            move || table.remove(place, &old).map(|removed| removed.1)
        });
        let inserted = insert(&table, &Arc::new((KEY, 2))).is_some();
        let seen = find(&table, KEY);
        assert_eq!(remover.join().unwrap(), Some(1));
        match inserted {
            true => assert_eq!(seen, Some(2), "an inserted item is not found"),
            false => assert_ne!(seen, Some(2), "an item is found that was not inserted"),
        }
        assert_eq!(find(&table, KEY), inserted.then_some(2));
    });
}

/// P4: in a race of a removal and an overwrite the remover gets the item that left.
#[test]
fn remove_against_overwrite() {
    run_model(Two, || {
        let old = Arc::new((KEY, 1));
        let (table, place) = with(&old);
        let remover = spawn({
            let (table, old) = (table.clone(), old.clone());
            move || table.remove(place, &old).map(|removed| removed.1)
        });
        let replaced = replace(&table, place, &old, Arc::new((KEY, 2)));
        let removed = remover.join().unwrap();
        match (replaced, removed) {
            (true, None) => assert_eq!(find(&table, KEY), Some(2)),
            (true, Some(2)) | (false, Some(1)) => assert_eq!(find(&table, KEY), None),
            other => panic!("an item was lost or left twice: {other:?}"),
        }
    });
}

/// P4: of two removers exactly one gets the item.
#[test]
fn remove_against_remove() {
    run_model(Two, || {
        let old = Arc::new((KEY, 1));
        let (table, place) = with(&old);
        let other = spawn({
            let (table, old) = (table.clone(), old.clone());
            move || table.remove(place, &old).is_some()
        });
        let mine = table.remove(place, &old).is_some();
        assert!(mine != other.join().unwrap(), "an item left twice or never");
        assert!(everything(&table).is_empty());
    });
}

/// P4: a remover that comes too late removes no other item, whatever is in the way by then.
#[test]
fn remove_against_remove_and_insert() {
    run_model(Two, || {
        let old = Arc::new((KEY, 1));
        let (table, place) = with(&old);
        let other = spawn({
            let (table, old) = (table.clone(), old.clone());
            move || {
                let removed = table.remove(place, &old).is_some();
                assert!(insert(&table, &Arc::new((2, 2))).is_some());
                removed
            }
        });
        let mine = table.remove(place, &old).map(|removed| removed.1);
        assert!(matches!(mine, None | Some(1)), "another item was removed");
        assert!(
            mine.is_some() != other.join().unwrap(),
            "an item left twice or never"
        );
        assert_eq!(find(&table, 2), Some(2), "another item was removed");
    });
}

/// P4: a removal by membership removes no other item, even if the same ways are occupied by then;
/// only the version differs.
#[test]
fn remove_seen_against_remove_and_insert() {
    run_model(Two, || {
        let old = Arc::new((KEY, 1));
        let (table, place) = with(&old);
        let other = spawn({
            let table = table.clone();
            move || {
                let removed = table.remove(place, &old).is_some();
                insert(&table, &Arc::new((2, 2))).expect("there is room");
                removed
            }
        });
        let seen = table.seen_at(place).map(|(held, seen)| (held.1, seen));
        let mine = seen.and_then(|(item, seen)| {
            let removed = table.remove_seen(place, seen)?.1;
            assert_eq!(removed, item, "another item was removed");
            Some(removed)
        });
        let other = other.join().unwrap();
        assert!((mine == Some(1)) != other, "an item left twice or never");
        assert_eq!(find(&table, 2).is_none(), mine == Some(2));
    });
}

/// P4: a removal by membership also removes an item that has replaced the seen one, so the key is
/// gone in either case.
#[test]
fn remove_seen_against_overwrite() {
    run_model(Two, || {
        let old = Arc::new((KEY, 1));
        let (table, place) = with(&old);
        let writer = spawn({
            let table = table.clone();
            move || replace(&table, place, &old, Arc::new((KEY, 2)))
        });
        let (_, seen) = table.seen_at(place).expect("an overwrite removes nothing");
        let removed = table
            .remove_seen(place, seen)
            .expect("no membership changed");
        assert_eq!(find(&table, KEY), None, "an overwrite undid a removal");
        let replaced = writer.join().unwrap();
        assert_eq!(removed.1 == 2, replaced, "an item was lost");
        assert!(everything(&table).is_empty());
    });
}

/// Reads twice while an item is removed and another one of its key is inserted.
fn two_reads(look: fn(&Table<Pair>, Place) -> Option<u64>) {
    run_model(Two, move || {
        let old = Arc::new((KEY, 1));
        let (table, place) = with(&old);
        let writer = spawn({
            let table = table.clone();
            move || {
                assert!(table.remove(place, &old).is_some());
                assert!(insert(&table, &Arc::new((KEY, 2))).is_some());
            }
        });
        let seen = (look(&table, place), look(&table, place));
        match seen.0 {
            Some(1) => {}
            None => assert_ne!(seen.1, Some(1), "a removed item was read"),
            _ => assert_eq!(seen.1, Some(2), "an item was seen before its insert"),
        }
        writer.join().unwrap();
    });
}

/// P4: a reader finds only items in the table: no reservation, and no item that was removed before.
#[test]
fn reader_against_remove_and_insert() {
    two_reads(|table, _| find(table, KEY));
}

/// P4: the same for a reader of a place instead of a key.
#[test]
fn place_against_remove_and_insert() {
    two_reads(|table, place| table.item_at(place).map(|held| held.1));
}

/// P4: the same for a reader of the only item.
#[test]
fn only_item_against_remove_and_insert() {
    two_reads(|table, _| find_only(table));
}

/// P4: a read that begins after a removal does not see the item, neither by its key, nor by its
/// place, nor as the only item.
#[test]
fn reader_after_remove() {
    run_model(Two, || {
        let old = Arc::new((KEY, 1));
        let (table, place) = with(&old);
        let removed = Arc::new(AtomicU64::new(0));
        // Two removers: the one that comes too late returns while the other is still emptying the
        // way.
        let remover = spawn({
            let (table, old) = (table.clone(), old.clone());
            move || table.remove(place, &old).is_some()
        });
        let mine = table.remove(place, &old).is_some();
        removed.store(1, Release);
        assert!(removed.load(Acquire) == 1);
        assert_eq!(find(&table, KEY), None, "a removed item was read");
        assert!(!table.holds(place, &old), "a removed item was read");
        assert_eq!(find_only(&table), None, "a removed item was read");
        assert!(mine != remover.join().unwrap());
    });
}

/// P4: insert, overwrite and removal of one key at once: the table contains exactly the items that
/// were not removed.
#[test]
fn insert_against_remove_against_overwrite() {
    run_model(Three, || {
        let old = Arc::new((KEY, 1));
        let (table, place) = with(&old);
        let inserter = spawn({
            let table = table.clone();
            move || insert(&table, &Arc::new((KEY, 3))).is_some()
        });
        let remover = spawn({
            let (table, old) = (table.clone(), old.clone());
            move || table.remove(place, &old).map(|removed| removed.1)
        });
        let replaced = replace(&table, place, &old, Arc::new((KEY, 2)));
        let inserted = inserter.join().unwrap();
        let removed = remover.join().unwrap();
        let left = match (replaced, removed) {
            (true, None) => Some(2),
            (true, Some(2)) | (false, Some(1)) => None,
            other => panic!("an item was lost or left twice: {other:?}"),
        };
        assert!(!(inserted && left.is_some()), "a key is twice in its set");
        assert_eq!(find(&table, KEY), left.or(inserted.then_some(3)));
        assert!(everything(&table).len() <= 1, "a key is twice in its set");
    });
}

/// P4: a reader during an insert, an overwrite and a removal sees only items that were in the
/// table.
#[test]
fn reader_against_overwrite_and_remove() {
    run_model(Three, || {
        let old = Arc::new((KEY, 1));
        let (table, place) = with(&old);
        let overwriter = spawn({
            let (table, old) = (table.clone(), old.clone());
            move || replace(&table, place, &old, Arc::new((KEY, 2)))
        });
        let remover = spawn({
            let (table, old) = (table.clone(), old.clone());
            move || {
                let removed = table.remove(place, &old).is_some();
                removed && insert(&table, &Arc::new((KEY, 3))).is_some()
            }
        });
        let (first, second) = (find(&table, KEY), find(&table, KEY));
        let order = [None, Some(1), Some(2), None, Some(3)];
        let at = order.iter().skip(1).position(|seen| *seen == first);
        let at = at.expect("one of the items, or none") + 1;
        assert!(order[at..].contains(&second), "{second:?} after {first:?}");
        overwriter.join().unwrap();
        remover.join().unwrap();
    });
}
