//! Look-ups by borrowed forms of a key, and reads that leave no trace.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fmt::Debug;
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use everfresh::{Cache, Loaded, Lookup, ManualClock, Source};

use crate::support::gates::{End, numbering};
use crate::support::*;

/// Loads, hits and removes by one form of a key, in every call that takes one.
fn serves<K, Q>(form: &Q, key: K)
where
    K: Hash + Eq + Clone + Debug + Send + Sync + 'static,
    Q: Lookup<K> + Sync + ?Sized,
{
    let calls = Arc::new(AtomicUsize::new(0));
    let cache: Cache<K, K> = {
        let calls = calls.clone();
        let builder = Cache::builder().capacity(20);
        let loader = move |key: &K| {
            calls.fetch_add(1, Ordering::Relaxed);
            key.clone()
        };
        builder.compute(loader).build().unwrap()
    };
    let loads = |expected| assert_eq!(calls.load(Ordering::Relaxed), expected, "{key:?}");
    assert!(form.is_key(&key) && form.to_key() == key);

    // Nothing is there yet.
    assert!(cache.peek(form).is_none() && cache.get_if_present(form).is_none());
    assert!(!cache.contains_key(form) && !cache.invalidate(form));
    assert!(cache.remove(form).is_none());
    loads(0);

    // It loads the key itself, which the key and its form then find.
    assert_eq!(*cache.get_blocking(form).unwrap(), key);
    assert_eq!(*wait(Box::pin(cache.get(form))).unwrap(), key);
    assert_eq!(*cache.get_blocking(&key).unwrap(), key);
    assert_eq!(cache.peek(form).unwrap().key(), &key);
    assert_eq!(*cache.get_if_present(form).unwrap(), key);
    assert!(cache.contains_key(form));
    let mut reader = cache.reader();
    for _ in 0..3 {
        assert_eq!(*reader.get_blocking(form).unwrap(), key);
        assert_eq!(*wait(Box::pin(reader.get(form))).unwrap(), key);
    }
    loads(1);

    assert_eq!(*cache.refresh_blocking(form).unwrap(), key);
    loads(2);
    assert_eq!(cache.remove(form).as_deref(), Some(&key));
    assert!(!cache.contains_key(&key));
    assert_eq!(*wait(Box::pin(cache.refresh(form))).unwrap(), key);
    assert!(cache.invalidate(form) && !cache.contains_key(&key));
    loads(3);
    // The form finds what was inserted by the key.
    cache.insert(key.clone(), key.clone());
    assert_eq!(*cache.get_blocking(form).unwrap(), key);
    assert!(wait(Box::pin(cache.invalidate_everywhere(form))).unwrap());
    loads(3);
}

#[test]
fn a_key_is_found_by_itself() {
    serves(&7_u64, 7);
    serves(&(), ());
    serves(&"seven".to_owned(), "seven".to_owned());
    serves(&"seven", "seven");
    serves(&("seven".to_owned(), 7), ("seven".to_owned(), 7));
    serves(&Some(7), Some(7));
}

#[test]
fn keys_of_text_are_found_by_text() {
    for text in ["", "seven"] {
        serves(text, text.to_owned());
        serves(text, Box::<str>::from(text));
        serves(text, Arc::<str>::from(text));
    }
}

#[test]
fn slices_and_paths_find_the_keys_that_own_them() {
    let slice: &[u16] = &[1, 2, 3];
    serves(slice, slice.to_vec());
    serves(slice, Box::<[u16]>::from(slice));
    serves(slice, Arc::<[u16]>::from(slice));
    let path = Path::new("some/file");
    serves(path, PathBuf::from(path));
    serves(path, Box::<Path>::from(path));
    serves(path, Arc::<Path>::from(path));
    let name = OsStr::new("name");
    serves(name, OsString::from(name));
    serves(name, Box::<OsStr>::from(name));
    serves(name, Arc::<OsStr>::from(name));
    let word: &CStr = c"word";
    serves(word, CString::from(word));
    serves(word, Box::<CStr>::from(word));
    serves(word, Arc::<CStr>::from(word));
}

#[test]
fn pairs_with_text_find_the_pairs_that_own_it() {
    serves(&("a", 7), ("a".to_owned(), 7));
    serves(&(7, "a"), (7, "a".to_owned()));
    serves(&("a", "b"), ("a".to_owned(), "b".to_owned()));
    serves(&("a", "b".to_owned()), ("a".to_owned(), "b".to_owned()));
    // What one half shares with another key is not enough.
    let cache: Cache<(String, u32), u32> = Cache::builder()
        .compute(|(_, number): &(String, u32)| *number)
        .build()
        .unwrap();
    assert_eq!(*cache.get_blocking(&("a", 1)).unwrap(), 1);
    assert_eq!(*cache.get_blocking(&("a", 2)).unwrap(), 2);
    assert!(!cache.contains_key(&("b", 1)));
    assert_eq!(cache.len(), 2);
}

