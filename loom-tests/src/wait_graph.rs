//! Loads that wait for one another: one of the loads that close a cycle finds it.

use std::sync::Arc;

use everfresh::model::WaitNode;
use loom::thread::spawn;

use crate::Threads::{Three, Two};
use crate::run_model;

fn wait_nodes<const N: usize>() -> [Arc<WaitNode>; N] {
    std::array::from_fn(|_| Arc::new(WaitNode::default()))
}

/// P3: two loads that start to wait for each other at the same moment do not both wait.
#[test]
fn two_close_a_cycle() {
    run_model(Two, || {
        let [a, b] = wait_nodes();
        let other = spawn({
            let (a, b) = (a.clone(), b.clone());
            move || b.wait_for(&a)
        });
        let mine = a.wait_for(&b);
        let other = other.join().unwrap();
        assert!(
            mine.is_none() || other.is_none(),
            "two loads wait for each other"
        );
    });
}

/// P3: the same for a cycle of three.
#[test]
fn three_close_a_cycle() {
    run_model(Three, || {
        let [a, b, c] = wait_nodes();
        let others = [(&a, &b), (&b, &c)].map(|(from, to)| {
            let (from, to) = (from.clone(), to.clone());
            spawn(move || from.wait_for(&to))
        });
        let mine = c.wait_for(&a);
        let others = others.map(|other| other.join().unwrap());
        let waiting = others.iter().chain([&mine]).flatten().count();
        assert!(waiting < 3, "three loads wait for one another");
    });
}

/// P3: a wait that is over removes its own edge, and not the edge of another part of the same load.
#[test]
fn the_end_of_a_wait_against_a_cycle() {
    run_model(Two, || {
        let [a, b] = wait_nodes();
        let edges = [(); 2].map(|()| a.wait_for(&b));
        let [over, lasts] = edges.map(|edge| edge.expect("nothing waits for this load"));
        let other = spawn(move || drop(over));
        assert!(b.wait_for(&a).is_none(), "two loads wait for each other");
        other.join().unwrap();
        drop(lasts);
        assert!(b.wait_for(&a).is_some(), "an edge outlived its wait");
    });
}
