//! User priority within a graph: what is wanted sooner, and what that needs, comes first in the order.

use eagleray_core::graph::Csr;

/// The order with tasks of higher priority first; among equals it stays as it is. A task is at least as urgent as any
/// that reads its result, so the order stays topological. Row `i` of `inputs` are those of task `i`; numbers from the
/// count of tasks on are objects from outside.
pub(super) fn ordered(inputs: &Csr, position: Vec<u32>, mut priority: Vec<i32>) -> Vec<u32> {
    if priority.windows(2).all(|pair| pair[0] == pair[1]) {
        return position;
    }
    let mut at: Vec<u32> = vec![0; position.len()];
    for (task, &position) in position.iter().enumerate() {
        at[position as usize] = task as u32;
    }
    for &task in at.iter().rev() {
        for &input in inputs.row(task) {
            if (input as usize) < priority.len() {
                priority[input as usize] = priority[input as usize].max(priority[task as usize]);
            }
        }
    }
    // The sort is stable.
    at.sort_by_key(|&task| std::cmp::Reverse(priority[task as usize]));
    let mut position = position;
    for (place, &task) in at.iter().enumerate() {
        position[task as usize] = place as u32;
    }
    position
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(rows: &[&[u32]]) -> Csr {
        let mut inputs = Csr::new();
        for row in rows {
            inputs.push_row(row.iter().copied());
        }
        inputs
    }

    #[test]
    fn equal_priorities_change_nothing() {
        let inputs = graph(&[&[], &[0], &[]]);
        assert_eq!(ordered(&inputs, vec![1, 2, 0], vec![5, 5, 5]), [1, 2, 0]);
    }

    #[test]
    fn what_is_urgent_comes_first_with_all_that_it_needs() {
        // 0 → 1, 2 → 3, and 3 reads an object from outside.
        let inputs = graph(&[&[], &[0], &[], &[2, 4]]);
        assert_eq!(ordered(&inputs, vec![0, 1, 2, 3], vec![0, 0, -1, 7]), [2, 3, 0, 1]);
    }
}
