//! Errors of a store, in classes by what they mean for a cache.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// The error of an operation of a store.
///
/// Its text never contains a key, a value, a password or an address.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreError {
    class: ErrorClass,
    /// The word of the server (`OOM`) or of the operating system, or an explanation.
    detail: Cow<'static, str>,
    /// Whether the detail says what is wrong and what to do about it.
    explained: bool,
}

/// The kind of an error. [`StoreStats`](crate::store::StoreStats) counts each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorClass {
    /// No connection.
    Unavailable,
    /// No answer in time. The operation may still take effect.
    TimedOut,
    /// The server is busy: it loads its data, runs a script, or its cluster is being changed.
    Busy,
    /// The server takes no writes: out of memory, a full disk, too few replicas, not the master.
    Refused,
    /// The user, the password or the rights of the user are wrong.
    Denied,
    /// The stored data was not written by everfresh. The store leaves it alone.
    Foreign,
    /// The payload, stored or to be stored, is larger than the limit of the store.
    TooLarge,
    /// An answer of the server, or a payload to be stored, is malformed.
    Protocol,
    /// A setting of the store is wrong.
    Setting,
    /// Another process wrote the key later. Its write stays.
    Superseded,
    /// The cache was closed. Its writes stay in this process.
    Closed,
    /// Any other error of the server.
    Other,
}

impl ErrorClass {
    pub(crate) const ALL: [ErrorClass; 12] = [
        ErrorClass::Unavailable,
        ErrorClass::TimedOut,
        ErrorClass::Busy,
        ErrorClass::Refused,
        ErrorClass::Denied,
        ErrorClass::Foreign,
        ErrorClass::TooLarge,
        ErrorClass::Protocol,
        ErrorClass::Setting,
        ErrorClass::Superseded,
        ErrorClass::Closed,
        ErrorClass::Other,
    ];

    /// The name of the class, for labels of metrics.
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
            ErrorClass::Superseded => "superseded",
            ErrorClass::Closed => "closed",
            ErrorClass::Other => "other",
        }
    }

    /// The meaning of the class.
    fn meaning(self) -> &'static str {
        match self {
            ErrorClass::Unavailable => "the store cannot be reached",
            ErrorClass::TimedOut => "the store did not answer in time",
            ErrorClass::Busy => {
                "the store is busy (it loads its data, runs a slow script, or its cluster changes)"
            }
            ErrorClass::Refused => "the store takes no writes",
            ErrorClass::Denied => "the store denies it",
            ErrorClass::Foreign => "the data under the key was not written by everfresh",
            ErrorClass::TooLarge => "the payload is larger than the store's limit",
            ErrorClass::Protocol => "the answer of the store is malformed",
            ErrorClass::Setting => "a setting of the store is wrong",
            ErrorClass::Superseded => "another process wrote the key later; its write stays",
            ErrorClass::Closed => "the cache was closed; its writes stay in this process",
            ErrorClass::Other => "the store answered with an error",
        }
    }

    /// What can be done about the class, if the error itself does not say more.
    fn remedy(self) -> &'static str {
        match self {
            ErrorClass::Unavailable => "; check that it runs, and its address",
            ErrorClass::TimedOut => "; check its load and the network, or allow it more time",
            ErrorClass::Busy => "; try again",
            ErrorClass::Refused => {
                "; give it memory, disk or replicas, or the address of the master"
            }
            ErrorClass::Denied => "; check user, password and the rights of the user",
            ErrorClass::Foreign => "; it is left alone, choose another namespace or remove it",
            ErrorClass::TooLarge => "; raise the limit or store less",
            ErrorClass::Protocol => "; check that the address is that of a store of the right kind",
            ErrorClass::Setting
            | ErrorClass::Superseded
            | ErrorClass::Closed
            | ErrorClass::Other => "",
        }
    }
}

impl StoreError {
    /// An error of this class, for implementations of [`Store`](crate::store::Store).
    ///
    /// `detail` appears in messages and logs, so it must not contain keys, values, passwords or
    /// addresses.
    pub fn new(class: ErrorClass, detail: impl Into<Cow<'static, str>>) -> Self {
        StoreError {
            class,
            detail: detail.into(),
            explained: false,
        }
    }

    /// An error whose text says what is wrong and what to do about it.
    #[cfg(feature = "redis")]
    pub(crate) fn explained(class: ErrorClass, text: impl Into<Cow<'static, str>>) -> Self {
        StoreError {
            class,
            detail: text.into(),
            explained: true,
        }
    }

    /// The kind of the error.
    pub fn class(&self) -> ErrorClass {
        self.class
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (meaning, remedy) = (self.class.meaning(), self.class.remedy());
        match (self.explained, self.detail.is_empty()) {
            (true, _) => write!(f, "{meaning}: {}", self.detail),
            (false, true) => write!(f, "{meaning}{remedy}"),
            (false, false) => write!(f, "{meaning}{remedy} ({})", self.detail),
        }
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({})", self.class, self.detail)
    }
}

impl StdError for StoreError {}
