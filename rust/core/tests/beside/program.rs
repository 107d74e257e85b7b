//! The program as a model: it calls, creates actors, puts, asks, cancels, kills and lets go at random.

use std::collections::{BTreeMap, BTreeSet};

use eagleray_core::graph::Csr;
use eagleray_core::head::HeadEvent;
use eagleray_core::ids::{GraphId, ObjectId, PeerId};
use eagleray_core::message::{ActorSpec, ClassSpec, Demand, FromDriver, GraphKind, GraphSpec, ToHead, WHOLE};

use crate::rng::Rng;
use crate::work::PLACE;
use crate::world::{Submitted, World};

pub(crate) struct User {
    pub(crate) steps: u32,
    next_graph: u32,
    next_put: u32,
    next_token: u64,
    pub(crate) holds: BTreeMap<ObjectId, u32>,
    pub(crate) questions: BTreeSet<u64>,
}

impl User {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        Self {
            steps: 5 + rng.below(40) as u32,
            next_graph: 1,
            next_put: 0,
            next_token: 1,
            holds: BTreeMap::new(),
            questions: BTreeSet::new(),
        }
    }
}

impl World {
    fn user_says(&mut self, message: ToHead) {
        self.tell(HeadEvent::Driver(FromDriver { peer: PeerId::USER, message }));
    }

    /// How many actors there were before this one.
    pub(crate) fn number_of(&self, actor: ObjectId) -> usize {
        self.actors.iter().position(|other| *other == actor).expect("it is an actor")
    }

    fn held(&self) -> Vec<ObjectId> {
        self.user.holds.keys().copied().collect()
    }

    pub(crate) fn user_step(&mut self) {
        self.user.steps -= 1;
        let held = self.held();
        let some = self.rng.pick(&held).copied();
        match (self.rng.below(12), some) {
            (0 | 1, _) => _ = self.submit(GraphKind::Independent, None),
            (2, _) => self.create(),
            (3..=5, _) => {
                let actors: Vec<ObjectId> = held.iter().copied().filter(|held| self.actors.contains(held)).collect();
                match self.rng.pick(&actors).copied() {
                    Some(actor) => _ = self.submit(GraphKind::Calls, Some(actor)),
                    None => self.create(),
                }
            }
            (6, _) => {
                let object = ObjectId { graph: GraphId::puts(PeerId::USER), index: self.user.next_put };
                self.user.next_put += 1;
                let contained = self.some_of(&held, 30);
                self.user.holds.insert(object, 1);
                self.contents.insert(object, contained.clone());
                self.user_says(ToHead::Put { object, place: PLACE, contained });
            }
            (7, Some(_)) => {
                let objects = self.some_of(&held, 40);
                let token = self.user.next_token;
                self.user.next_token += 1;
                self.user.questions.insert(token);
                let need = objects.len() as u32;
                let fail_fast = self.rng.percent(50);
                self.user_says(ToHead::Await { token, objects, need, fail_fast });
            }
            (8 | 9, Some(object)) => self.release(object),
            (10, Some(object)) if self.faults.cancels => {
                let (force, recursive) = (self.rng.percent(20), self.rng.percent(50));
                self.doomed.insert(object);
                self.user_says(ToHead::CancelTask { object, force, recursive });
            }
            (11, Some(actor)) if self.faults.cancels && self.actors.contains(&actor) => {
                let restart = self.rng.percent(50);
                self.user_says(ToHead::KillActor { actor, restart });
            }
            (_, Some(object)) => {
                *self.user.holds.get_mut(&object).expect("it is held") += 1;
                self.user_says(ToHead::Hold(vec![object]));
            }
            (_, None) => {}
        }
    }

    fn release(&mut self, object: ObjectId) {
        let count = self.user.holds.get_mut(&object).expect("it is held");
        *count -= 1;
        if *count == 0 {
            self.user.holds.remove(&object);
        }
        self.user_says(ToHead::Release(vec![object]));
    }

    /// Nothing goes on: what is held is let go. False if nothing is.
    pub(crate) fn user_ends(&mut self) -> bool {
        assert!(self.user.questions.is_empty(), "the program waits for {:?}", self.user.questions);
        let held = self.held();
        let Some(&object) = self.rng.pick(&held) else { return false };
        self.release(object);
        true
    }

