//! The functions that a read may bring.
//!
//! Kept as they are until the read has to wait, so a hit neither boxes nor moves them.

use crate::load::call::CallFn;
use crate::sync::Arc;

/// The place of a function in [`ReadTerms`] that have none.
#[derive(Clone, Copy, Debug)]
pub struct NoFunction;

/// A function of one read, in [`ReadTerms`].
pub struct Function<F, V> {
    pub(super) function: F,
    pub(super) waits: bool,
    pub(super) boxed: fn(F) -> Boxed<V>,
}

/// A function of one read, or none.
pub trait ReadFn<V> {
    #[doc(hidden)]
    fn waits(&self) -> bool;

    #[doc(hidden)]
    fn boxed(self) -> Boxed<V>;
}

/// A function that a load may run.
#[doc(hidden)]
pub struct Boxed<V>(pub(super) Option<Arc<CallFn<V>>>);

impl<V> ReadFn<V> for NoFunction {
    fn waits(&self) -> bool {
        false
    }

    fn boxed(self) -> Boxed<V> {
        Boxed(None)
    }
}

impl<F, V> ReadFn<V> for Function<F, V> {
    fn waits(&self) -> bool {
        self.waits
    }

    fn boxed(self) -> Boxed<V> {
        (self.boxed)(self.function)
    }
}
