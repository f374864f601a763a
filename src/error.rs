//! The errors of the crate: what went wrong, and what the caller can do.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt::{self, Write as _};
use std::iter;
use std::time::Duration;

use crate::sync::Arc;

/// Why a read got no value.
///
/// Opaque, so that causes can be added; use the predicates. Cheap to clone: all callers that waited
/// for one load share its error. A read returns an error only if it has no value to serve: a stale
/// value inside its hard limit is served instead.
///
/// The text says one thing, and [`source`](StdError::source) says the rest. If the loader failed,
/// the text is "the loader failed", and the source is the error that the loader returned. A program
/// that logs the error should log the chain of sources.
///
/// # Loaders that read a cache
///
/// A loader may pass the error of such a read on, by `?` or as a source of its own error. Then
/// [`is_load_failure`](Self::is_load_failure) holds, because a loader failed, and so does every
/// predicate that holds for the error below. For example, [`is_recursive`](Self::is_recursive)
/// holds for a load that waits for itself through any number of other loads.
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
pub struct Error(Arc<ErrorCause>);

#[derive(Debug)]
enum ErrorCause {
    Failed(Box<dyn StdError + Send + Sync>),
    Panicked(String),
    TimedOut(Duration),
    /// Its turn did not come within this time.
    NotStarted(Duration),
    /// The caller waited no longer than this.
    StillLoading(Duration),
    Overloaded,
    /// The next probe may come after so long, or sooner.
    Unavailable(Duration),
    Recursive,
    TooDeep(usize),
    Cancelled,
    NotFound,
    WithoutRuntime,
    WithoutLoader,
    WouldBlock,
    CacheDropped,
    OtherHasher,
    Closed,
}

impl Error {
    pub(crate) fn failed(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Error(Arc::new(ErrorCause::Failed(error.into())))
    }