#[test]
fn a_form_of_the_users_own_finds_the_users_own_keys() {
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    struct Page {
        site: Arc<str>,
        number: u32,
    }
    #[derive(Hash)]
    struct PageRef<'a> {
        site: &'a str,
        number: u32,
    }
    impl Lookup<Page> for PageRef<'_> {
        fn is_key(&self, key: &Page) -> bool {
            *self.site == *key.site && self.number == key.number
        }
        fn to_key(&self) -> Page {
            Page {
                site: self.site.into(),
                number: self.number,
            }
        }
    }
    let page = Page {
        site: "example.org".into(),
        number: 7,
    };
    let form = PageRef {
        site: "example.org",
        number: 7,
    };
    serves(&form, page.clone());
    serves(&page, page.clone());
}

#[test]
fn the_type_of_a_literal_follows_from_the_cache() {
    let numbers: Cache<u64, u64> = Cache::builder().compute(|n: &u64| *n).build().unwrap();
    assert_eq!(*numbers.get_blocking(&7).unwrap(), 7);
    assert!(numbers.contains_key(&7));
    let pairs: Cache<(u8, i64), i64> = Cache::builder()
        .compute(|pair: &(u8, i64)| pair.1)
        .build()
        .unwrap();
    assert_eq!(*pairs.get_blocking(&(1, -1)).unwrap(), -1);
}

