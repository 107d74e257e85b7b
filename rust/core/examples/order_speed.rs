//! How long ordering takes, in microseconds a task, on several kinds of graph.
//!
//! `cargo run --release -p eagleray-core --example order_speed [file]`. The file holds more graphs, one a line: a name, a
//! tab, and the rows of dependencies, separated by `;`, ids by `,`.
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use eagleray_core::graph::Csr;
use eagleray_core::order::order;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut graphs = vec![
        ("11,450 inc, as many add in a binary tree", inc_add(11_450)),
        ("one chain of 5000", rows(5000, |i| if i == 0 { vec![] } else { vec![i - 1] })),
        ("independent", rows(100_000, |_| vec![])),
        ("pairs: 50k roots, 50k inc", rows(100_000, |i| if i < 50_000 { vec![] } else { vec![i - 50_000] })),
        ("50k inc, 50k add in a binary tree", inc_add(50_000)),
        ("one chain", rows(100_000, |i| if i == 0 { vec![] } else { vec![i - 1] })),
        ("100 chains", rows(100_000, |i| if i < 100 { vec![] } else { vec![i - 100] })),
        ("one root, 100k leaves", rows(100_000, |i| if i == 0 { vec![] } else { vec![0] })),
        ("100k roots, one leaf", rows(100_000, |i| if i < 99_999 { vec![] } else { (0..99_999).collect() })),
        (
            "cumulative sum",
            rows(100_000, |i| match i {
                0 | 1 => vec![],
                i if i % 2 == 0 => vec![i - 1, i.saturating_sub(2)],
                _ => vec![],
            }),
        ),
        (
            "stencil 1000 wide, 100 steps",
            rows(100_000, |i| {
                let column = i % 1000;
                let before = if i < 1000 { 0..0 } else { column.saturating_sub(1)..(column + 2).min(1000) };
                before.map(|column| i - i % 1000 - 1000 + column).collect()
            }),
        ),
        ("matmul 36 x 36 blocks", matmul(36)),
        ("shuffle 220 x 220", shuffle(220)),
        ("shuffle in stages: 4096 wide, 3 of 8", staged(4096, 8, 3)),
        ("anomaly 30k blocks", anomaly(300, 100)),
        ("random, 1 to 3 of the last 1000", random(100_000, 1000)),
        ("random, 1 to 3 of all", random(100_000, 100_000)),
        ("caterpillar of splits", rows(100_000, |i| if i == 0 { vec![] } else { vec![(i - 1) & !1] })),
    ];
    let read = std::env::args().nth(1).map(std::fs::read_to_string).transpose()?.unwrap_or_default();
    for line in read.lines() {
        let (name, text) = line.split_once('\t').unwrap_or(("?", line));
        let mut csr = Csr::new();
        for row in text.split(';') {
            csr.push_row(row.split(',').filter(|id| !id.is_empty()).filter_map(|id| id.parse().ok()));
        }
        graphs.push((name, csr));
    }
    println!("{:40} {:>8} {:>8} {:>9} {:>6}", "graph", "tasks", "edges", "us/task", "peak");
    for (name, graph) in &graphs {
        let runs = (200_000 / graph.len().max(1)).clamp(3, 1000);
        let mut best = Duration::MAX;
        let mut priority = vec![];
        for _ in 0..runs {
            let start = Instant::now();
            priority = order(graph)?;
            best = best.min(start.elapsed());
        }
        let us = best.as_secs_f64() * 1e6 / graph.len() as f64;
        let peak = peak(graph, &priority);
        println!("{name:40} {:>8} {:>8} {us:>9.3} {peak:>6}", graph.len(), graph.items().len());
    }
    Ok(())
}

fn rows(tasks: u32, row: impl Fn(u32) -> Vec<u32>) -> Csr {
    let mut csr = Csr::new();
    (0..tasks).for_each(|i| csr.push_row(row(i)));
    csr
}

fn inc_add(width: u32) -> Csr {
    let mut csr = rows(width, |_| vec![]);
    let mut level: Vec<u32> = (0..width).collect();
    while level.len() > 1 {
        let pairs: Vec<Vec<u32>> = level.chunks(2).map(<[u32]>::to_vec).collect();
        level.clear();
        for pair in pairs {
            if let &[only] = &pair[..] {
                level.push(only);
            } else {
                level.push(csr.len() as u32);
                csr.push_row(pair);
            }
        }
    }
    csr
}

fn matmul(n: u32) -> Csr {
    let mut csr = rows(2 * n * n, |_| vec![]);
    for i in 0..n {
        for j in 0..n {
            let first = csr.len() as u32;
            (0..n).for_each(|k| csr.push_row([i * n + k, n * n + k * n + j]));
            csr.push_row(first..first + n);
        }
    }
    csr
}

fn shuffle(n: u32) -> Csr {
    let mut csr = rows(n, |_| vec![]);
    (0..n * n).for_each(|i| csr.push_row([i / n]));
    (0..n).for_each(|j| csr.push_row((0..n).map(|i| n + i * n + j)));
    csr
}

fn staged(width: u32, branch: u32, stages: u32) -> Csr {
    let mut csr = rows(width, |_| vec![]);
    let mut below = 0;
    for stage in 0..stages {
        let stride = branch.pow(stage);
        let splits = csr.len() as u32;
        (0..width * branch).for_each(|i| csr.push_row([below + i / branch]));
        below = csr.len() as u32;
        for i in 0..width {
            let digit = i / stride % branch;
            csr.push_row((0..branch).map(|j| splits + (i - digit * stride + j * stride) * branch + digit));
        }
    }
    csr
}

fn anomaly(rows_of_blocks: u32, columns: u32) -> Csr {
    let blocks = rows_of_blocks * columns;
    let mut csr = rows(blocks, |_| vec![]);
    let partial = csr.len() as u32;
    (0..blocks).for_each(|i| csr.push_row([i]));
    let means = csr.len() as u32;
    (0..columns).for_each(|j| csr.push_row((0..rows_of_blocks).map(|i| partial + i * columns + j)));
    (0..blocks).for_each(|i| csr.push_row([i, means + i % columns]));
    csr
}

fn random(tasks: u32, reach: u32) -> Csr {
    let mut state = 1u64;
    let mut next = move |below: u32| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (((state >> 33) * u64::from(below)) >> 31) as u32
    };
    let mut csr = Csr::new();
    for i in 0..tasks {
        let from = i.saturating_sub(reach);
        let mut row: Vec<u32> = if i == 0 { vec![] } else { (0..=next(3)).map(|_| from + next(i - from)).collect() };
        row.sort_unstable();
        row.dedup();
        csr.push_row(row);
    }
    csr
}

/// How many results are alive at once at most, each until its last dependent ran.
fn peak(deps: &Csr, priority: &[u32]) -> u32 {
    let mut waiting = vec![0u32; deps.len()];
    deps.items().iter().for_each(|&dep| waiting[dep as usize] += 1);
    let mut by_priority = vec![0u32; deps.len()];
    priority.iter().enumerate().for_each(|(task, &place)| by_priority[place as usize] = task as u32);
    let (mut alive, mut most) = (0, 0);
    for task in by_priority {
        alive += 1;
        most = most.max(alive);
        alive -= u32::from(waiting[task as usize] == 0);
        for &dep in deps.row(task) {
            waiting[dep as usize] -= 1;
            alive -= u32::from(waiting[dep as usize] == 0);
        }
    }
    most
}
