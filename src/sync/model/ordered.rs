//! Stand-ins for the queue, the map and the cell of other crates, which loom cannot look into.
//!
//! Each operation is one step, and the steps of all threads are explored in every order: that is what a linearizable container
//! does, and all that is relied on. An item brings along what its thread wrote before it put it in; nothing else makes an edge.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::hash::RandomState;
use std::marker::PhantomData;
use std::sync::OnceLock;

use loom::sync::atomic::AtomicUsize;

use super::{Hidden, Shadow, open};
use crate::sync::Ordering;

/// What is touched one step at a time.
struct Steps<S> {
    /// Where loom switches threads, before a step. Which steps depend on one another the shadow says.
    turn: AtomicUsize,
    shadow: Shadow,
    /// The edges from who put an item in to who gets it. Made in advance, because loom wants an edge from where a word is made to
    /// where it is used.
    edges: [AtomicUsize; EDGES],
    sent: Hidden<usize>,
    state: Hidden<S>,
}

/// Items that were put in one after another have an edge each; an edge is used again after so many.
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

    /// Other threads come in before a step or after it, never in between. `step` says whether it changed anything.
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

/// The stand-in for `moka`'s cache, with room for everything: what it forgets by itself is not part of a model.
pub struct BoundedCache<K, V, S> {
    notes: Steps<Vec<(K, Posted<V>)>>,
    hasher: PhantomData<S>,
}

/// What is set by it is not part of a model.
pub struct NoteCacheBuilder<K, V>(PhantomData<(K, V)>);

impl<K, V> NoteCacheBuilder<K, V> {
    pub fn max_capacity(self, _: u64) -> Self {
        self
    }

    pub fn expire_after<E>(self, _: E) -> Self {
        self
    }

    pub fn build_with_hasher<S>(self, _: S) -> BoundedCache<K, V, S> {
        BoundedCache {
            notes: Steps::new(Vec::new()),
            hasher: PhantomData,
        }
    }
}

impl<K, V> BoundedCache<K, V, RandomState> {
    pub fn builder() -> NoteCacheBuilder<K, V> {
        NoteCacheBuilder(PhantomData)
    }
}

impl<K: Eq, V: Clone, S> BoundedCache<K, V, S> {
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.notes.look(|notes| {
            let (_, posted) = notes.iter().find(|(other, _)| other.borrow() == key)?;
            self.notes.receive(posted);
            Some(posted.item.clone())
        })
    }

    pub fn insert(&self, key: K, value: V) {
        self.notes.change(|notes| {
            notes.retain(|(other, _)| *other != key);
            notes.push((key, self.notes.post(value)));
        });
    }

    pub fn invalidate<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.notes
            .change(|notes| notes.retain(|(other, _)| other.borrow() != key));
    }

    pub fn invalidate_all(&self) {
        self.notes.change(Vec::clear);
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
        // Acquire, as the real one: whoever finds the value sees all of it.
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
