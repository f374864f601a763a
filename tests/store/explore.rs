//! The exploration of a model of the lease protocol.
use std::fmt::Debug;
use std::hash::Hash;

use stateright::{Checker, HasDiscoveries, Model};

/// Visits every state until a claim fails. Returns the number of states and the claims that failed.
///
/// A model in which no claim fails must also reach the states that `occur`, or its claims would say
/// nothing.
pub fn explore<M>(model: M, occur: &[&'static str]) -> (usize, Vec<&'static str>)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq,
{
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.threads(2).spawn_bfs().join();
    let mut failed = Vec::new();
    for (name, path) in checker.discoveries() {
        if !occur.contains(&name) {
            println!("{name}: {:?}", path.into_actions());
            failed.push(name);
        }
    }
    let missing = |name: &&&'static str| checker.discovery(name).is_none();
    let missing: Vec<_> = occur.iter().filter(missing).collect();
    assert!(
        !failed.is_empty() || missing.is_empty(),
        "never: {missing:?}"
    );
    println!("{} states", checker.unique_state_count());
    (checker.unique_state_count(), failed)
}
