//! Who is told of changes.

use super::key::Namespace;
use super::{Change, Follower};
use crate::sync::{Arc, Mutex, Weak, lock};

/// The followers of a store; those that were dropped leave when the next one comes.
#[derive(Default)]
pub(crate) struct Followers(Mutex<Vec<Entry>>);

struct Entry {
    namespace: Namespace,
    follower: Weak<dyn Follower>,
    /// Whether it was told that changes arrive.
    greeted: bool,
}

impl Followers {
    pub(crate) fn add(&self, namespace: &Namespace, follower: Weak<dyn Follower>) {
        let mut followers = lock(&self.0);
        followers.retain(|entry| entry.follower.strong_count() > 0);
        followers.push(Entry {
            namespace: namespace.clone(),
            follower,
            greeted: false,
        });
    }

    pub(crate) fn tell(&self, namespace: &str, change: &Change) {
        for follower in self.select(|entry| entry.namespace.as_str() == namespace) {
            follower.changed(change);
        }
    }

    /// Tells all whose changes arrive again that they do.
    #[cfg(any(test, feature = "redis", feature = "test-util"))]
    pub(crate) fn reconnected(&self, generation: u64, arrives: impl Fn(&Namespace) -> bool) {
        let told = self.select(|entry| {
            let arrives = arrives(&entry.namespace);
            entry.greeted |= arrives;
            arrives
        });
        for follower in told {
            follower.reconnected(generation);
        }
    }

    /// Tells those that do not know yet that their changes arrive.
    pub(crate) fn greet(&self, generation: u64, arrives: impl Fn(&Namespace) -> bool) {
        let told = self.select(|entry| {
            let news = !entry.greeted && arrives(&entry.namespace);
            entry.greeted |= news;
            news
        });
        for follower in told {
            follower.reconnected(generation);
        }
    }

    /// The namespaces that somebody follows.
    #[cfg(feature = "redis")]
    pub(crate) fn namespaces(&self) -> Vec<Namespace> {
        let mut namespaces: Vec<Namespace> = Vec::new();
        for entry in lock(&self.0).iter() {
            if entry.follower.strong_count() > 0 && !namespaces.contains(&entry.namespace) {
                namespaces.push(entry.namespace.clone());
            }
        }
        namespaces
    }

    /// Not told under the lock, so a follower may do what it likes.
    fn select(&self, mut wanted: impl FnMut(&mut Entry) -> bool) -> Vec<Arc<dyn Follower>> {
        let mut followers = lock(&self.0);
        let selected = followers.iter_mut().filter_map(|entry| {
            let follower = entry.follower.upgrade()?;
            wanted(entry).then_some(follower)
        });
        selected.collect()
    }
}
