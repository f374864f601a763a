//! Who is told of changes.

use super::key::Namespace;
use super::{Change, Follower};
use crate::sync::{Arc, Mutex, Weak, lock};

/// The followers of a store; those that were dropped leave when the next one comes.
#[derive(Default)]
pub(crate) struct Followers(Mutex<Vec<(Namespace, Weak<dyn Follower>)>>);

impl Followers {
    pub(crate) fn add(&self, namespace: &Namespace, follower: Weak<dyn Follower>) {
        let mut followers = lock(&self.0);
        followers.retain(|(_, follower)| follower.strong_count() > 0);
        followers.push((namespace.clone(), follower));
    }

    pub(crate) fn tell(&self, namespace: &str, change: &Change) {
        for follower in self.of(Some(namespace)) {
            follower.changed(change);
        }
    }

    pub(crate) fn reconnected(&self, generation: u64) {
        for follower in self.of(None) {
            follower.reconnected(generation);
        }
    }

    /// The namespaces that somebody follows.
    #[cfg(feature = "redis")]
    pub(crate) fn namespaces(&self) -> Vec<Namespace> {
        let followers = lock(&self.0);
        let alive = followers
            .iter()
            .filter(|(_, follower)| follower.strong_count() > 0);
        let mut namespaces: Vec<Namespace> = Vec::new();
        for (namespace, _) in alive {
            if !namespaces.contains(namespace) {
                namespaces.push(namespace.clone());
            }
        }
        namespaces
    }

    /// Not called under the lock, so a follower may do what it likes.
    fn of(&self, namespace: Option<&str>) -> Vec<Arc<dyn Follower>> {
        let followers = lock(&self.0);
        let wanted = followers
            .iter()
            .filter(|(of, _)| namespace.is_none_or(|namespace| of.as_str() == namespace));
        wanted
            .filter_map(|(_, follower)| follower.upgrade())
            .collect()
    }
}
