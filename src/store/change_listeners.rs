//! Who is told of changes.

use super::key::Namespace;
use super::{Change, ChangeListener};
use crate::sync::{Arc, Mutex, Weak, lock};

/// The change_listeners of a store; those that were dropped leave when the next one comes.
#[derive(Default)]
pub(crate) struct ChangeListeners(Mutex<Vec<Entry>>);

struct Entry {
    namespace: Namespace,
    listener: Weak<dyn ChangeListener>,
    /// Whether it was told that changes arrive.
    greeted: bool,
}

impl ChangeListeners {
    pub(crate) fn add(&self, namespace: &Namespace, listener: Weak<dyn ChangeListener>) {
        let mut change_listeners = lock(&self.0);
        change_listeners.retain(|entry| entry.listener.strong_count() > 0);
        change_listeners.push(Entry {
            namespace: namespace.clone(),
            listener,
            greeted: false,
        });
    }

    pub(crate) fn tell(&self, namespace: &str, change: &Change) {
        for listener in self.select(|entry| entry.namespace.as_str() == namespace) {
            listener.changed(change);
        }
    }

    /// Tells all whose changes arrive again that they do.
    #[cfg(any(test, feature = "redis", feature = "test-util"))]
    pub(crate) fn reconnected(&self, gaps: u64, arrives: impl Fn(&Namespace) -> bool) {
        let told = self.select(|entry| {
            let arrives = arrives(&entry.namespace);
            entry.greeted |= arrives;
            arrives
        });
        for listener in told {
            listener.reconnected(gaps);
        }
    }

    /// Tells those that do not know yet that their changes arrive.
    pub(crate) fn greet(&self, gaps: u64, arrives: impl Fn(&Namespace) -> bool) {
        let told = self.select(|entry| {
            let news = !entry.greeted && arrives(&entry.namespace);
            entry.greeted |= news;
            news
        });
        for listener in told {
            listener.reconnected(gaps);
        }
    }

    /// The namespaces that somebody follows.
    #[cfg(feature = "redis")]
    pub(crate) fn namespaces(&self) -> Vec<Namespace> {
        let mut namespaces: Vec<Namespace> = Vec::new();
        for entry in lock(&self.0).iter() {
            if entry.listener.strong_count() > 0 && !namespaces.contains(&entry.namespace) {
                namespaces.push(entry.namespace.clone());
            }
        }
        namespaces
    }

    /// Not told under the lock, so a listener may do what it likes.
    fn select(&self, mut wanted: impl FnMut(&mut Entry) -> bool) -> Vec<Arc<dyn ChangeListener>> {
        let mut change_listeners = lock(&self.0);
        let selected = change_listeners.iter_mut().filter_map(|entry| {
            let listener = entry.listener.upgrade()?;
            wanted(entry).then_some(listener)
        });
        selected.collect()
    }
}
