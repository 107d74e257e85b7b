//! `order`: every order is valid and always the same, cycles are named, and known graphs get the order they should.

use eagleray_core::graph::Csr;
use eagleray_core::order::{Cycle, order};
use proptest::prelude::*;

fn graph(rows: &[Vec<u32>]) -> Csr {
    let mut csr = Csr::new();
    for row in rows {
        csr.push_row(row.iter().copied());
    }
    csr
}

fn rows(tasks: u32, row: impl FnMut(u32) -> Vec<u32>) -> Csr {
    graph(&(0..tasks).map(row).collect::<Vec<_>>())
}

/// The tasks in the order in which they run.
///
/// # Panics
///
/// If `positions` is no permutation.
fn run_order(positions: &[u32]) -> Vec<u32> {
    let mut tasks = vec![u32::MAX; positions.len()];
    for (task, &position) in positions.iter().enumerate() {
        let place = &mut tasks[position as usize];
        assert_eq!(*place, u32::MAX, "two tasks at {position}");
        *place = task as u32;
    }
    tasks
}

fn assert_valid(inputs: &Csr, positions: &[u32]) {
    assert_eq!(positions.len(), inputs.len());
    for task in run_order(positions) {
        for &input in inputs.row(task) {
            if (input as usize) < inputs.len() {
                assert!(positions[input as usize] < positions[task as usize], "{task} runs before {input}");
            }
        }
    }
}

/// How many results are live at once at most, each until its last dependent ran.
fn peak(inputs: &Csr, positions: &[u32]) -> usize {
    let mut uses = vec![0; inputs.len()];
    inputs.items().iter().for_each(|&input| uses[input as usize] += 1);
    let (mut live, mut peak) = (0, 0);
    for task in run_order(positions) {
        live += 1;
        peak = peak.max(live);
        live -= usize::from(uses[task as usize] == 0);
        for &input in inputs.row(task) {
            uses[input as usize] -= 1;
            live -= usize::from(uses[input as usize] == 0);
        }
    }
    peak
}

#[track_caller]
fn valid_peak(inputs: &Csr) -> usize {
    let positions = order(inputs).expect("the graph is acyclic");
    assert_valid(inputs, &positions);
    peak(inputs, &positions)
}

/// The numbers of `range`, in an order that depends on nothing else but has no visible rule.
fn mixed(tasks: u32) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..tasks).collect();
    ids.sort_by_key(|&id| id.wrapping_add(1).wrapping_mul(0x9E37_79B9));
    ids
}

/// `inputs` with task `i` renamed to `names[i]`.
fn renamed(inputs: &Csr, names: &[u32]) -> Csr {
    let mut renamed = vec![vec![]; inputs.len()];
    for (task, &name) in names.iter().enumerate() {
        renamed[name as usize] = inputs.row(task as u32).iter().map(|&input| names[input as usize]).collect();
    }
    graph(&renamed)
}

