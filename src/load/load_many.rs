//! What a loader of many keys returns, and which answer belongs to which key.

use std::error::Error as StdError;
use std::future::Future;
use std::hash::{BuildHasher, Hash};
use std::panic::{AssertUnwindSafe, catch_unwind};

use foldhash::quality::RandomState;

use crate::load::job::{Panic, panicked};
use crate::load::loader::{LoadFn, LoadOnFn, Loaded, Returned};
use crate::load::running::Answered;

type Boxed = Box<dyn StdError + Send + Sync>;

/// Keys and their answers.
type Pairs<K, V> = Vec<(K, Result<Box<Loaded<V>>, Boxed>)>;

/// The one shape to which all loaders of many keys are reduced.
pub(crate) type ReturnedMany<K, V> = Result<Pairs<K, V>, Boxed>;

/// What a loader of many keys returns: an iterator of keys and answers, plain or in a [`Result`].
///
/// Never implemented by hand: a `Vec`, a map or any other `IntoIterator` of pairs implements it.
/// See [`Builder::load_many`](crate::Builder::load_many). `M` only tells its forms apart.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no answer for many keys `{K}` with values `{V}`",
    label = "not an iterator of pairs `({K}, {V})`, nor a `Result` with one",
    note = "a pair has a key and its value, an `Option` of it or a `Loaded`, plain or in a `Result`"
)]
pub trait ManyAnswers<K, V, M>: Sized {
    #[doc(hidden)]
    fn into_answers(self) -> Result<Pairs<K, V>, Boxed>;
}

/// The answer of a loader of many keys for one of them: a value, an `Option` of one or a
/// [`Loaded`], plain or in a [`Result`].
///
/// Never implemented by hand. `M` only tells its forms apart.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no answer with a value `{V}`",
    label = "not a `{V}`, an `Option<{V}>` or a `Loaded<{V}>`, nor a `Result` with one of them"
)]
pub trait OneAnswer<V, M> {
    #[doc(hidden)]
    fn into_answer(self) -> Result<Box<Loaded<V>>, Boxed>;
}

/// The form of an answer without a `Result`.
#[doc(hidden)]
pub struct Plain<M>(M);

/// The form of an answer in a `Result`.
#[doc(hidden)]
pub struct InResult<M>(M);

impl<V, X: Into<Loaded<V>>> OneAnswer<V, Plain<()>> for X {
    fn into_answer(self) -> Result<Box<Loaded<V>>, Boxed> {
        Ok(Box::new(self.into()))
    }
}

impl<V, X, E> OneAnswer<V, InResult<()>> for Result<X, E>
where
    X: Into<Loaded<V>>,
    E: Into<Boxed>,
{
    fn into_answer(self) -> Result<Box<Loaded<V>>, Boxed> {
        self.map(|value| Box::new(value.into())).map_err(E::into)
    }
}

impl<K, V, I, X, M> ManyAnswers<K, V, Plain<M>> for I
where
    I: IntoIterator<Item = (K, X)>,
    X: OneAnswer<V, M>,
{
    fn into_answers(self) -> Result<Pairs<K, V>, Boxed> {
        let answer = |(key, answer): (K, X)| (key, answer.into_answer());
        Ok(self.into_iter().map(answer).collect())
    }
}

impl<K, V, I, X, E, M> ManyAnswers<K, V, InResult<M>> for Result<I, E>
where
    I: IntoIterator<Item = (K, X)>,
    X: OneAnswer<V, M>,
    E: Into<Boxed>,
{
    fn into_answers(self) -> Result<Pairs<K, V>, Boxed> {
        self.map_err(E::into)?.into_answers()
    }
}

/// An async loader of many keys, reduced to the one shape.
pub(crate) trait LoadMany<K, V>: Send + Sync + 'static {
    fn returned(&self, keys: &[K]) -> impl Future<Output = ReturnedMany<K, V>> + Send;
}

/// An async function of the keys, and how its result is read.
pub(crate) struct OnKeys<F, R, K, V>(pub(crate) F, pub(crate) fn(R) -> ReturnedMany<K, V>);

