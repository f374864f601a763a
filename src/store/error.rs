//! What can go wrong with a store, by what it means for a cache.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// Why a store did not do what it was asked.
///
/// Never has a key, a value, a password or an address in its text.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreError {
    class: ErrorClass,
    /// The server's own word for it (`OOM`), or the operating system's.
    detail: Cow<'static, str>,
}

/// What kind of thing went wrong; counted one by one in [`StoreStats`](crate::store::StoreStats).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorClass {
    /// No connection.
    Unavailable,
    /// No answer in time. What was asked may still happen.
    TimedOut,
    /// The server cannot do it now: it is loading its data, runs a script, or its cluster is being changed.
    Busy,
    /// The server takes no writes: out of memory, a full disk, too few replicas, not the master.
    Refused,
    /// The user, the password or the rights of the user are wrong.
    Denied,
    /// What is stored is not of the kind that caches store. It is left alone.
    Foreign,
    /// What is stored, or was to be stored, is larger than the store's limit.
    TooLarge,
    /// The answer makes no sense.
    Protocol,
    /// A setting of the store is wrong.
    Setting,
    /// Any other error of the server.
    Other,
}

impl ErrorClass {
    pub(crate) const ALL: [ErrorClass; 10] = [
        ErrorClass::Unavailable,
        ErrorClass::TimedOut,
        ErrorClass::Busy,
        ErrorClass::Refused,
        ErrorClass::Denied,
        ErrorClass::Foreign,
        ErrorClass::TooLarge,
        ErrorClass::Protocol,
        ErrorClass::Setting,
        ErrorClass::Other,
    ];

    /// A word for it, for labels of metrics.
    pub fn name(self) -> &'static str {
        match self {
            ErrorClass::Unavailable => "unavailable",
            ErrorClass::TimedOut => "timed_out",
            ErrorClass::Busy => "busy",
            ErrorClass::Refused => "refused",
            ErrorClass::Denied => "denied",
            ErrorClass::Foreign => "foreign",
            ErrorClass::TooLarge => "too_large",
            ErrorClass::Protocol => "protocol",
            ErrorClass::Setting => "setting",
            ErrorClass::Other => "other",
        }
    }

    /// What it means and what to do.
    fn text(self) -> &'static str {
        match self {
            ErrorClass::Unavailable => {
                "the store cannot be reached; it is tried again until it can, check that it runs and its address"
            }
            ErrorClass::TimedOut => {
                "the store did not answer in time; check its load and the network, or allow it more time"
            }
            ErrorClass::Busy => {
                "the store is busy with something else (loading, a slow script, a change of its cluster); it is tried again"
            }
            ErrorClass::Refused => {
                "the store takes no writes; give it memory, disk or replicas, or the address of the master"
            }
            ErrorClass::Denied => {
                "the store denies it; check user, password and the rights of the user"
            }
            ErrorClass::Foreign => {
                "something that is not a cache's is stored under the key; it is left alone, choose another namespace or remove it"
            }
            ErrorClass::TooLarge => {
                "the payload is larger than the store's limit; raise the limit or store less"
            }
            ErrorClass::Protocol => {
                "the store's answer makes no sense; check that the address is that of a store of the right kind"
            }
            ErrorClass::Setting => "a setting of the store is wrong",
            ErrorClass::Other => "the store answered with an error",
        }
    }
}

impl StoreError {
    /// An error of this class, for implementations of [`Store`](crate::store::Store).
    ///
    /// `detail` is shown to people and written to logs: no keys, values, passwords or addresses.
    pub fn new(class: ErrorClass, detail: impl Into<Cow<'static, str>>) -> Self {
        StoreError {
            class,
            detail: detail.into(),
        }
    }

    /// What kind of thing went wrong.
    pub fn class(&self) -> ErrorClass {
        self.class
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.class.text())?;
        match self.detail.is_empty() {
            true => Ok(()),
            false => write!(f, " ({})", self.detail),
        }
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({})", self.class, self.detail)
    }
}

impl StdError for StoreError {}
