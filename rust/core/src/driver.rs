//! The driver role: numbers for graphs, objects and questions, and the count of uses of every object ref.
//!
//! The same in the user's program and in a worker that computes from inside a task. References are counted here; the
//! head only hears of first and last uses, in one ordered stream with everything else.

use alloc::vec::Vec;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::ids::{GraphId, ObjectId, PeerId};

/// A first or last use to tell the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uses {
    /// First uses.
    Hold(Vec<ObjectId>),
    /// Last uses.
    Release(Vec<ObjectId>),
}

/// The driver role. See the module.
#[derive(Debug)]
pub struct Driver {
    peer: PeerId,
    graphs: u32,
    puts: u32,
    literals: u32,
    tokens: u64,
    uses: HashMap<ObjectId, u32, FxBuildHasher>,
    untold: Vec<Uses>,
}

impl Driver {
    /// The role of `peer`, which holds nothing yet.
    pub fn new(peer: PeerId) -> Self {
        Self {
            peer,
            graphs: 0,
            puts: 0,
            literals: ObjectId::LITERALS,
            tokens: 0,
            uses: HashMap::default(),
            untold: Vec::new(),
        }
    }

    /// Who it is.
    pub const fn peer(&self) -> PeerId {
        self.peer
    }

    /// A number for a graph.
    pub fn next_graph(&mut self) -> GraphId {
        self.graphs += 1;
        GraphId { peer: self.peer, seq: self.graphs }
    }

    /// A number for an object to be put; it is held from then on, as the head knows by itself.
    pub fn next_put(&mut self) -> ObjectId {
        let object = ObjectId { graph: GraphId::puts(self.peer), index: self.puts };
        self.puts += 1;
        self.uses.insert(object, 1);
        object
    }

    /// The same for an object that is put for a graph.
    pub fn next_literal(&mut self) -> ObjectId {
        let object = ObjectId { graph: GraphId::puts(self.peer), index: self.literals };
        self.literals += 1;
        self.uses.insert(object, 1);
        object
    }

    /// How many uses an object has here.
    pub fn count(&self, object: ObjectId) -> u32 {
        self.uses.get(&object).copied().unwrap_or(0)
    }

    /// A number for a question.
    pub fn next_token(&mut self) -> u64 {
        self.tokens += 1;
        self.tokens
    }

    /// The outputs of a submitted graph are held, as the head knows by itself.
    pub fn submitted(&mut self, graph: GraphId, outputs: &[u32]) {
        for &index in outputs {
            self.uses.insert(ObjectId { graph, index }, 1);
        }
    }

    /// One use more.
    pub fn hold(&mut self, object: ObjectId) {
        let count = self.uses.entry(object).or_insert(0);
        *count += 1;
        if *count == 1 {
            match self.untold.last_mut() {
                Some(Uses::Hold(objects)) => objects.push(object),
                _ => self.untold.push(Uses::Hold(Vec::from([object]))),
            }
        }
    }

    /// One use more, which the head knows of by itself. It counts first uses only: of a further one it is told to forget
    /// what it counted.
    pub fn adopt(&mut self, object: ObjectId) {
        let count = self.uses.entry(object).or_insert(0);
        *count += 1;
        if *count > 1 {
            self.untell(object);
        }
    }

    fn untell(&mut self, object: ObjectId) {
        match self.untold.last_mut() {
            Some(Uses::Release(objects)) => objects.push(object),
            _ => self.untold.push(Uses::Release(Vec::from([object]))),
        }
    }

    /// One use less. True if it was the last.
    pub fn release(&mut self, object: ObjectId) -> bool {
        let Some(count) = self.uses.get_mut(&object) else { return false };
        *count -= 1;
        let last = *count == 0;
        if last {
            self.uses.remove(&object);
            self.untell(object);
        }
        last
    }

    /// Whether an object is in use.
    pub fn uses(&self, object: ObjectId) -> bool {
        self.uses.contains_key(&object)
    }

    /// What the head has not been told, in order. To be sent before anything else that follows.
    pub fn take_uses(&mut self) -> Vec<Uses> {
        core::mem::take(&mut self.untold)
    }

    /// How many objects are held.
    pub fn held(&self) -> usize {
        self.uses.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_first_and_last_uses_are_told() {
        let mut driver = Driver::new(PeerId::USER);
        let put = driver.next_put();
        driver.hold(put);
        driver.release(put);
        assert_eq!(driver.take_uses(), []);
        driver.release(put);
        assert_eq!(driver.take_uses(), [Uses::Release(Vec::from([put]))]);
        assert_eq!(driver.held(), 0);
    }

    #[test]
    fn a_use_that_the_head_made_is_counted_once() {
        let mut driver = Driver::new(PeerId::USER);
        let actor = ObjectId { graph: GraphId { peer: PeerId::USER, seq: 7 }, index: 0 };
        driver.adopt(actor);
        assert_eq!(driver.take_uses(), []);
        driver.adopt(actor);
        assert_eq!(driver.take_uses(), [Uses::Release(Vec::from([actor]))], "the head has counted twice");
        driver.release(actor);
        assert_eq!(driver.take_uses(), []);
        driver.release(actor);
        assert_eq!(driver.take_uses(), [Uses::Release(Vec::from([actor]))]);
    }

    #[test]
    fn the_order_of_uses_is_kept() {
        let mut driver = Driver::new(PeerId::USER);
        let graph = driver.next_graph();
        let [a, b] = [0, 1].map(|index| ObjectId { graph, index });
        driver.submitted(graph, &[0]);
        driver.hold(b);
        driver.release(a);
        driver.release(b);
        assert_eq!(driver.take_uses(), [Uses::Hold(Vec::from([b])), Uses::Release(Vec::from([a, b]))]);
    }
}
