//! Borrowed forms of keys.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::hash::Hash;
use std::path::{Path, PathBuf};

use crate::sync::Arc;

/// A type whose values can look up keys of type `K`, so that a read need not make a key.
///
/// | Keys | Look-ups, beside a reference to the key |
/// |---|---|
/// | `String`, `Box<str>`, `Arc<str>` | `&str` |
/// | `Vec<T>`, `Box<[T]>`, `Arc<[T]>` | `&[T]` |
/// | `PathBuf`, `Box<Path>`, `Arc<Path>` | `&Path`; the same with `OsStr` and `CStr` |
/// | `(String, B)` | `&(&str, B)` |
/// | `(A, String)` | `&(A, &str)` |
/// | `(String, String)` | `&(&str, &str)` |
///
/// The cache calls [`to_key`](Self::to_key) on a miss and for a write. A hit never calls it.
///
/// # For your own types
///
/// Implement it for a borrowed form of your key type. `Hash` must feed the same data to the hasher
/// as `Hash` of the key that [`to_key`](Self::to_key) returns, and [`is_key`](Self::is_key) must be
/// true for this key and its equals only. If that does not hold, a call may miss the value of its
/// key, so that a read loads it again and an invalidation leaves it, or may take another key for
/// its own; nothing worse happens. Derived implementations agree if both types have the same fields
/// in the same order: `str` hashes like `String`, and `&T` like `T`.
///
/// # Example
///
/// ```
/// use everfresh::{Cache, Lookup};
///
/// #[derive(Clone, PartialEq, Eq, Hash)]
/// struct Page {
///     host: String,
///     number: u32,
/// }
///
/// #[derive(Hash)]
/// struct PageRef<'a> {
///     host: &'a str,
///     number: u32,
/// }
///
/// impl Lookup<Page> for PageRef<'_> {
///     fn is_key(&self, key: &Page) -> bool {
///         self.host == key.host && self.number == key.number
///     }
///
///     fn to_key(&self) -> Page {
///         Page { host: self.host.to_owned(), number: self.number }
///     }
/// }
///
/// let pages: Cache<Page, String> = Cache::builder()
///     .compute(|page: &Page| format!("{}/{}", page.host, page.number))
///     .build()?;
/// let page = pages.get_blocking(&PageRef { host: "example.org", number: 3 })?;
/// assert_eq!(*page, "example.org/3");
///
/// let names: Cache<(String, u32), String> = Cache::builder()
///     .compute(|(text, number): &(String, u32)| format!("{text} {number}"))
///     .build()?;
/// assert_eq!(*names.get_blocking(&("page", 3))?, "page 3");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot look up keys of type `{K}`",
    label = "not a form of `{K}`",
    note = "pass a reference to a `{K}`, or to a borrowed form of it, such as `str` for `String`",
    note = "or convert the value to a `{K}` first, or implement `Lookup<{K}>` for its type"
)]
pub trait Lookup<K>: Hash {
    /// Whether this is a form of `key`.
    fn is_key(&self, key: &K) -> bool;

    /// Makes the key, for a load of it.
    fn to_key(&self) -> K;
}

impl<K: Hash + Eq + Clone> Lookup<K> for K {
    #[inline]
    fn is_key(&self, key: &K) -> bool {
        self == key
    }

    fn to_key(&self) -> K {
        self.clone()
    }
}

/// Unsized forms of keys that own them.
///
/// They are listed one by one. An implementation for all pairs of `Borrow` and `ToOwned` excludes
/// those for `Arc<str>` and for tuples, because the compiler does not rule out that a later `std`
/// makes them overlap.
macro_rules! unsized_forms {
    ($($form:ty => $key:ty $(where $T:ident)?;)+) => {$(
        impl$(<$T: Hash + Eq + Clone>)? Lookup<$key> for $form {
            #[inline]
            fn is_key(&self, key: &$key) -> bool {
                *self == **key
            }

            fn to_key(&self) -> $key {
                self.into()
            }
        }
    )+};
}

unsized_forms! {
    str => String;
    str => Box<str>;
    str => Arc<str>;
    [T] => Vec<T> where T;
    [T] => Box<[T]> where T;
    [T] => Arc<[T]> where T;
    Path => PathBuf;
    Path => Box<Path>;
    Path => Arc<Path>;
    OsStr => OsString;
    OsStr => Box<OsStr>;
    OsStr => Arc<OsStr>;
    CStr => CString;
    CStr => Box<CStr>;
    CStr => Arc<CStr>;
}

impl<B: Hash + Eq + Clone> Lookup<(String, B)> for (&str, B) {
    #[inline]
    fn is_key(&self, key: &(String, B)) -> bool {
        self.0 == key.0 && self.1 == key.1
    }

    fn to_key(&self) -> (String, B) {
        (self.0.to_owned(), self.1.clone())
    }
}

impl<A: Hash + Eq + Clone> Lookup<(A, String)> for (A, &str) {
    #[inline]
    fn is_key(&self, key: &(A, String)) -> bool {
        self.0 == key.0 && self.1 == key.1
    }

    fn to_key(&self) -> (A, String) {
        (self.0.clone(), self.1.to_owned())
    }
}

impl Lookup<(String, String)> for (&str, &str) {
    #[inline]
    fn is_key(&self, key: &(String, String)) -> bool {
        self.0 == key.0 && self.1 == key.1
    }

    fn to_key(&self) -> (String, String) {
        (self.0.to_owned(), self.1.to_owned())
    }
}
