//! The order in which the tasks of a graph should run, so that few results are alive at a time.
//!
//! The rule is the one of `dask.order` (`dask/order.py` of dask 2026.8.0), on dense ids and flat vectors: the `walk`.
//! It takes one requested output after the other as *target*, goes back from it to what it needs, and on the way runs
//! what frees memory or is free to run. What decides between tasks is their `rank`; what decides between targets is
//! how many tasks without dependencies they still need, kept by `targets`.
//!
//! Four things differ from Dask. None affects the validity of an order, only its quality.
//!
//! * Ties are broken by id, that is by the order of ingestion, where Dask falls back on the text of the key and on the
//!   iteration order of its sets: here the same graph always gets the same order.
//! * Which tasks reach which is kept as `spans` of neighbouring numbers with a bound on their count, where Dask keeps
//!   full sets: that makes the whole linear in practice, at the price of estimates in very tangled, very large graphs.
//! * Outputs have no rule of their own (`walk::Outputs` says why).
//! * No single rule is good for every graph, and ties alone can double the peak. So of a graph of at most
//!   `COMPARED_UP_TO` tasks several orders are made, each is refined, and the best one is kept. That takes
//!   two to three microseconds a task, ten if the graph is a tangle; larger graphs get the walk as it is, at about half
//!   a microsecond a task.

use alloc::vec;
use alloc::vec::Vec;

use crate::graph::Csr;

mod depth_first;
mod paths;
mod rank;
mod refine;
mod spans;
mod sweep;
mod targets;
mod walk;

use refine::{Refiner, Sequence, positions};
use walk::{Outputs, Walk};

/// The largest graph of which several orders are compared.
const COMPARED_UP_TO: usize = 2000;

/// The graph is not acyclic, so it has no order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tasks {nodes:?} depend on each other in a cycle")]
pub struct Cycle {
    /// The tasks of one cycle: each depends on the next one, and the last one on the first.
    pub nodes: Vec<u32>,
}

/// For each task its position in the order in which the tasks should run.
///
/// Row `i` of `inputs` lists what task `i` depends on, each once. What is `>= inputs.len()` is not made by this graph and
/// is ignored. The result is a permutation of `0..inputs.len()` in which every task comes after its dependencies; it
/// depends on nothing but `inputs`.
///
/// # Errors
///
/// [`Cycle`] if some tasks depend on each other in a circle, so that none of them can be first.
pub fn order(inputs: &Csr) -> Result<Vec<u32>, Cycle> {
    let tasks = inputs.len() as u32;
    if inputs.items().iter().any(|&input| input >= tasks) {
        return order(&without_externals(inputs));
    }
    let topological = depth_first::topological(inputs)?;
    let dependents = inputs.transposed();
    let first = walked(inputs, &dependents, &topological, &vec![0; inputs.len()], Outputs::WhenFree);
    let run_order =
        if inputs.len() <= COMPARED_UP_TO { best_of_several(inputs, &dependents, topological, first) } else { first };
    debug_assert_eq!(run_order.len(), inputs.len());
    Ok(positions(&run_order))
}

/// Only what the graph itself makes.
fn without_externals(inputs: &Csr) -> Csr {
    let tasks = inputs.len() as u32;
    let mut inner = Csr::with_capacity(inputs.len(), inputs.items().len());
    for task in 0..tasks {
        inner.push_row(inputs.row(task).iter().copied().filter(|&input| input < tasks));
    }
    inner
}

/// The order of the walk. Of tasks that are equal in all else, the one with the higher tie ranks higher.
fn walked(inputs: &Csr, dependents: &Csr, topological: &[u32], ties: &[u32], outputs: Outputs) -> Vec<u32> {
    let ranked = rank::Ranked::new(inputs, dependents, topological, ties);
    let mut run_order = Walk::new(&ranked, outputs).run();
    for task in &mut run_order {
        *task = ranked.task_of[*task as usize];
    }
    run_order
}

/// The one with the lowest peak of: `first`, which is the order of the walk, the walk with ties by neighbourhood, depth
/// first, and by neighbourhood from either end; the first of equals.
fn best_of_several(inputs: &Csr, dependents: &Csr, topological: Vec<u32>, first: Vec<u32>) -> Vec<u32> {
    let refiner = Refiner::new(inputs, dependents);
    let mut best = refiner.refined(first);
    let mut compare = |make: &dyn Fn() -> Sequence| {
        if !refiner.is_optimal(&best) {
            let other = make();
            if other.peak < best.peak {
                best = other;
            }
        }
    };
    let swept = sweep::numbers(inputs, dependents);
    compare(&|| refiner.refined(walked(inputs, dependents, &topological, &swept, Outputs::AtOnce)));
    compare(&|| refiner.refined(topological.clone()));
    let mut neighbours = positions(&swept);
    compare(&|| refiner.refined(refiner.made_valid(&neighbours)));
    neighbours.reverse();
    compare(&|| refiner.refined(refiner.made_valid(&neighbours)));
    best.tasks
}
