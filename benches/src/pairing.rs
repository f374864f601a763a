//! Fair comparison: contenders take turns within one run (A B C A B C), and medians are reported.

use std::sync::Barrier;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand_distr::{Distribution, Zipf};

use crate::contender::{Reads, Timed};

pub struct Lane<T: ?Sized> {
    pub name: String,
    pub subject: Box<T>,
}

impl<T: ?Sized> Lane<T> {
    pub fn new(name: &str, subject: Box<T>) -> Self {
        Lane {
            name: name.to_owned(),
            subject,
        }
    }
}

pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Gives the calling thread a core of its own, as long as there are free cores. New threads begin
/// on the core of the thread that started them, and the system might not move them apart within a
/// short measurement.
pub fn settle_on_core(thread: usize) {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if !cores.is_empty() {
        core_affinity::set_for_current(cores[thread % cores.len()]);
    }
}

pub fn join<T>(running: ScopedJoinHandle<T>) -> T {
    match running.join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() % 2 {
        1 => values[half],
        _ => (values[half - 1] + values[half]) / 2.0,
    }
}

/// Measures each contender in turn, round after round. Returns the medians of each contender.
pub fn paired<const N: usize>(
    contenders: usize,
    rounds: usize,
    mut measure: impl FnMut(usize) -> [f64; N],
) -> Vec<[f64; N]> {
    let mut measured = vec![Vec::new(); contenders];
    for _ in 0..rounds {
        for (contender, measured) in measured.iter_mut().enumerate() {
            measured.push(measure(contender));
        }
    }
    let medians = |rounds: &Vec<[f64; N]>| {
        std::array::from_fn(|at| median(rounds.iter().map(|round| round[at]).collect()))
    };
    measured.iter().map(medians).collect()
}

/// Keys for each thread, zipf 0.99 over `0..keys`. Ranks are scattered, so that hot keys are not
/// neighbours.
pub fn sequences(keys: u64, threads: usize, length: usize) -> Vec<Vec<u64>> {
    // A prime that divides none of the numbers of keys.
    const STEP: u64 = 2_654_435_761;
    let zipf = Zipf::new(keys as f64, 0.99).expect("the parameters are valid");
    let of = |seed| {
        let mut rng = SmallRng::seed_from_u64(seed);
        let ranks = zipf.sample_iter(&mut rng).take(length);
        ranks.map(|rank| rank as u64 * STEP % keys).collect()
    };
    (0..threads as u64).map(of).collect()
}

/// 1, 2, 4 and so on, and all cores.
pub fn up_to_all_cores() -> Vec<usize> {
    let powers = (0..).map(|power| 1 << power);
    let mut threads: Vec<usize> = powers.take_while(|&threads| threads < cores()).collect();
    threads.push(cores());
    threads
}

/// Whether a row with so many threads shows a target for `wanted` threads: if it has as many, or if
/// no row has and this one has the most. There the target is not measured.
pub fn shows(wanted: usize, threads: usize, list: &[usize]) -> bool {
    threads >= wanted || list.iter().all(|&other| other <= threads)
}

/// Runs this on so many threads at once. Returns the mean of the times and the sum of the misses.
pub fn on_threads(threads: usize, run: impl Fn(usize, &Barrier) -> Timed + Sync) -> Timed {
    let parts = each_of(threads, run);
    Timed {
        ns: parts.iter().map(|part| part.ns).sum::<f64>() / threads as f64,
        misses: parts.iter().map(|part| part.misses).sum(),
    }
}

/// Runs this on so many threads at once.
pub fn each_of(threads: usize, run: impl Fn(usize, &Barrier) -> Timed + Sync) -> Vec<Timed> {
    let gate = Barrier::new(threads);
    thread::scope(|scope| {
        let (gate, run) = (&gate, &run);
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    settle_on_core(thread);
                    run(thread, gate)
                })
            })
            .collect();
        running.into_iter().map(join).collect()
    })
}

/// Reads each sequence on its own thread for this time. Returns nanoseconds per read for each
/// thread.
pub fn read<T: Reads + ?Sized>(subject: &T, sequences: &[Vec<u64>], window: Duration) -> Timed {
    on_threads(sequences.len(), |thread, gate| {
        subject.read(&sequences[thread], window, gate)
    })
}
