//! Which output to aim at next: the one that needs the fewest roots that have not run.

use alloc::vec;
use alloc::vec::Vec;

use super::spans::Span;

/// The outputs that still need roots, by how many.
///
/// A tree of minima over the outputs by number, so that a root that runs is taken off all outputs that need it, span by
/// span, in logarithmic time: a root that all outputs need would else cost as much as there are outputs.
pub(super) struct Targets {
    /// Of each node of the tree the least score below it, without what the nodes above it add. The leaves are the second
    /// half; node 1 is the top.
    least: Vec<i64>,
    /// What each node adds to all scores below it.
    added: Vec<i64>,
    leaves: usize,
}

/// A score is `roots left << 32 | out of reach << 31 | place among the outputs`: the order in which targets are taken.
const ROOT: i64 = 1 << 32;
const OUT_OF_REACH: i64 = 1 << 31;
/// Added to an output that is no candidate. Scores with it stay above [`CANDIDATE`], whatever is taken off.
const OUT: i64 = ROOT << 29;
/// Scores of candidates are below.
const CANDIDATE: i64 = OUT / 2;

impl Targets {
    /// `places[number]` says where an output comes among all of them; `needed_by` holds for each root the spans of
    /// outputs that need it. An output nobody counts a root for is no candidate.
    pub(super) fn new<'a>(places: &[u32], needed_by: impl Iterator<Item = &'a [Span]>) -> Self {
        let leaves = places.len().next_power_of_two();
        let mut change = vec![0i64; places.len() + 1];
        for span in needed_by.flatten() {
            change[span.first as usize] += 1;
            change[span.end as usize] -= 1;
        }
        let mut least = vec![OUT; 2 * leaves];
        let mut roots = 0;
        for (number, &place) in places.iter().enumerate() {
            roots += change[number];
            let score = roots * ROOT + OUT_OF_REACH + i64::from(place);
            least[leaves + number] = if roots == 0 { OUT + score } else { score };
        }
        for node in (1..leaves).rev() {
            least[node] = least[2 * node].min(least[2 * node + 1]);
        }
        Self { least, added: vec![0; leaves], leaves }
    }

    /// The place of the best target: of those with the fewest roots left preferably one within reach, and of these the
    /// first. `None` if no output needs a root that has not run.
    pub(super) fn best(&self) -> Option<u32> {
        let score = self.least[1];
        (score < CANDIDATE).then_some((score & (OUT_OF_REACH - 1)) as u32)
    }

    /// A root has run that the outputs of these spans need.
    pub(super) fn root_ran(&mut self, spans: &[Span]) {
        for span in spans {
            self.add(span.first as usize, span.end as usize, -ROOT);
        }
        // What needs no more roots is free to run, and run or about to be.
        while self.least[1] < ROOT {
            let mut node = 1;
            while node < self.leaves {
                node = if self.least[2 * node] <= self.least[2 * node + 1] { 2 * node } else { 2 * node + 1 };
            }
            self.leave((node - self.leaves) as u32);
        }
    }

    /// A dependency of this output has run.
    pub(super) fn within_reach(&mut self, number: u32) {
        self.add(number as usize, number as usize + 1, -OUT_OF_REACH);
    }

    /// The output is no candidate any more. To say it twice does no harm.
    pub(super) fn leave(&mut self, number: u32) {
        if self.least[self.leaves + number as usize] < CANDIDATE {
            self.add(number as usize, number as usize + 1, OUT);
        }
    }

    /// Adds to the scores of the outputs `first..end`.
    fn add(&mut self, first: usize, end: usize, amount: i64) {
        let (mut low, mut high) = (first + self.leaves, end + self.leaves);
        let (lowest, highest) = (low, high - 1);
        while low < high {
            if low & 1 == 1 {
                self.add_below(low, amount);
                low += 1;
            }
            if high & 1 == 1 {
                high -= 1;
                self.add_below(high, amount);
            }
            low >>= 1;
            high >>= 1;
        }
        self.refresh_above(lowest);
        if highest != lowest {
            self.refresh_above(highest);
        }
    }

    fn add_below(&mut self, node: usize, amount: i64) {
        self.least[node] += amount;
        if node < self.leaves {
            self.added[node] += amount;
        }
    }

    fn refresh_above(&mut self, mut node: usize) {
        while node > 1 {
            node >>= 1;
            self.least[node] = self.least[2 * node].min(self.least[2 * node + 1]) + self.added[node];
        }
    }
}
