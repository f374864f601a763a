//! The listeners of a store.

use std::fmt;

use super::key::Namespace;
use super::{Change, ChangeListener};
use crate::sync::{Arc, Mutex, Weak, lock};

/// The listeners ([`ChangeListener`]) of a store, for implementations of
/// [`Store`](crate::store::Store).
///
/// A store keeps one, [adds](Self::add) to it in
/// [`Store::subscribe`](crate::store::Store::subscribe), and [notifies](Self::notify) it of each
/// change. It keeps no listener alive. No lock is held while a listener runs, so a listener may
/// call the store.
///
/// # Example
///
/// ```
/// use std::sync::{Arc, Mutex, Weak};
/// use everfresh::store::{
///     Change, ChangeKind, ChangeListener, ChangeListeners, Namespace, Origin, StoreKey,
/// };
///
/// #[derive(Default)]
/// struct Recording(Mutex<Vec<ChangeKind>>);
///
/// impl ChangeListener for Recording {
///     fn changed(&self, change: &Change) {
///         self.0.lock().unwrap().push(change.kind);
///     }
///     fn reconnected(&self, _gaps: u64) {}
/// }
///
/// let namespace = Namespace::new("squares:v1")?;
/// let recording = Arc::new(Recording::default());
/// let listener: Weak<Recording> = Arc::downgrade(&recording);
///
/// let listeners = ChangeListeners::default();
/// listeners.add(&namespace, listener);
/// listeners.greet(1, |_| true); // this store needs no connection for its changes
/// let change = Change {
///     kind: ChangeKind::Invalidated,
///     epoch: None,
///     hash: StoreKey::new(&namespace, b"12").hash(),
///     origin: Origin::random(),
/// };
/// listeners.notify(namespace.as_str(), &change);
/// assert_eq!(*recording.0.lock().unwrap(), [ChangeKind::Invalidated]);
/// # Ok::<(), everfresh::BuildError>(())
/// ```
#[derive(Default)]
pub struct ChangeListeners(Mutex<Vec<Subscription>>);

struct Subscription {
    namespace: Namespace,
    listener: Weak<dyn ChangeListener>,
    /// Whether it knows that changes arrive.
    greeted: bool,
}

impl ChangeListeners {
    /// Adds a listener of a namespace, and forgets those that were dropped.
    pub fn add(&self, namespace: &Namespace, listener: Weak<dyn ChangeListener>) {
        let mut listeners = lock(&self.0);
        listeners.retain(|entry| entry.listener.strong_count() > 0);
        listeners.push(Subscription {
            namespace: namespace.clone(),
            listener,
            greeted: false,
        });
    }

    /// Notifies the listeners of a namespace of a change.
    ///
    /// The store must call this in the order of the changes, for one change at a time.
    pub fn notify(&self, namespace: &str, change: &Change) {
        for listener in self.select(|entry| entry.namespace.as_str() == namespace) {
            listener.changed(change);
        }
    }

    /// Notifies the listeners of each namespace whose changes arrive again: some may have been
    /// missed.
    ///
    /// `gaps` is the answer of [`Store::gaps`](crate::store::Store::gaps), which the store raised
    /// before.
    pub fn reconnected(&self, gaps: u64, arrives: impl Fn(&Namespace) -> bool) {
        let selected = self.select(|entry| {
            let arrives = arrives(&entry.namespace);
            entry.greeted |= arrives;
            arrives
        });
        for listener in selected {
            listener.reconnected(gaps);
        }
    }

    /// Notifies the listeners that do not know it yet that their changes arrive.
    ///
    /// A store calls this after [`add`](Self::add), once the changes of the namespace reach it.
    pub fn greet(&self, gaps: u64, arrives: impl Fn(&Namespace) -> bool) {
        let selected = self.select(|entry| {
            let newly = !entry.greeted && arrives(&entry.namespace);
            entry.greeted |= newly;
            newly
        });
        for listener in selected {
            listener.reconnected(gaps);
        }
    }

    /// The namespaces that have a listener.
    pub fn namespaces(&self) -> Vec<Namespace> {
        let mut namespaces: Vec<Namespace> = Vec::new();
        for entry in lock(&self.0).iter() {
            if entry.listener.strong_count() > 0 && !namespaces.contains(&entry.namespace) {
                namespaces.push(entry.namespace.clone());
            }
        }
        namespaces
    }

    /// Listeners are called without the lock, so that they may call the store.
    fn select(
        &self,
        mut wanted: impl FnMut(&mut Subscription) -> bool,
    ) -> Vec<Arc<dyn ChangeListener>> {
        let mut listeners = lock(&self.0);
        let selected = listeners.iter_mut().filter_map(|entry| {
            let listener = entry.listener.upgrade()?;
            wanted(entry).then_some(listener)
        });
        selected.collect()
    }
}

impl fmt::Debug for ChangeListeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeListeners").finish_non_exhaustive()
    }
}
