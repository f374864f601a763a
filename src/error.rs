//! What can go wrong, and what to do about it.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::sync::Arc;

/// Why a read got no value.
///
/// Opaque, so that causes can be added; ask the predicates. Cheap to clone: all callers that
/// waited for one load share its error. Only reads without a value to serve ever see one: a
/// stale value inside its hard limit is served instead.
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
    Absent,
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

    pub(crate) fn absent() -> Self {
        Error(Arc::new(Cause::Absent))
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
        matches!(*self.0, Cause::Panicked(_))
    }

    /// The loader did not finish within the load timeout. The next caller starts another load.
    pub fn is_timeout(&self) -> bool {
        matches!(*self.0, Cause::TimedOut(_))
    }

    /// Too many loads were queued or running. Try again later, or raise the queue's bound.
    pub fn is_overloaded(&self) -> bool {
        matches!(*self.0, Cause::Overloaded)
    }

    /// The load of this key, directly or through other keys, waits for itself.
    pub fn is_recursive(&self) -> bool {
        matches!(*self.0, Cause::Recursive)
    }

    /// The load was dropped before it finished: its runtime shut down. The next caller starts another load.
    pub fn is_cancelled(&self) -> bool {
        matches!(*self.0, Cause::Cancelled)
    }

    /// The loader said that the key has no value. Remembered for a while, without asking again.
    pub fn is_absent(&self) -> bool {
        matches!(*self.0, Cause::Absent)
    }

    /// The loader's own error, if it is an `E`.
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        match &*self.0 {
            Cause::Failed(error) => error.downcast_ref(),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Cause::Failed(error) => write!(f, "the loader failed: {error}"),
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
            Cause::Absent => f.write_str("the loader says that this key has no value"),
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
            Cause::Absent => f.write_str("Absent"),
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

/// Why a cache could not be built: which setting is wrong, and what it may be.
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

    pub(crate) fn pool(source: impl StdError + Send + Sync + 'static) -> Self {
        BuildError {
            message: "the compute pool could not start its threads".to_owned(),
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