    pub(crate) fn panicked(payload: &(dyn Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a payload that is not text".to_owned());
        Error(Arc::new(ErrorCause::Panicked(text)))
    }

    pub(crate) fn timed_out(after: Duration) -> Self {
        Error(Arc::new(ErrorCause::TimedOut(after)))
    }

    /// The time limit passed before the loader was called.
    pub(crate) fn not_started(after: Duration) -> Self {
        Error(Arc::new(ErrorCause::NotStarted(after)))
    }

    /// The caller waits no longer; the load goes on.
    pub(crate) fn still_loading(after: Duration) -> Self {
        Error(Arc::new(ErrorCause::StillLoading(after)))
    }

    pub(crate) fn overloaded() -> Self {
        Error(Arc::new(ErrorCause::Overloaded))
    }

    /// The breaker is open; the next probe may come after so many ticks.
    pub(crate) fn unavailable(left: u64) -> Self {
        Error(Arc::new(ErrorCause::Unavailable(Duration::from_nanos(
            left,
        ))))
    }

    pub(crate) fn recursive() -> Self {
        Error(Arc::new(ErrorCause::Recursive))
    }

    pub(crate) fn too_deep(limit: usize) -> Self {
        Error(Arc::new(ErrorCause::TooDeep(limit)))
    }

    pub(crate) fn not_found() -> Self {
        Error(Arc::new(ErrorCause::NotFound))
    }

    pub(crate) fn without_runtime() -> Self {
        Error(Arc::new(ErrorCause::WithoutRuntime))
    }

    pub(crate) fn without_loader() -> Self {
        Error(Arc::new(ErrorCause::WithoutLoader))
    }

    pub(crate) fn would_block() -> Self {
        Error(Arc::new(ErrorCause::WouldBlock))
    }

    pub(crate) fn cache_dropped() -> Self {
        Error(Arc::new(ErrorCause::CacheDropped))
    }

    pub(crate) fn other_hasher() -> Self {
        Error(Arc::new(ErrorCause::OtherHasher))
    }

    pub(crate) fn closed() -> Self {
        Error(Arc::new(ErrorCause::Closed))
    }

    /// The load was dropped, either by its runtime or by a panic that is unwinding right now.
    pub(crate) fn cancelled() -> Self {
        match std::thread::panicking() {
            true => Self::panicked(&"user code panicked while the load ended"),
            false => Error(Arc::new(ErrorCause::Cancelled)),
        }
    }

    /// Whether the load was not tried, so that it shows nothing about the key.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(
            *self.0,
            ErrorCause::Overloaded
                | ErrorCause::Unavailable(_)
                | ErrorCause::WithoutRuntime
                | ErrorCause::WithoutLoader
                | ErrorCause::Closed
        )
    }

    /// Whether this failure of a loader counts as one of its origin. `None` if it says nothing
    /// about the origin, because the loader passed on the error of a read that asked no origin.
    pub(crate) fn blames_origin(&self) -> Option<bool> {
        let errors = self.sources().take(MAX_SOURCES);
        let Some(Error(cause)) = errors.filter_map(|source| source.downcast_ref()).last() else {
            return Some(true);
        };
        match **cause {
            ErrorCause::Failed(_)
            | ErrorCause::Panicked(_)
            | ErrorCause::TimedOut(_)
            | ErrorCause::Cancelled => Some(true),
            ErrorCause::NotFound => Some(false),
            ErrorCause::NotStarted(_)
            | ErrorCause::StillLoading(_)
            | ErrorCause::Overloaded
            | ErrorCause::Unavailable(_)
            | ErrorCause::Recursive
            | ErrorCause::TooDeep(_)
            | ErrorCause::WithoutRuntime
            | ErrorCause::WithoutLoader
            | ErrorCause::WouldBlock
            | ErrorCause::CacheDropped
            | ErrorCause::OtherHasher
            | ErrorCause::Closed => None,
        }
    }

    /// The loader returned an error; [`source`](StdError::source) and
    /// [`downcast_ref`](Self::downcast_ref) return it.
    pub fn is_load_failure(&self) -> bool {
        matches!(*self.0, ErrorCause::Failed(_))
    }

    /// The loader panicked, or the weigher or the key's `Clone` did after the load. The text of the
    /// error contains the panic message.
    pub fn is_panic(&self) -> bool {
        self.has(|cause| matches!(cause, ErrorCause::Panicked(_)))
    }

    /// The loader did not finish within the load timeout, or did not start because its turn did not
    /// come, or the call [waits no longer](crate::ReadTerms::wait_at_most) for a load that goes on;
    /// the text says which. After a time-out of the loader the key rests, as after a failure. A
    /// late result of it may still be published: see
    /// [`Builder::load_timeout`](crate::Builder::load_timeout).
    pub fn is_timeout(&self) -> bool {
        use ErrorCause::{NotStarted, StillLoading, TimedOut};
        self.has(|cause| matches!(cause, TimedOut(_) | NotStarted(_) | StillLoading(_)))
    }

    /// The [`breaker`](crate::Builder::breaker) is open: too many of the last loads failed, so the
    /// loader was not called. The text says after which time a load may be tried at the latest.
    pub fn is_unavailable(&self) -> bool {
        self.has(|cause| matches!(cause, ErrorCause::Unavailable(_)))
    }

    /// As many loads wait for their start as [`queue`](crate::Builder::queue) allows. Try again
    /// later. If it happens often, raise [`max_loads`](crate::Builder::max_loads) or make the
    /// loader faster.
    pub fn is_overloaded(&self) -> bool {
        self.has(|cause| matches!(cause, ErrorCause::Overloaded))
    }

    /// The load of this key waits for itself, directly or through other keys. The loader must read
    /// other keys.
    pub fn is_recursive(&self) -> bool {
        self.has(|cause| matches!(cause, ErrorCause::Recursive))
    }

    /// A load read a key that had to be loaded, but already as many loads waited one for another as
    /// [`max_depth`](crate::Builder::max_depth) allows. Nothing was loaded for this read.
    pub fn is_too_deep(&self) -> bool {
        self.has(|cause| matches!(cause, ErrorCause::TooDeep(_)))
    }

    /// The load was dropped before it finished: its runtime shut down. After the
    /// [`backoff`](crate::Builder::backoff) the next caller starts another load.
    pub fn is_cancelled(&self) -> bool {
        self.has(|cause| matches!(cause, ErrorCause::Cancelled))
    }

    /// The loader said that the key has no value. The cache remembers this for a while and does not
    /// call the loader again.
    pub fn is_not_found(&self) -> bool {
        self.has(|cause| matches!(cause, ErrorCause::NotFound))
    }

    /// There is no runtime for an async loader: neither the read nor
    /// [`build`](crate::Builder::build) ran inside one, and there is no
    /// [`spawner`](crate::Builder::spawner).
    pub fn is_without_runtime(&self) -> bool {
        self.has(|cause| matches!(cause, ErrorCause::WithoutRuntime))
    }

    /// The key had to be loaded, but the cache was built
    /// [without a loader](crate::Builder::without_loader) and the call brought no function that has
    /// not run yet.
    pub fn is_without_loader(&self) -> bool {
        self.has(|cause| matches!(cause, ErrorCause::WithoutLoader))
    }

    /// The call would have blocked the only thread of the runtime on which the load runs, and so
    /// would have waited for itself. Read with `get(..).await`, or load with `compute`.
    pub fn is_would_block(&self) -> bool {
        self.has(|cause| matches!(cause, ErrorCause::WouldBlock))
    }

    /// A loader asked for [its cache](crate::Request::cache), which has been dropped.
    pub fn is_cache_dropped(&self) -> bool {
        self.has(|cause| matches!(cause, ErrorCause::CacheDropped))
    }

    /// The cache was [closed](crate::Cache::close), so it loads nothing more. It still serves the
    /// values that it has.
    pub fn is_closed(&self) -> bool {
        self.has(|cause| matches!(cause, ErrorCause::Closed))
    }

    /// The loader's own error if it is an `E`, or the first of its sources that is one.
    ///
    /// Only errors that `source` leads to can be found. Some errors hide an inner error and show
    /// its sources in its place, such as an [`Arc`](std::sync::Arc) or a `#[error(transparent)]` of
    /// `thiserror`. They hide the inner error from this method as well.
    ///
    /// # Errors of `anyhow`
    ///
    /// A loader may return `anyhow::Error`. An `E` with a context, added by `.context(..)` or
    /// `.with_context(..)`, is found, and so are the sources of every error. An `E` that became an
    /// `anyhow::Error` by a bare `?` is not found, because `anyhow` hides it when the error becomes
    /// a boxed error. This applies to an [`Error`] of a cache too, and therefore to its predicates.
    /// Either add a context, or let the loader end with
    /// `.map_err(anyhow::Error::reallocate_into_boxed_dyn_error_without_backtrace)`.
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        self.sources().find_map(|source| source.downcast_ref())
    }

    /// About how many bytes the loader's error takes: its value, and its texts with those of its
    /// sources. 0 if the loader returned no error. Runs the user's `Display`.
    pub(crate) fn size(&self) -> u64 {
        let ErrorCause::Failed(error) = &*self.0 else {
            return 0;
        };
        let mut length = Length(size_of_val(&**error) as u64);
        for source in self.sources().take(MAX_SOURCES) {
            // An error of `Display` itself only ends the count of this text.
            let _ = write!(length, "{source}");
        }
        length.0
    }

    /// Whether this error, or an error of a cache below it, has such a cause.
    fn has(&self, is: impl Fn(&ErrorCause) -> bool) -> bool {
        let mut below = self.sources().filter_map(|source| source.downcast_ref());
        is(&self.0) || below.any(|Error(cause)| is(cause))
    }

    /// The errors below this one, from the nearest to the original one.
    fn sources(&self) -> impl Iterator<Item = &(dyn StdError + 'static)> {
        iter::successors(self.source(), |&error| error.source())
    }
}

