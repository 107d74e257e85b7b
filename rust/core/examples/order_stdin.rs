//! Orders graphs read from stdin, one a line: rows of dependencies separated by `;`, ids by `,`. Prints a line of
//! positions for each.
#![allow(clippy::print_stdout)]

use std::io::{BufRead, Write};

use eagleray_core::graph::Csr;
use eagleray_core::order::order;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let mut graph = Csr::new();
        for row in line?.split(';') {
            graph.push_row(row.split(',').filter_map(|id| id.parse().ok()));
        }
        let positions: Vec<String> = order(&graph)?.iter().map(u32::to_string).collect();
        writeln!(out, "{}", positions.join(","))?;
    }
    Ok(())
}
