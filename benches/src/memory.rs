//! Bytes that each entry takes beyond its key and value, by an allocator that counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::contender::{Config, Subject, typed};
use crate::ours::{self, Get};
use crate::peers::{self, Peer};
use crate::report::{Figure, Report};

/// The system's allocator; counts while it is told to.
pub struct Counting;

static COUNTS: AtomicBool = AtomicBool::new(false);
static LIVE: AtomicIsize = AtomicIsize::new(0);

fn count(bytes: isize) {
    if COUNTS.load(Ordering::Relaxed) {
        LIVE.fetch_add(bytes, Ordering::Relaxed);
    }
}

// SAFETY: every call is passed on to the system's allocator unchanged, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`, which is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: `at` came from the system's allocator with this layout, and the caller keeps the contract.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: `at` came from the system's allocator with this layout.
        unsafe { System.dealloc(at, layout) }
    }
}

/// A key and a value are a `u64` each.
const PAYLOAD: f64 = 16.0;

pub fn run(report: &mut Report, quick: bool) {
    report.note(peers::WITHOUT_CACHEFLIGHT);
    report.note("keys and values are 8 bytes each; amalgam-cache has strings for keys, counted as 8 bytes here");
    let mut contenders = vec![Peer {
        name: ours::NAME,
        build: |config| typed::<u64, _>(Get(ours::build(config))),
    }];
    contenders.extend(peers::peers::<u64>());
    let rounds = if quick { 1 } else { 3 };
    for keys in [1_000, 10_000, 100_000, 1_000_000] {
        let medians = crate::pairing::paired(contenders.len(), rounds, |at| {
            [bytes_per_entry(&contenders[at], keys)]
        });
        let [ours] = medians[0];
        for (contender, [bytes]) in contenders.iter().zip(&medians) {
            let figure = Figure::new("memory")
                .text("contender", contender.name)
                .count("keys", keys)
                .number("bytes", *bytes)
                .number("ratio", ours / bytes)
                .bar(
                    &format!("memory {keys} keys"),
                    contender.name,
                    *bytes,
                    "bytes an entry",
                );
            report.add(match contender.name {
                ours::NAME => figure.at_most("bytes", *bytes, 100.0),
                "moka" => figure.at_most("", ours / bytes, 0.6),
                _ => figure,
            });
        }
    }
}

/// In a cache that is exactly full.
fn bytes_per_entry(contender: &Peer, keys: u64) -> f64 {
    LIVE.store(0, Ordering::Relaxed);
    COUNTS.store(true, Ordering::Relaxed);
    let subject = (contender.build)(&Config::lasting(keys as usize));
    let entries = filled(&*subject, keys);
    // What threads in the background still hold is not the cache's.
    thread::sleep(Duration::from_millis(20));
    let live = LIVE.load(Ordering::Relaxed) as f64;
    COUNTS.store(false, Ordering::Relaxed);
    drop(subject);
    live / entries - PAYLOAD
}

fn filled(subject: &dyn Subject, keys: u64) -> f64 {
    subject.fill(keys);
    (subject.len() as u64).clamp(1, keys) as f64
}