/// The sources of an error that are counted. A chain that leads back to itself has no end.
const MAX_SOURCES: usize = 64;

/// Counts the bytes of the texts that are written to it.
struct Length(u64);

impl fmt::Write for Length {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len() as u64;
        Ok(())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            // The source says which error the loader returned.
            ErrorCause::Failed(_) => f.write_str("the loader failed"),
            ErrorCause::Panicked(text) => write!(f, "the loader panicked: {text}"),
            ErrorCause::TimedOut(after) => write!(
                f,
                "the load did not finish within {after:?}; another may start after the backoff"
            ),
            ErrorCause::NotStarted(after) => write!(
                f,
                "the load did not start within {after:?}; too many loads were before it, or no \
                 thread ran it"
            ),
            ErrorCause::StillLoading(after) => write!(
                f,
                "there was no value within {after:?}, and this call waits no longer; the load goes \
                 on"
            ),
            ErrorCause::Overloaded => f.write_str(
                "as many loads wait as `queue` allows; try again later, raise `max_loads` or make \
                 the loader faster",
            ),
            ErrorCause::Unavailable(left) if left.is_zero() => f.write_str(
                "not loaded, because too many loads failed lately; try again now, as a probe",
            ),
            ErrorCause::Unavailable(left) => write!(
                f,
                "not loaded, because too many loads failed lately; try again in at most {left:.1?}"
            ),
            ErrorCause::Recursive => f.write_str(
                "the load of this key waits for itself, directly or through other keys; its loader \
                 must read other keys",
            ),
            ErrorCause::TooDeep(limit) => write!(
                f,
                "a chain of loads that wait one for another is longer than `max_depth`, {limit}; \
                 load the keys in the other order, or raise `max_depth` and the stacks of the pool"
            ),
            ErrorCause::NotFound => f.write_str("the loader says that this key has no value"),
            ErrorCause::Cancelled => f.write_str(
                "the load was dropped before it finished; is its runtime shutting down?",
            ),
            ErrorCause::WithoutRuntime => f.write_str(
                "an async loader needs a runtime: read or build the cache inside one, or give it a \
                 `spawner`",
            ),
            ErrorCause::WithoutLoader => f.write_str(
                "this cache has no loader, and this call brings no function that could run; read \
                 with `or_load` or `or_compute`",
            ),
            ErrorCause::WouldBlock => f.write_str(
                "this thread runs the load that it would wait for; read with `get(..).await`, or \
                 load with `compute`",
            ),
            ErrorCause::CacheDropped => f.write_str(
                "the cache of this load has been dropped; keep a handle while its loads run",
            ),
            ErrorCause::OtherHasher => f.write_str(
                "the cache of this load has a hasher of another type; name that type with \
                 `cache_with_hasher`",
            ),
            ErrorCause::Closed => f.write_str(
                "the cache was closed and loads nothing more; close it after its last reader",
            ),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &*self.0 {
            ErrorCause::Failed(error) => Some(&**error),
            _ => None,
        }
    }
}

/// Why a cache could not be built: which setting is wrong, its value, and the allowed values.
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

    /// A setting has a value that is not allowed.
    pub(crate) fn value(setting: &str, value: &dyn fmt::Debug, rule: &str) -> Self {
        let value = grouped(format!("{value:?}"));
        Self::setting(format!("`{setting}` is {value}; it {rule}"))
    }

    pub(crate) fn pool(
        threads: usize,
        stack_size: usize,
        source: impl StdError + Send + Sync + 'static,
    ) -> Self {
        BuildError {
            message: format!(
                "`threads` is {} and `stack_size` is {}; the system cannot start such threads",
                grouped(threads),
                grouped(stack_size),
            ),
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

/// Puts spaces between the thousands of a number. Leaves other texts as they are.
pub(crate) fn grouped(number: impl fmt::Display) -> String {
    let digits = number.to_string();
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return digits;
    }
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}