impl<K, V, F, R> LoadMany<K, V> for OnKeys<F, R, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
    R: 'static,
    F: for<'a> LoadFn<'a, [K], R, Future: Send> + Send + Sync + 'static,
{
    async fn returned(&self, keys: &[K]) -> ReturnedMany<K, V> {
        let OnKeys(f, read) = self;
        read(f(keys).await)
    }
}

/// Some state, an async function of it and the keys, and how its result is read.
pub(crate) struct OnStateAndKeys<T, F, R, K, V>(
    pub(crate) T,
    pub(crate) F,
    pub(crate) fn(R) -> ReturnedMany<K, V>,
);

impl<K, V, T, F, R> LoadMany<K, V> for OnStateAndKeys<T, F, R, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
    T: Send + Sync + 'static,
    R: 'static,
    F: for<'a> LoadOnFn<'a, T, [K], R, Future: Send> + Send + Sync + 'static,
{
    async fn returned(&self, keys: &[K]) -> ReturnedMany<K, V> {
        let OnStateAndKeys(state, f, read) = self;
        read(f(state, keys).await)
    }
}

/// What belongs to one key.
enum Place<V> {
    Empty,
    Answer(Returned<V>),
    /// The key's own code panicked.
    Panicked(Panic),
}

/// Finds the answer of each key, in the order of the keys. The first answer of a key counts, a key
/// without one is not found, and other keys are ignored.
///
/// A key whose `Hash` or `Eq` panics fails alone.
pub fn assign<K: Hash + Eq, V>(keys: &[K], answers: Vec<(K, Returned<V>)>) -> Vec<Answered<V>> {
    let mut places: Vec<Place<V>> = keys.iter().map(|_| Place::Empty).collect();
    let mut index = None;
    // Most loaders answer in the order of the keys.
    let mut next = 0;
    for (key, answer) in answers {
        // A panic says nothing here, because the two are most likely different keys.
        let is_next = (keys.get(next)).is_some_and(|other| is_key(&key, other).unwrap_or(false));
        let at = match is_next {
            true => Some(next),
            false => (index.get_or_insert_with(|| Index::of(keys, &mut places))).find(
                keys,
                &mut places,
                &key,
            ),
        };
        if let Some(at) = at {
            next = at + 1;
            if let place @ Place::Empty = &mut places[at] {
                *place = Place::Answer(answer);
            }
        }
    }
    let answered = |place| match place {
        Place::Empty => Answered::Loaded(Box::new(Loaded::not_found())),
        Place::Answer(answer) => Answered::by(Some(Ok(answer))),
        Place::Panicked(panic) => Answered::Panicked(panicked(panic)),
    };
    places.into_iter().map(answered).collect()
}

/// Whether an answer's key is this one, unless their `Eq` panics.
fn is_key<K: Eq>(key: &K, other: &K) -> Result<bool, Panic> {
    catch_unwind(AssertUnwindSafe(|| key == other))
}

/// The keys by their hashes, sorted. Only keys with the same hash are compared, so the `Eq` of one
/// key does not run for another.
struct Index {
    hasher: RandomState,
    hashes: Vec<(u64, usize)>,
}

impl Index {
    fn of<K: Hash, V>(keys: &[K], places: &mut [Place<V>]) -> Self {
        let hasher = RandomState::default();
        let mut hashes = Vec::with_capacity(keys.len());
        for (at, (key, place)) in keys.iter().zip(places).enumerate() {
            match catch_unwind(AssertUnwindSafe(|| hasher.hash_one(key))) {
                Ok(hash) => hashes.push((hash, at)),
                Err(panic) => *place = Place::Panicked(panic),
            }
        }
        hashes.sort_unstable();
        Index { hasher, hashes }
    }

    fn find<K: Hash + Eq, V>(&self, keys: &[K], places: &mut [Place<V>], key: &K) -> Option<usize> {
        let hash = catch_unwind(AssertUnwindSafe(|| self.hasher.hash_one(key))).ok()?;
        let from = self.hashes.partition_point(|(other, _)| *other < hash);
        let same = (self.hashes[from..].iter()).take_while(|(other, _)| *other == hash);
        let mut same = same.map(|(_, at)| *at);
        same.find(|at| {
            is_key(key, &keys[*at]).unwrap_or_else(|panic| {
                places[*at] = Place::Panicked(panic);
                false
            })
        })
    }
}