prop_compose! {
    /// Acyclic graphs in which ids say nothing about the order, some with inputs that no task makes.
    fn acyclic(most: usize)(tasks in 0..most)(
        rows in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..5), tasks),
        externals in prop::collection::vec(prop::option::weighted(0.1, 0..u32::MAX - tasks as u32), tasks),
        names in Just((0..tasks as u32).collect::<Vec<_>>()).prop_shuffle(),
        reach in prop::sample::select(vec![3usize, 30, 300]),
    ) -> Csr {
        let mut named = vec![vec![]; rows.len()];
        for (task, row) in rows.iter().enumerate() {
            let from = task.saturating_sub(reach);
            let mut inputs: Vec<u32> =
                row.iter().filter(|_| task > 0).map(|index| names[from + index.index(task - from)]).collect();
            inputs.sort_unstable();
            inputs.dedup();
            inputs.extend(externals[task].map(|external| external + rows.len() as u32));
            named[names[task] as usize] = inputs;
        }
        graph(&named)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_order_is_valid_and_always_the_same(inputs in acyclic(200)) {
        let positions = order(&inputs).unwrap();
        assert_valid(&inputs, &positions);
        prop_assert_eq!(order(&inputs).unwrap(), positions);
    }

    #[test]
    fn external_inputs_change_nothing(inputs in acyclic(60)) {
        let tasks = inputs.len() as u32;
        let inner = rows(tasks, |task| inputs.row(task).iter().copied().filter(|&input| input < tasks).collect());
        prop_assert_eq!(order(&inputs).unwrap(), order(&inner).unwrap());
    }

    #[test]
    fn a_cycle_is_named(inputs in acyclic(60), ends in any::<[prop::sample::Index; 2]>()) {
        prop_assume!(!inputs.is_empty());
        let [from, to] = ends.map(|end| end.index(inputs.len()) as u32);
        let mut closed: Vec<Vec<u32>> = (0..inputs.len() as u32).map(|task| inputs.row(task).to_vec()).collect();
        if !closed[from as usize].contains(&to) {
            closed[from as usize].push(to);
        }
        let closed = graph(&closed);
        match order(&closed) {
            Ok(positions) => assert_valid(&closed, &positions),
            Err(Cycle { nodes }) => {
                for (i, &node) in nodes.iter().enumerate() {
                    let next = nodes[(i + 1) % nodes.len()];
                    prop_assert!(closed.row(node).contains(&next), "{node} does not depend on {next}");
                }
                prop_assert!(nodes.contains(&from) && nodes.contains(&to));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    /// Above the size up to which several orders are compared.
    #[test]
    fn orders_of_large_graphs_are_valid(inputs in acyclic(5000)) {
        assert_valid(&inputs, &order(&inputs).unwrap());
    }
}

#[test]
fn small_known_graphs() {
    assert_eq!(order(&Csr::new()), Ok(vec![]));
    assert_eq!(order(&Csr::default()), Ok(vec![]));
    assert_eq!(order(&graph(&[vec![]])), Ok(vec![0]));
    // Ids do not say what comes first: 2 makes what 0 needs, 0 what 1 needs.
    assert_eq!(order(&graph(&[vec![2], vec![0], vec![]])), Ok(vec![1, 2, 0]));
    // Two chains of two and their sum: one chain is finished before the other begins.
    assert_eq!(valid_peak(&graph(&[vec![], vec![], vec![0], vec![1], vec![2, 3]])), 3);
}

#[test]
fn only_externals() {
    let inputs = graph(&[vec![2], vec![0, u32::MAX]]);
    assert_eq!(order(&inputs), Ok(vec![0, 1]));
}

#[test]
fn cycles_are_errors() {
    assert_eq!(order(&graph(&[vec![0]])), Err(Cycle { nodes: vec![0] }));
    // No output at all, and an output that needs the cycle.
    for row in [vec![], vec![1]] {
        let Err(Cycle { mut nodes }) = order(&graph(&[row, vec![3], vec![1], vec![2]])) else {
            panic!("the order of a cycle");
        };
        nodes.sort_unstable();
        assert_eq!(nodes, [1, 2, 3]);
    }
    let text = Cycle { nodes: vec![1, 2] }.to_string();
    assert_eq!(text, "the tasks [1, 2] depend on each other in a cycle");
}

#[test]
fn deep_graphs_need_no_stack() {
    const DEPTH: u32 = 300_000;
    let chain = rows(DEPTH, |i| i.checked_sub(1).into_iter().collect());
    let ladder = rows(DEPTH, |i| (i.saturating_sub(2)..i).collect());
    let circle = rows(DEPTH, |i| vec![(i + 1) % DEPTH]);
    let small_stack = std::thread::Builder::new().stack_size(64 * 1024);
    let (chain_peak, ladder_peak, circle_len) = small_stack
        .spawn(move || {
            let circle_len = order(&circle).map_err(|cycle| cycle.nodes.len());
            (valid_peak(&chain), valid_peak(&ladder), circle_len)
        })
        .unwrap()
        .join()
        .unwrap();
    assert_eq!((chain_peak, ladder_peak), (2, 3));
    assert_eq!(circle_len, Err(DEPTH as usize));
}

/// Both below and above the size up to which several orders are compared.
const WIDTHS: [u32; 2] = [100, 20_000];

#[test]
fn wide_graphs() {
    for width in WIDTHS {
        assert_eq!(valid_peak(&rows(width, |_| vec![])), 1);
        assert_eq!(valid_peak(&rows(width, |i| if i == 0 { vec![] } else { vec![0] })), 2);
        assert_eq!(valid_peak(&rows(width, |i| if i < width - 1 { vec![] } else { (0..i).collect() })), width as usize);
        // Many chains run one after the other.
        assert_eq!(valid_peak(&rows(3 * width, |i| i.checked_sub(width).into_iter().collect())), 2);
    }
}

#[test]
fn trees_are_reduced_as_they_grow() {
    for depth in [6, 14] {
        let mut tree: Vec<Vec<u32>> = (0..1 << depth).map(|_| vec![]).collect();
        let mut below = 0;
        while below + 1 < tree.len() {
            tree.push(vec![below as u32, below as u32 + 1]);
            below += 2;
        }
        // On the way up one finished result waits at each level.
        assert_eq!(valid_peak(&graph(&tree)), depth + 2);
        let names = mixed(tree.len() as u32);
        assert_eq!(valid_peak(&renamed(&graph(&tree), &names)), depth + 2);
    }
}

#[test]
fn a_cumulative_sum_keeps_one_result() {
    for width in WIDTHS {
        // Even: blocks. Odd: the sum of the block before and of the sum before that.
        let sums = rows(2 * width, |i| match i {
            i if i % 2 == 0 => vec![],
            1 => vec![0],
            i => vec![i - 2, i - 1],
        });
        assert!(valid_peak(&sums) <= 3);
    }
}

/// Sliding windows whose ids are mixed: only the edges tell what is next to what.
#[test]
fn windows_are_found_without_help_from_ids() {
    let width = 40;
    let windows = rows(2 * width, |i| {
        if i < width { vec![] } else { ((i - width).saturating_sub(1)..(i - width + 2).min(width)).collect() }
    });
    assert!(valid_peak(&renamed(&windows, &mixed(2 * width))) <= 5);
}
