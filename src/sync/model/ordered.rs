//! Stand-ins for the queue, the map and the cell of other crates, which loom cannot explore.
//!
//! Each operation is one step, and the steps of all threads are explored in every order. A
//! linearizable container does the same, and the crate relies on nothing more. An item carries the
//! writes that its thread made before it inserted the item; nothing else makes an edge.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::hash::RandomState;
use std::marker::PhantomData;
use std::sync::OnceLock;

use loom::sync::atomic::AtomicUsize;

use super::{Hidden, Shadow, open};
use crate::sync::Ordering;

/// A state that threads access one step at a time.
struct Steps<S> {
    /// The point at which loom switches threads, before a step. The shadow says which steps depend
    /// on one another.
    turn: AtomicUsize,
    shadow: Shadow,
    /// The edges from the thread that inserts an item to the thread that gets it. They are created
    /// in advance, because loom wants an edge from the creation of a word to its use.
    edges: [AtomicUsize; EDGES],
    sent: Hidden<usize>,
    state: Hidden<S>,
}

/// Consecutive items have an edge each; an edge is reused after this many.
const EDGES: usize = 4;

/// An item and the number of its edge.
struct Posted<T> {
    edge: usize,
    item: T,
}

impl<S> Steps<S> {
    fn new(state: S) -> Self {
        Steps {
            turn: AtomicUsize::new(0),
            shadow: Shadow::new(),
            edges: std::array::from_fn(|_| AtomicUsize::new(0)),
            sent: Hidden::new(0),
            state: Hidden::new(state),
        }
    }

    /// Other threads come in before a step or after it, never in between. `step` returns whether it
    /// changed the state.
    fn step<R>(&self, step: impl FnOnce(&mut S) -> (bool, R)) -> R {
        self.turn.load(Ordering::Relaxed);
        loom::stop_exploring();
        let (changed, result) = step(&mut open(&self.state));
        loom::explore();
        match changed {
            true => self.shadow.stored(result),
            false => self.shadow.loaded(result),
        }
    }

    fn look<R>(&self, look: impl FnOnce(&S) -> R) -> R {
        self.step(|state| (false, look(state)))
    }

    fn change<R>(&self, change: impl FnOnce(&mut S) -> R) -> R {
        self.step(|state| (true, change(state)))
    }

    /// Within a step.
    fn post<T>(&self, item: T) -> Posted<T> {
        let mut sent = open(&self.sent);
        *sent += 1;
        let edge = *sent % EDGES;
        self.edges[edge].fetch_add(0, Ordering::Release);
        Posted { edge, item }
    }

    /// Within a step.
    fn receive<T>(&self, posted: &Posted<T>) {
        // An exchange, because that reads the last store.
        self.edges[posted.edge].fetch_add(0, Ordering::Acquire);
    }
}

/// The stand-in for `crossbeam`'s queue.
pub struct SegQueue<T>(Steps<VecDeque<Posted<T>>>);

impl<T> Default for SegQueue<T> {
    fn default() -> Self {
        SegQueue::new()
    }
}

impl<T> SegQueue<T> {
    pub fn new() -> Self {
        SegQueue(Steps::new(VecDeque::new()))
    }

    pub fn push(&self, item: T) {
        self.0.change(|items| items.push_back(self.0.post(item)));
    }

    pub fn pop(&self) -> Option<T> {
        self.0.step(|items| {
            let popped = self.receive_from(items);
            (popped.is_some(), popped)
        })
    }

    /// Within a step.
    fn receive_from(&self, items: &mut VecDeque<Posted<T>>) -> Option<T> {
        let posted = items.pop_front()?;
        self.0.receive(&posted);
        Some(posted.item)
    }

    pub fn len(&self) -> usize {
        self.0.look(VecDeque::len)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The stand-in for `crossbeam`'s queue of a fixed length.
pub struct ArrayQueue<T> {
    items: SegQueue<T>,
    capacity: usize,
}

#[allow(clippy::len_without_is_empty)]
impl<T> ArrayQueue<T> {
    pub fn new(capacity: usize) -> Self {
        ArrayQueue {
            items: SegQueue::new(),
            capacity,
        }
    }

    /// Returns the oldest item if the queue was full.
    pub fn force_push(&self, item: T) -> Option<T> {
        self.items.0.change(|items| {
            let full = items.len() == self.capacity;
            let oldest = full.then(|| self.items.receive_from(items)).flatten();
            items.push_back(self.items.0.post(item));
            oldest
        })
    }

    pub fn pop(&self) -> Option<T> {
        self.items.pop()
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }
}

/// The stand-in for `moka`'s cache, with unlimited room: evictions by `moka` itself are not part of
/// a model.
pub struct BoundedCache<K, V, S> {
    entries: Steps<Vec<(K, Posted<V>)>>,
    hasher: PhantomData<S>,
}

/// The settings of the cache are not part of a model.
pub struct BoundedCacheBuilder<K, V>(PhantomData<(K, V)>);

impl<K, V> BoundedCacheBuilder<K, V> {
    pub fn max_capacity(self, _: u64) -> Self {
        self
    }

    pub fn weigher(self, _: fn(&K, &V) -> u32) -> Self {
        self
    }

    pub fn expire_after<E>(self, _: E) -> Self {
        self
    }

    pub fn build_with_hasher<S>(self, _: S) -> BoundedCache<K, V, S> {
        BoundedCache {
            entries: Steps::new(Vec::new()),
            hasher: PhantomData,
        }
    }
}

impl<K, V> BoundedCache<K, V, RandomState> {
    pub fn builder() -> BoundedCacheBuilder<K, V> {
        BoundedCacheBuilder(PhantomData)
    }
}

impl<K: Eq, V: Clone, S> BoundedCache<K, V, S> {
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.entries.look(|entries| {
            let (_, posted) = entries.iter().find(|(other, _)| other.borrow() == key)?;
            self.entries.receive(posted);
            Some(posted.item.clone())
        })
    }

    pub fn insert(&self, key: K, value: V) {
        self.entries.change(|entries| {
            entries.retain(|(other, _)| *other != key);
            entries.push((key, self.entries.post(value)));
        });
    }

    pub fn invalidate<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.entries
            .change(|entries| entries.retain(|(other, _)| other.borrow() != key));
    }

    pub fn invalidate_all(&self) {
        self.entries.change(Vec::clear);
    }
}

/// The stand-in for `OnceLock`.
pub struct SetOnce<T> {
    set: super::AtomicU8,
    value: OnceLock<T>,
}

#[allow(clippy::new_without_default)]
impl<T> SetOnce<T> {
    pub fn new() -> Self {
        SetOnce {
            set: super::AtomicU8::new(0),
            value: OnceLock::new(),
        }
    }

    pub fn get(&self) -> Option<&T> {
        // Acquire, like the real one: a thread that finds the value sees all of it.
        match self.set.load(Ordering::Acquire) {
            0 => None,
            _ => self.value.get(),
        }
    }

    pub fn set(&self, value: T) -> Result<(), T> {
        let set = self.value.set(value);
        self.set.swap(1, Ordering::AcqRel);
        set
    }

    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        let value = self.value.get_or_init(make);
        self.set.swap(1, Ordering::AcqRel);
        value
    }
}