#[test]
fn a_key_that_was_not_found_is_remembered_for_all_its_forms() {
    let clock = ManualClock::new();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let cache: Cache<Arc<str>, u64> = Cache::builder()
        .clock(&clock)
        .not_found_for(secs(10))
        .compute_with(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::convert::Infallible>(Loaded::not_found())
        })
        .build()
        .unwrap();
    for _ in 0..3 {
        assert!(cache.get_blocking("x").unwrap_err().is_not_found());
        let key = Arc::<str>::from("x");
        assert!(cache.get_blocking(&key).unwrap_err().is_not_found());
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert!(!cache.invalidate("x"));
    assert!(cache.get_blocking("x").unwrap_err().is_not_found());
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[test]
fn many_keys_are_read_by_their_forms() {
    let cache: Cache<Arc<[u8]>, usize> = Cache::builder()
        .compute(|key: &Arc<[u8]>| key.len())
        .build()
        .unwrap();
    let keys: [Arc<[u8]>; 2] = [Arc::from(&b"ab"[..]), Arc::from(&b"c"[..])];
    let read = cache.get_many_blocking(&keys);
    let lengths: Vec<usize> = read.into_iter().map(|read| *read.unwrap()).collect();
    assert_eq!(lengths, [2, 1]);
    let pairs: Cache<(String, u32), String> = Cache::builder()
        .compute(|(text, number): &(String, u32)| format!("{text}{number}"))
        .build()
        .unwrap();
    let read = wait(Box::pin(pairs.get_many(&[("a", 1), ("b", 2), ("a", 1)])));
    let texts: Vec<String> = read
        .into_iter()
        .map(|read| read.unwrap().to_string())
        .collect();
    assert_eq!(texts, ["a1", "b2", "a1"]);
    assert_eq!(pairs.stats().computes(), 2);
}

#[test]
fn a_peek_counts_nothing_and_a_get_if_present_counts() {
    let clock = ManualClock::new();
    let (cache, tasks, _) = by_hand(builder(&clock));
    cache.insert(1, 10);
    let untouched = cache.stats();
    let peek = |key| {
        let read = cache.peek(&key).map(|read| (*read, read.source()));
        assert_eq!(cache.contains_key(&key), read.is_some());
        assert_eq!(cache.stats().to_string(), untouched.to_string());
        read
    };
    assert_eq!(peek(1), Some((10, Source::Fresh)));
    assert_eq!(peek(2), None);
    clock.advance(secs(15));
    assert_eq!(peek(1), Some((10, Source::Stale)));
    clock.advance(secs(15));
    assert_eq!(peek(1), None, "it has expired");

    cache.insert(1, 11);
    assert_eq!(*cache.get_if_present(&1).unwrap(), 11);
    assert!(cache.get_if_present(&2).is_none());
    clock.advance(secs(15));
    let stale = cache.get_if_present(&1).unwrap();
    assert_eq!(stale.source(), Source::Stale);
    clock.advance(secs(15));
    assert!(cache.get_if_present(&1).is_none());
    let stats = cache.stats();
    assert_eq!((stats.fresh, stats.stale, stats.misses), (1, 1, 2));
    assert_eq!(tasks.spawned(), 0, "neither ever loads");
}

#[test]
fn a_peek_does_not_keep_a_value_from_eviction_and_a_read_does() {
    let clock = ManualClock::new();
    let loader = numbering();
    let cache = computing(builder(&clock).capacity(12), &loader);
    for key in 0..6 {
        cache.insert(key, key);
    }
    for _ in 0..3 {
        for key in [0, 2, 4] {
            assert!(cache.get_if_present(&key).is_some());
        }
        for key in [1, 3, 5] {
            assert!(cache.peek(&key).is_some() && cache.contains_key(&key));
        }
    }
    for key in 1_000..1_100 {
        cache.insert(key, key);
    }
    assert!([0, 2, 4].iter().all(|key| cache.contains_key(key)));
    assert!([1, 3, 5].iter().all(|key| !cache.contains_key(key)));
}

#[test]
fn a_reader_reads_for_tasks_what_it_reads_for_threads() {
    let clock = ManualClock::new();
    let (cache, tasks, gates) = by_hand(builder(&clock));
    let mut reader = cache.reader();
    // A task that stops waiting leaves the load running.
    let mut dropped = Box::pin(reader.get(&1));
    assert!(is_pending(&mut dropped));
    tasks.poll_all();
    drop(dropped);
    {
        let mut read = Box::pin(reader.get(&1));
        assert!(is_pending(&mut read));
        gates.end(0, End::Value(10));
        tasks.poll_all();
        let read = ready(read).unwrap();
        assert_eq!((*read, read.source()), (10, Source::Coalesced));
        assert_eq!((read.key(), read.cost()), (&1, secs(0)));
    }
    for _ in 0..5 {
        let read = ready(Box::pin(reader.get(&1))).unwrap();
        assert_eq!((*read, read.source()), (10, Source::Fresh));
        assert_eq!(read.fresh_remaining(), secs(10));
    }
    assert_eq!(*reader.get_blocking(&1).unwrap(), 10);
    // Stale: served at once, while one refresh runs.
    clock.advance(secs(15));
    let stale = ready(Box::pin(reader.get(&1))).unwrap();
    assert_eq!((*stale, stale.source()), (10, Source::Stale));
    assert_eq!(stale.fresh_remaining(), secs(0));
    tasks.poll_all();
    gates.end(1, End::Value(11));
    tasks.poll_all();
    assert_eq!(*ready(Box::pin(reader.get(&1))).unwrap(), 11);
    // Never what was invalidated or overwritten before.
    cache.insert(1, 12);
    assert_eq!(*ready(Box::pin(reader.get(&1))).unwrap(), 12);
    cache.invalidate(&1);
    let mut read = Box::pin(reader.get(&1));
    assert!(is_pending(&mut read));
    tasks.poll_all();
    gates.end(2, End::Fail);
    tasks.poll_all();
    assert!(ready(read).unwrap_err().is_load_failure());
    assert_eq!(gates.calls(), 3);
}

#[test]
fn the_future_of_a_reader_may_be_sent() {
    fn sent<T: Send>(value: T) -> T {
        value
    }
    let cache = computing(builder(&ManualClock::new()), &numbering());
    let mut reader = cache.reader();
    let future = Box::pin(sent(async move { reader.get(&1).await.map(|read| *read) }));
    assert_eq!(wait(future).unwrap(), 1);
}

#[test]
fn a_form_that_denies_its_key_gets_the_value_of_the_key() {
    #[derive(Hash)]
    struct Denies(u64);

    impl Lookup<u64> for Denies {
        fn is_key(&self, _: &u64) -> bool {
            false
        }
        fn to_key(&self) -> u64 {
            self.0
        }
    }

    let clock = ManualClock::new();
    let cache = builder(&clock).compute(|key: &u64| *key).build().unwrap();
    cache.insert(3, 30);
    assert!(cache.peek(&Denies(3)).is_none());
    let inside = cache.clone();
    let reading = std::thread::spawn(move || inside.get_blocking(&Denies(3)).map(|read| *read));
    until("the read has ended", || reading.is_finished());
    assert_eq!(reading.join().unwrap().unwrap(), 30);
}
