//! The user's program as a model: it submits, admits in steps, waits, holds, releases and cancels at random.

use std::collections::{BTreeMap, BTreeSet};

use eagleray_core::ids::{GraphId, ObjectId, PeerId};
use eagleray_core::message::{Failure, Place, ToHead};

use crate::plan::{Flavour, Offer, Plan};
use crate::rng::{Rng, mix};
use crate::world::{Event, Faults, Submitted, World};

#[derive(Debug)]
pub(crate) struct User {
    steps: u32,
    /// It has asked for all that it held at the end.
    asked_all: bool,
    flavour: Flavour,
    next_graph: u32,
    next_put: u32,
    next_token: u64,
    pub(crate) puts: BTreeMap<ObjectId, u64>,
    /// How often it holds what. Outputs and puts are held without a gap from their beginning on.
    holds: BTreeMap<ObjectId, u32>,
    /// Objects that it came to hold late: whether they are there is a matter of luck.
    late: BTreeSet<ObjectId>,
    /// Graphs not admitted to their end: up to where they are.
    admitting: BTreeMap<GraphId, u32>,
    pub(crate) supplied: BTreeSet<ObjectId>,
    questions: BTreeMap<u64, Question>,
}

#[derive(Debug)]
struct Question {
    objects: Vec<ObjectId>,
    need: u32,
    fail_fast: bool,
    forgotten: bool,
}

impl User {
    pub(crate) fn new(rng: &mut Rng, offer: Offer) -> Self {
        let flavour = Flavour {
            most_tasks: [3, 20, 80][rng.index(3)],
            raise_percent: 0,
            nest_percent: if rng.percent(50) { 4 } else { 0 },
            levels: 2,
            flaky_percent: 0,
            demand_percent: if rng.percent(50) { 40 } else { 0 },
            offer,
        };
        Self {
            steps: 5 + rng.below(30) as u32,
            asked_all: false,
            flavour,
            next_graph: 1,
            next_put: 0,
            next_token: 1,
            puts: BTreeMap::new(),
            holds: BTreeMap::new(),
            late: BTreeSet::new(),
            admitting: BTreeMap::new(),
            supplied: BTreeSet::new(),
            questions: BTreeMap::new(),
        }
    }

    /// Whether it has held an object from the beginning and does still.
    pub(crate) fn holds_firmly(&self, object: ObjectId) -> bool {
        self.holds.contains_key(&object) && !self.late.contains(&object)
    }

    /// What of a graph it has held from the beginning and does still.
    pub(crate) fn firmly_held_of(&self, graph: GraphId) -> impl Iterator<Item = ObjectId> {
        self.holds.keys().copied().filter(move |object| object.graph == graph && !self.late.contains(object))
    }

    pub(crate) fn done(&self) -> bool {
        self.steps == 0 && self.questions.is_empty() && self.holds.is_empty() && self.admitting.is_empty()
    }

    /// What it still waits for.
    pub(crate) fn open(&self) -> String {
        format!("questions {:?}, not admitted {:?}", self.questions, self.admitting)
    }
}

impl World {
    /// What an object's value must be.
    pub(crate) fn oracle(&self, object: ObjectId) -> Option<u64> {
        match object.graph.seq {
            0 => self.user.puts.get(&object).copied(),
            _ => self.graphs[&object.graph].plan.values[object.index as usize],
        }
    }

    pub(crate) fn may_fail(&self, object: ObjectId) -> bool {
        self.graphs.get(&object.graph).is_some_and(|g| g.may_fail || g.given_up || g.plan.may_fail)
    }

