//! The order in which the tasks of a graph should run, so that few results are alive at a time.
//!
//! The rule is the one of `dask.order` (`dask/order.py` of dask 2026.8.0), on dense ids and flat vectors. It takes one
//! requested output after the other as *target*, walks back from it to what it needs, and on the way runs what frees
//! memory or is free to run. What decides between tasks is [`Rank`](rank); what decides between targets is how many
//! tasks without dependencies they still need, kept by [`targets`].
//!
//! Two things differ from Dask. Ties are broken by id, that is by the order of ingestion, where Dask falls back on the
//! text of the key and on the iteration order of its sets: here the same graph always gets the same order. And which
//! tasks reach which is kept as [`spans`] of neighbouring numbers with a bound on their count, where Dask keeps full
//! sets: that makes the whole linear in practice, at the price of estimates in very tangled, very large graphs. Neither
//! affects the validity of an order, only its quality.

use alloc::vec;
use alloc::vec::Vec;

use crate::graph::Csr;

mod paths;
mod rank;
mod spans;
mod targets;
mod walk;

/// The graph is not acyclic, so it has no order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tasks {tasks:?} depend on each other in a cycle")]
pub struct Cycle {
    /// The tasks of one cycle: each depends on the next one, and the last one on the first.
    pub tasks: Vec<u32>,
}

/// For each task its position in the order in which the tasks should run.
///
/// Row `i` of `deps` lists the tasks that task `i` depends on, each once. The result is a permutation of
/// `0..deps.len()` in which every task comes after its dependencies; it depends on nothing but `deps`.
///
/// # Panics
///
/// If a row names a task that has no row.
pub fn order(deps: &Csr) -> Result<Vec<u32>, Cycle> {
    order_with(deps, 0)
}
/// x
pub fn order_with(deps: &Csr, variant: u32) -> Result<Vec<u32>, Cycle> {
    let topological = topological(deps)?;
    let ranked = rank::Ranked::new(deps, &topological, variant);
    let run_order = walk::Walk::new(&ranked).run(variant / 8);
    debug_assert_eq!(run_order.len(), deps.len());
    let mut priority = vec![0; deps.len()];
    for (position, &rank) in run_order.iter().enumerate() {
        priority[ranked.task_of[rank as usize] as usize] = position as u32;
    }
    Ok(priority)
}

/// The tasks of one cycle, each followed by one it depends on; `None` if the graph is acyclic.
///
/// # Panics
///
/// If a row names a task that has no row.
pub fn find_cycle(deps: &Csr) -> Option<Vec<u32>> {
    topological(deps).err().map(|cycle| cycle.tasks)
}

/// All tasks, dependencies before dependents, and those that belong together close to each other.
///
/// Depth first, so that neighbours in the graph get neighbouring numbers: [`spans`] are short because of it.
fn topological(deps: &Csr) -> Result<Vec<u32>, Cycle> {
    const NEW: u32 = 0;
    const LEFT: u32 = u32::MAX;
    let tasks = deps.len() as u32;
    let mut wanted = vec![false; tasks as usize];
    for &dep in deps.items() {
        wanted[dep as usize] = true;
    }
    // Of a task on the stack: how many of its dependencies were looked at, plus one.
    let mut state = vec![NEW; tasks as usize];
    let mut found = Vec::with_capacity(tasks as usize);
    let mut stack = Vec::new();
    let outputs = (0..tasks).filter(|&task| !wanted[task as usize]);
    // After the outputs whatever is left: only tasks of a cycle that no output needs.
    for start in outputs.chain(0..tasks) {
        if state[start as usize] != NEW {
            continue;
        }
        state[start as usize] = 1;
        stack.push(start);
        while let Some(&task) = stack.last() {
            let row = deps.row(task);
            let seen = state[task as usize] - 1;
            let Some(&dep) = row.get(seen as usize) else {
                state[task as usize] = LEFT;
                found.push(task);
                stack.pop();
                continue;
            };
            state[task as usize] += 1;
            match state[dep as usize] {
                NEW => {
                    state[dep as usize] = 1;
                    stack.push(dep);
                }
                LEFT => {}
                _ => {
                    let from = stack.iter().rposition(|&t| t == dep).unwrap_or(0);
                    return Err(Cycle { tasks: stack.split_off(from) });
                }
            }
        }
    }
    Ok(found)
}
