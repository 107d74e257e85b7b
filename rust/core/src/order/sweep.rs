//! Numbers for tasks such that neighbours in the graph are near each other, whatever ids they have.

use alloc::vec;
use alloc::vec::Vec;

use crate::graph::Csr;

const NEW: u32 = u32::MAX;
const SEEN: u32 = u32::MAX - 1;

/// The number of each task: breadth first along dependencies and dependents alike, from one end of each connected part.
///
/// That is how unknowns are numbered to make the band of a matrix narrow. It finds the line behind sliding windows
/// and grids. The end is what is found last when starting at any output.
pub(super) fn numbers(deps: &Csr, dependents: &Csr) -> Vec<u32> {
    let mut number = vec![NEW; deps.len()];
    let mut part: Vec<u32> = Vec::new();
    let mut numbered = 0;
    for output in (0..deps.len() as u32).filter(|&task| dependents.row(task).is_empty()) {
        if number[output as usize] != NEW {
            continue;
        }
        part.clear();
        number[output as usize] = SEEN;
        part.push(output);
        spread(deps, dependents, &mut part, |task| core::mem::replace(&mut number[task as usize], SEEN) == NEW);
        let end = part[part.len() - 1];
        part.clear();
        let mut give = |task: u32| {
            let new = number[task as usize] == SEEN;
            if new {
                number[task as usize] = numbered;
                numbered += 1;
            }
            new
        };
        give(end);
        part.push(end);
        spread(deps, dependents, &mut part, give);
    }
    number
}

/// Appends to `part` the neighbours of all in it, as far as `is_new` says so, until there are no more.
fn spread(deps: &Csr, dependents: &Csr, part: &mut Vec<u32>, mut is_new: impl FnMut(u32) -> bool) {
    let mut looked_at = 0;
    while let Some(&task) = part.get(looked_at) {
        looked_at += 1;
        let neighbours = deps.row(task).iter().chain(dependents.row(task));
        part.extend(neighbours.copied().filter(|&other| is_new(other)));
    }
}
