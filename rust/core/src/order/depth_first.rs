//! Any valid order, or the proof that there is none.

use alloc::vec;
use alloc::vec::Vec;

use super::Cycle;
use crate::graph::Csr;

/// All tasks, dependencies before dependents, and those that belong together close to each other.
///
/// Depth first, so that neighbours in the graph get neighbouring numbers: [`spans`](super::spans) are short because of it.
pub(super) fn topological(deps: &Csr) -> Result<Vec<u32>, Cycle> {
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
                    return Err(Cycle { nodes: stack.split_off(from) });
                }
            }
        }
    }
    Ok(found)
}