    fn some_of(&mut self, objects: &[ObjectId], percent: u64) -> Vec<ObjectId> {
        objects.iter().copied().filter(|_| self.rng.percent(percent)).take(4).collect()
    }

    fn create(&mut self) {
        let max_restarts = self.rng.below(3) as u32;
        let spec = ActorSpec { name: None, detached: false, max_restarts, cpu: 0 };
        let id = self.submit(GraphKind::Actor(Box::new(spec)), None);
        self.actors.push(ObjectId { graph: id, index: 0 });
    }

    fn submit(&mut self, kind: GraphKind, actor: Option<ObjectId>) -> GraphId {
        let id = GraphId { peer: PeerId::USER, seq: self.user.next_graph };
        self.user.next_graph += 1;
        let held = self.held();
        let below = actor.map_or(self.actors.len(), |actor| self.number_of(actor));
        let spec = self.make_graph(id, kind, actor, &held, 2, below);
        for &index in &spec.outputs {
            self.user.holds.insert(ObjectId { graph: id, index }, 1);
        }
        let upto = spec.inputs.len() as u32;
        self.user_says(ToHead::Submit(Box::new(spec)));
        self.user_says(ToHead::Admit { graph: id, upto });
        id
    }

    /// A graph whose tasks read, and name, some of what its maker holds.
    pub(crate) fn make_graph(
        &mut self,
        id: GraphId,
        kind: GraphKind,
        actor: Option<ObjectId>,
        held: &[ObjectId],
        levels: u32,
        below: usize,
    ) -> GraphSpec {
        let makes = matches!(kind, GraphKind::Actor(_));
        let n = if makes { 1 } else { 1 + self.rng.below(3) as u32 };
        // An actor is not a value that tasks read.
        let values: Vec<ObjectId> = held.iter().copied().filter(|object| !self.actors.contains(object)).collect();
        let mut externals: Vec<ObjectId> = actor.into_iter().collect();
        if !makes {
            externals.extend(self.some_of(&values, 15));
        }
        // The first is a call that returns several values, the others take them.
        let parts = kind == GraphKind::Independent && n > 1 && self.rng.percent(30);
        let (mut inputs, mut rows) = (Csr::new(), Vec::new());
        for task in 0..n {
            if parts && task > 0 {
                rows.push(vec![ObjectId { graph: id, index: 0 }]);
                inputs.push_row([0]);
                continue;
            }
            let mut row: Vec<u32> = (0..task).filter(|_| self.rng.percent(20)).collect();
            let first = u32::from(actor.is_some());
            row.extend((0..first).map(|k| n + k));
            row.extend((first..externals.len() as u32).filter(|_| self.rng.percent(60)).map(|k| n + k));
            let object = |&input: &u32| {
                if input < n { ObjectId { graph: id, index: input } } else { externals[(input - n) as usize] }
            };
            let mut reads: Vec<ObjectId> = row.iter().map(object).collect();
            if let Some(actor) = actor {
                reads.retain(|read| *read != actor);
                reads.insert(0, actor);
            }
            rows.push(reads);
            inputs.push_row(row);
        }
        let retries = (self.rng.below(3) as u8, self.rng.below(3) as u16);
        let demand = u32::from(makes);
        let class = ClassSpec { fingerprint: 1, max_retries: retries.0, retries: retries.1, demand, part: false };
        let classes = vec![class, ClassSpec { fingerprint: 2, part: true, ..class }];
        let demands = if makes { vec![Demand { cpu: WHOLE, others: Vec::new() }] } else { Vec::new() };
        let contained = self.some_of(held, 10);
        self.graphs.insert(id, Submitted { kind: kind.clone(), inputs: rows, levels, below });
        GraphSpec {
            id,
            inputs,
            externals,
            position: (0..n).collect(),
            class: (0..n).map(|task| u32::from(parts && task > 0)).collect(),
            classes,
            demands,
            priority: 0,
            outputs: (u32::from(parts)..n).collect(),
            kind,
            contained,
        }
    }
}
