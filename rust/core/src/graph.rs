//! A graph's edges as compressed sparse rows.

use alloc::vec;
use alloc::vec::Vec;

/// Rows of `u32` of different lengths, in two vectors: `items[offsets[i]..offsets[i + 1]]` is row `i`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Csr {
    offsets: Vec<u32>,
    items: Vec<u32>,
}

impl Csr {
    /// No rows.
    pub fn new() -> Self {
        Self { offsets: vec![0], items: Vec::new() }
    }

    /// No rows, with room for `rows` of them and `items` in all.
    pub fn with_capacity(rows: usize, items: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self { offsets, items: Vec::with_capacity(items) }
    }

    /// Appends a row.
    pub fn push_row(&mut self, row: impl IntoIterator<Item = u32>) {
        if self.offsets.is_empty() {
            self.offsets.push(0);
        }
        self.items.extend(row);
        self.offsets.push(self.items.len() as u32);
    }

    /// From its two vectors; `None` if they do not fit together.
    pub fn from_parts(offsets: Vec<u32>, items: Vec<u32>) -> Option<Self> {
        let ok = offsets.first() == Some(&0)
            && offsets.is_sorted()
            && offsets.last().copied() == u32::try_from(items.len()).ok();
        ok.then_some(Self { offsets, items })
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Row `i`. Panics if there is none.
    #[inline]
    pub fn row(&self, i: u32) -> &[u32] {
        let i = i as usize;
        &self.items[self.offsets[i] as usize..self.offsets[i + 1] as usize]
    }

    /// All rows' items, one row after the other.
    pub fn items(&self) -> &[u32] {
        &self.items
    }

    /// Where each row begins in [`Csr::items`], and at the end their number.
    pub fn offsets(&self) -> &[u32] {
        &self.offsets
    }

    /// The edges turned round: row `j` of the result lists, in ascending order, each `i < rows` whose row names `j`.
    /// Items `>= rows` are left out: they are no rows of this graph.
    #[must_use]
    pub fn transposed(&self) -> Self {
        let rows = self.len();
        let mut offsets = vec![0u32; rows + 1];
        for &j in &self.items {
            if (j as usize) < rows {
                offsets[j as usize + 1] += 1;
            }
        }
        for i in 0..rows {
            offsets[i + 1] += offsets[i];
        }
        let mut next = offsets.clone();
        let mut items = vec![0u32; offsets[rows] as usize];
        for i in 0..rows as u32 {
            for &j in self.row(i) {
                if (j as usize) < rows {
                    items[next[j as usize] as usize] = i;
                    next[j as usize] += 1;
                }
            }
        }
        Self { offsets, items }
    }
}
