//! Orders graphs read from stdin, one a line: rows separated by `;`, ids by `,`.
#![allow(clippy::print_stdout, missing_docs)]
use eagleray_core::{graph::Csr, order::order_with};
use std::io::{BufRead, Write};
fn main() {
    let v: u32 = std::env::var("V").unwrap_or("0".into()).parse().unwrap();
    let out = std::io::stdout();
    let mut out = std::io::BufWriter::new(out.lock());
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let mut csr = Csr::new();
        for row in line.split(';') {
            csr.push_row(row.split(',').filter(|x| !x.is_empty()).map(|x| x.parse().unwrap()));
        }
        let p = order_with(&csr, v).unwrap();
        let s: Vec<String> = p.iter().map(|x| x.to_string()).collect();
        writeln!(out, "{}", s.join(",")).unwrap();
    }
}
