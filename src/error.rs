//! What can go wrong, and what to do about it.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::iter;
use std::time::Duration;

use crate::sync::Arc;

/// Why a read got no value.
///
/// Opaque, so that causes can be added; ask the predicates. Cheap to clone: all callers that
/// waited for one load share its error. Only reads without a value to serve ever see one: a
/// stale value inside its hard limit is served instead.
///
/// Its text says one thing, and [`source`](StdError::source) the rest: of a loader that failed the
/// text is "the loader failed", and the source is the error that it returned. A program that logs
/// the error logs the chain of sources.
///
/// # Loaders that read a cache
///
/// A loader may pass the error of such a read on, by `?` or as a source of its own error. Then
/// [`is_load_failure`](Self::is_load_failure) holds, because a loader failed, and every predicate
/// that holds for the error below: a load that waits for itself, through however many other loads,
/// [`is_recursive`](Self::is_recursive).
///
/// # Example
///
/// ```
/// use everfresh::Cache;
///
/// let cache: Cache<String, u64> = Cache::builder()
///     .try_compute(|text: &String| text.parse::<u64>())
///     .build()?;
/// let error = cache.get_blocking("twelve").unwrap_err();
/// assert!(error.is_load_failure());
/// assert!(error.downcast_ref::<std::num::ParseIntError>().is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Error(Arc<Cause>);

enum Cause {
    Failed(Box<dyn StdError + Send + Sync>),
    Panicked(String),
    TimedOut(Duration),
    Overloaded,
    Recursive,
    Cancelled,
    NotFound,
}

impl Error {
    pub(crate) fn failed(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Error(Arc::new(Cause::Failed(error.into())))
    }

    pub(crate) fn panicked(payload: &(dyn Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a payload that is not text".to_owned());
        Error(Arc::new(Cause::Panicked(text)))
    }

    pub(crate) fn timed_out(after: Duration) -> Self {
        Error(Arc::new(Cause::TimedOut(after)))
    }

    pub(crate) fn overloaded() -> Self {
        Error(Arc::new(Cause::Overloaded))
    }

    pub(crate) fn recursive() -> Self {
        Error(Arc::new(Cause::Recursive))
    }

    pub(crate) fn not_found() -> Self {
        Error(Arc::new(Cause::NotFound))
    }

    /// The load was dropped, by its runtime or by a panic that unwinds through it right now.
    pub(crate) fn cancelled() -> Self {
        match std::thread::panicking() {
            true => Self::panicked(&"user code panicked while the load ended"),
            false => Error(Arc::new(Cause::Cancelled)),
        }
    }

    /// The loader returned an error; [`source`](StdError::source) and
    /// [`downcast_ref`](Self::downcast_ref) give it back.
    pub fn is_load_failure(&self) -> bool {
        matches!(*self.0, Cause::Failed(_))
    }

    /// The loader panicked, or, after it, the weigher or the key's `Clone`; the message is in the
    /// error's text.
    pub fn is_panic(&self) -> bool {
        self.has(|cause| matches!(cause, Cause::Panicked(_)))
    }

    /// The loader did not finish within the load timeout. The next caller starts another load.
    pub fn is_timeout(&self) -> bool {
        self.has(|cause| matches!(cause, Cause::TimedOut(_)))
    }

    /// Too many loads were queued or running. Try again later, or raise the queue's bound.
    pub fn is_overloaded(&self) -> bool {
        self.has(|cause| matches!(cause, Cause::Overloaded))
    }

    /// The load of this key, directly or through other keys, waits for itself.
    pub fn is_recursive(&self) -> bool {
        self.has(|cause| matches!(cause, Cause::Recursive))
    }

    /// The load was dropped before it finished: its runtime shut down. The next caller starts
    /// another load.
    pub fn is_cancelled(&self) -> bool {
        self.has(|cause| matches!(cause, Cause::Cancelled))
    }

    /// The loader said that the key has no value. Remembered for a while, without asking again.
    pub fn is_not_found(&self) -> bool {
        self.has(|cause| matches!(cause, Cause::NotFound))
    }

    /// The loader's own error if it is an `E`, or the first of its sources that is one.
    ///
    /// Only what `source` leads to can be found. Errors that hide an error and show its sources in
    /// its place, such as an [`Arc`](std::sync::Arc) or a `#[error(transparent)]` of `thiserror`,
    /// hide it from this method as well.
    ///
    /// # Errors of `anyhow`
    ///
    /// A loader may return `anyhow::Error`. An `E` that was given a
    /// context, by `.context(..)` or `.with_context(..)`, is found, and so are the sources of every
    /// error. An `E` that became an `anyhow::Error` by a bare `?` is hidden by `anyhow` when that
    /// becomes a boxed error. This includes an [`Error`] of a cache, and so its predicates. Give it
    /// a context, or let the loader end with
    /// `.map_err(anyhow::Error::reallocate_into_boxed_dyn_error_without_backtrace)`.
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        self.sources().find_map(|source| source.downcast_ref())
    }

    /// Whether this error, or one of a cache below it, has such a cause.
    fn has(&self, is: impl Fn(&Cause) -> bool) -> bool {
        let mut below = self.sources().filter_map(|source| source.downcast_ref());
        is(&self.0) || below.any(|Error(cause)| is(cause))
    }

    /// The errors below this one, from the nearest to the first that happened.
    fn sources(&self) -> impl Iterator<Item = &(dyn StdError + 'static)> {
        iter::successors(self.source(), |&error| error.source())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            // Which error it returned is said by that error, the source.
            Cause::Failed(_) => f.write_str("the loader failed"),
            Cause::Panicked(text) => write!(f, "the loader panicked: {text}"),
            Cause::TimedOut(after) => write!(
                f,
                "the load did not finish within {after:?}; the next caller starts another"
            ),
            Cause::Overloaded => f.write_str(
                "too many loads are queued or running; try again later or raise the queue's bound",
            ),
            Cause::Recursive => {
                f.write_str("the load of this key waits for itself, directly or through other keys")
            }
            Cause::NotFound => f.write_str("the loader says that this key has no value"),
            Cause::Cancelled => f.write_str(
                "the load was dropped before it finished; is its runtime shutting down?",
            ),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Cause::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
            Cause::Panicked(text) => f.debug_tuple("Panicked").field(text).finish(),
            Cause::TimedOut(after) => f.debug_tuple("TimedOut").field(after).finish(),
            Cause::Overloaded => f.write_str("Overloaded"),
            Cause::Recursive => f.write_str("Recursive"),
            Cause::Cancelled => f.write_str("Cancelled"),
            Cause::NotFound => f.write_str("NotFound"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &*self.0 {
            Cause::Failed(error) => Some(&**error),
            _ => None,
        }
    }
}

/// Why a cache could not be built: which setting is wrong, the value it has, and what it may be.
#[derive(Debug)]
pub struct BuildError {
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl BuildError {
    pub(crate) fn setting(message: impl Into<String>) -> Self {
        BuildError {
            message: message.into(),
            source: None,
        }
    }

    pub(crate) fn pool(threads: usize, source: impl StdError + Send + Sync + 'static) -> Self {
        BuildError {
            message: format!("`threads` is {threads}; the system does not start so many"),
            source: Some(Box::new(source)),
        }
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for BuildError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_ref()
            .map(|source| &**source as &(dyn StdError + 'static))
    }
}