    /// The graph may fail from now on, and with it what waits for it.
    pub(crate) fn mark_may_fail(&mut self, id: GraphId) {
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            let Some(graph) = self.graphs.get_mut(&id) else { continue };
            if std::mem::replace(&mut graph.may_fail, true) {
                continue;
            }
            open.extend(graph.parent);
            let reads = |graph: &Submitted| graph.externals.iter().chain(&graph.plan.waits()).any(|o| o.graph == id);
            open.extend(self.graphs.iter().filter(|(_, graph)| reads(graph)).map(|(&id, _)| id));
        }
    }

    pub(crate) fn user_step(&mut self) {
        if self.user.steps > 0 {
            self.user.steps -= 1;
            match self.rng.below(14) {
                0..=3 => self.submit(),
                4 | 5 => self.admit_some(),
                6 => self.supply(),
                7 | 8 => self.ask(),
                9 => self.hold_again(),
                10 | 11 => self.release_one(),
                12 => self.cancel_or_forget(),
                _ => self.put(),
            }
        } else if !self.user.admitting.is_empty() {
            self.admit_some();
        } else if self.user.questions.is_empty() {
            self.release_all();
            return;
        }
        let pause = self.rng.below(3_000_000);
        self.after(pause, Event::User);
    }

    fn submit(&mut self) {
        let held: Vec<ObjectId> =
            self.user.holds.keys().copied().filter(|&object| self.user.holds_firmly(object)).collect();
        let mut externals: Vec<ObjectId> = Vec::new();
        for _ in 0..self.rng.below(4) {
            externals.extend(self.rng.pick(&held).copied().filter(|object| !externals.contains(object)));
        }
        let values: Vec<Option<u64>> = externals.iter().map(|&object| self.oracle(object)).collect();
        // What a task waits for by itself is a graph that does not wait for anything: else two could wait for each
        // other.
        let awaitable: Vec<(ObjectId, Option<u64>)> = held
            .iter()
            .filter(|object| object.graph.seq != 0 && self.graphs[&object.graph].plan.waits().is_empty())
            .map(|&object| (object, self.oracle(object)))
            .collect();
        let Faults { raise_percent, flaky_percent, .. } = self.faults;
        let flavour = Flavour { raise_percent, flaky_percent, ..self.user.flavour };
        let plan = Plan::new(&mut self.rng, flavour, &values, &awaitable);
        let id = GraphId { peer: PeerId::USER, seq: self.user.next_graph };
        self.user.next_graph += 1;
        for &index in &plan.outputs {
            self.user.holds.insert(ObjectId { graph: id, index }, 1);
        }
        // Released with the graph's own outputs: held as long as a task may wait for them.
        for object in plan.waits() {
            *self.user.holds.get_mut(&object).expect("it is held") += 1;
            self.user_says(ToHead::Hold(vec![object]));
        }
        let max_retries = self.faults.max_retries;
        self.user_says(ToHead::Submit(Box::new(plan.spec(id, externals.clone(), max_retries))));
        let may_fail = externals.iter().chain(&plan.waits()).any(|&object| self.may_fail(object));
        let submitted = Submitted {
            plan,
            externals,
            given_up: false,
            may_fail,
            forgotten: false,
            beginnings_gone: false,
            parent: None,
        };
        self.graphs.insert(id, submitted);
        self.user.admitting.insert(id, 0);
        if self.rng.percent(70) {
            self.admit(id, u32::MAX);
        }
    }

    fn admit(&mut self, graph: GraphId, upto: u32) {
        let len = self.graphs[&graph].plan.len();
        let upto = upto.min(len);
        self.user.admitting.insert(graph, upto);
        if upto == len {
            self.user.admitting.remove(&graph);
        }
        self.user_says(ToHead::Admit { graph, upto });
    }

    fn admit_some(&mut self) {
        let graphs: Vec<GraphId> = self.user.admitting.keys().copied().collect();
        let Some(&graph) = self.rng.pick(&graphs) else { return };
        let upto = self.user.admitting[&graph];
        let more = 1 + self.rng.below(20) as u32;
        self.admit(graph, upto + more);
    }

    fn supply(&mut self) {
        let graphs: Vec<GraphId> = self.user.admitting.keys().copied().collect();
        let Some(&graph) = self.rng.pick(&graphs) else { return };
        let upto = self.user.admitting[&graph];
        let plan = &self.graphs[&graph].plan;
        let can: Vec<u32> = (0..plan.len())
            .filter(|&task| plan.position[task as usize] >= upto && plan.values[task as usize].is_some())
            .filter(|&index| !self.user.supplied.contains(&ObjectId { graph, index }))
            .collect();
        let Some(&index) = self.rng.pick(&can) else { return };
        let object = ObjectId { graph, index };
        let value = self.oracle(object).expect("filtered above");
        self.user.supplied.insert(object);
        self.table.insert(object, value);
        self.user_says(ToHead::Supply { object, place: Place::Inline { len: 8 }, contained: Vec::new() });
    }

    fn ask(&mut self) {
        let held: Vec<ObjectId> = self.user.holds.keys().copied().collect();
        let mut objects: Vec<ObjectId> = Vec::new();
        for _ in 0..=self.rng.below(5) {
            objects.extend(self.rng.pick(&held).copied().filter(|object| !objects.contains(object)));
        }
        let all = objects.len() as u32;
        let need = if self.rng.percent(70) { all } else { self.rng.below(u64::from(all) + 1) as u32 };
        self.ask_for(objects, need);
    }

    fn ask_for(&mut self, objects: Vec<ObjectId>, need: u32) {
        let token = self.user.next_token;
        self.user.next_token += 1;
        let fail_fast = self.rng.percent(50);
        self.user.questions.insert(token, Question { objects: objects.clone(), need, fail_fast, forgotten: false });
        self.user_says(ToHead::Await { token, objects, need, fail_fast });
    }

    fn hold_again(&mut self) {
        if self.faults.late_holds && self.rng.percent(50) {
            // Any task of a graph of which it holds something: the graph is there.
            let held: Vec<GraphId> = self.user.holds.keys().map(|o| o.graph).filter(|g| g.seq != 0).collect();
            let Some(&graph) = self.rng.pick(&held) else { return };
            let index = self.rng.below(u64::from(self.graphs[&graph].plan.len())) as u32;
            let object = ObjectId { graph, index };
            if !self.user.holds.contains_key(&object) {
                self.user.late.insert(object);
            }
            *self.user.holds.entry(object).or_insert(0) += 1;
            self.user_says(ToHead::Hold(vec![object]));
            return;
        }
        let held: Vec<ObjectId> = self.user.holds.keys().copied().collect();
        let Some(&object) = self.rng.pick(&held) else { return };
        *self.user.holds.get_mut(&object).expect("it is held") += 1;
        self.user_says(ToHead::Hold(vec![object]));
    }

    /// Lets go of something that nobody needs to be there.
    fn release_one(&mut self) {
        let waited: BTreeSet<ObjectId> = self.graphs.values().flat_map(|graph| graph.plan.waits()).collect();
        let asked: BTreeSet<ObjectId> = self.user.questions.values().flat_map(|q| q.objects.clone()).collect();
        let can: Vec<ObjectId> =
            self.user.holds.keys().copied().filter(|o| !waited.contains(o) && !asked.contains(o)).collect();
        let Some(&object) = self.rng.pick(&can) else { return };
        self.release(object);
        self.user_says(ToHead::Release(vec![object]));
    }

    fn release(&mut self, object: ObjectId) {
        let count = self.user.holds.get_mut(&object).expect("it is held");
        *count -= 1;
        if *count == 0 {
            self.user.holds.remove(&object);
            if object.graph.seq == 0 && !self.faults.calm() {
                // Finished graphs that read it could not be made again.
                let reads = |graph: &Submitted| graph.externals.contains(&object);
                let readers: Vec<GraphId> = self.graphs.iter().filter(|(_, g)| reads(g)).map(|(&id, _)| id).collect();
                for reader in readers {
                    self.mark_may_fail(reader);
                }
            }
            // With the last of its outputs, whatever of the graph has not run is given up.
            if object.graph.seq != 0 && !self.user.holds.keys().any(|held| held.graph == object.graph) {
                self.give_up(object.graph);
            }
        }
    }

    /// Only graphs that read it still hold some of it, as long as they need it. What they made of it can be lost later.
    fn give_up(&mut self, id: GraphId) {
        if !self.faults.calm() {
            self.mark_may_fail(id);
        }
        self.graphs.get_mut(&id).expect("it was submitted").given_up = true;
    }

    fn cancel_or_forget(&mut self) {
        if self.faults.cancels && self.rng.percent(50) {
            let graphs: Vec<GraphId> = self.graphs.keys().copied().filter(|g| g.peer == PeerId::USER).collect();
            let Some(&graph) = self.rng.pick(&graphs) else { return };
            self.mark_may_fail(graph);
            self.user_says(ToHead::Cancel { graph });
        } else {
            let tokens: Vec<u64> = self.user.questions.keys().copied().collect();
            let Some(&token) = self.rng.pick(&tokens) else { return };
            self.user.questions.get_mut(&token).expect("it is open").forgotten = true;
            self.user_says(ToHead::Forget { token });
        }
    }

    fn put(&mut self) {
        let object = ObjectId { graph: GraphId::puts(PeerId::USER), index: self.user.next_put };
        self.user.next_put += 1;
        let value = mix(u64::from(object.index), 99);
        self.user.puts.insert(object, value);
        self.user.holds.insert(object, 1);
        self.table.insert(object, value);
        self.user_says(ToHead::Put { object, place: Place::Inline { len: 8 }, contained: Vec::new() });
    }

    /// The end: every value is asked for once more, then all is let go.
    fn release_all(&mut self) {
        let held: Vec<ObjectId> = self.user.holds.keys().copied().collect();
        if !held.is_empty() && !self.user.asked_all {
            self.user.asked_all = true;
            let all = held.len() as u32;
            self.ask_for(held, all);
            self.after(1_000_000, Event::User);
            return;
        }
        // What goes on until that is known may find nothing any more.
        for graph in self.graphs.values_mut() {
            graph.given_up = true;
        }
        let mut all = Vec::new();
        for (object, count) in std::mem::take(&mut self.user.holds) {
            all.extend(std::iter::repeat_n(object, count as usize));
        }
        self.user_says(ToHead::Release(all));
    }

    pub(crate) fn user_answer(&mut self, token: u64, ended: &[(ObjectId, Result<Place, Failure>)]) {
        let question = self.user.questions.remove(&token).expect("it is answered once");
        let mut order = question.objects.iter();
        for (object, result) in ended {
            assert!(order.any(|asked| asked == object), "the answer is not in the order of the question");
            match result {
                Ok(_) => match self.table.get(object) {
                    Some(&value) => assert_eq!(Some(value), self.oracle(*object), "{object:?} has a wrong value"),
                    None => assert!(self.lost.contains(object), "{object:?} is ready and nowhere"),
                },
                Err(failure) => {
                    let excused = self.may_fail(*object) || self.user.late.contains(object);
                    assert!(excused, "{object:?} failed: {failure:?}");
                }
            }
        }
        let failed = ended.iter().any(|(_, result)| result.is_err());
        let enough = ended.len() as u32 >= question.need || (question.fail_fast && failed);
        assert!(enough || question.forgotten, "question {token} is answered too early");
    }
}
