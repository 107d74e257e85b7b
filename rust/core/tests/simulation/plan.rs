//! Graphs as the simulation makes them up, and what each of their tasks must return.

use eagleray_core::graph::Csr;
use eagleray_core::ids::{GraphId, ObjectId};
use eagleray_core::message::{ClassSpec, Demand, GPU, GraphKind, GraphSpec, WHOLE};

use crate::rng::{Rng, mix};

/// How long tasks of each class take, in ns.
pub(crate) const CLASS_NS: [u64; 4] = [2_000, 40_000, 1_500_000, 12_000_000];

/// What a task does when it is called.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Plain,
    Raises,
    /// Raises at the first attempts, as many as this.
    Flaky(u32),
    /// Computes this plan from inside, and waits for it.
    Nested(Box<Plan>),
    /// Waits for an object that somebody else's graph makes.
    Waits(ObjectId, Option<u64>),
}

#[derive(Clone, Debug)]
pub(crate) struct PlanTask {
    pub(crate) inputs: Vec<u32>,
    pub(crate) kind: Kind,
    pub(crate) class: u32,
    pub(crate) salt: u64,
}

/// A graph without an id.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) tasks: Vec<PlanTask>,
    pub(crate) outputs: Vec<u32>,
    pub(crate) position: Vec<u32>,
    /// What each task returns; `None` where it cannot.
    pub(crate) values: Vec<Option<u64>>,
    /// Some task in it raises, or one in what is nested: it may fail as a whole.
    pub(crate) may_fail: bool,
    /// For each of [`CLASS_NS`], how often its tasks are run again when they raise, and the number of their demand.
    pub(crate) needs: [(u16, u32); 4],
    pub(crate) demands: Vec<Demand>,
    pub(crate) priority: i32,
}

/// What the node offers, in units.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub(crate) slots: u32,
    pub(crate) license: u64,
    pub(crate) gpus: u32,
}

impl Offer {
    pub(crate) fn others(self) -> Vec<(std::sync::Arc<str>, u64)> {
        vec![("license".into(), self.license), (GPU.into(), u64::from(self.gpus) * WHOLE)]
    }

    fn meets(self, demand: &Demand) -> bool {
        let others = self.others();
        let offered = |name| others.iter().find(|(other, _)| other == name).map_or(0, |(_, amount)| *amount);
        demand.cpu <= u64::from(self.slots) * WHOLE && demand.others.iter().all(|(name, asked)| *asked <= offered(name))
    }

    /// Something that can be had, mostly.
    fn demand(self, rng: &mut Rng) -> Demand {
        let most = if rng.percent(3) { 2 } else { 1 };
        let cpu = match rng.below(4) {
            0 => 0,
            1 => WHOLE / 2,
            2 => WHOLE,
            _ => (1 + rng.below(u64::from(self.slots) * most)) * WHOLE,
        };
        let mut others = Vec::new();
        if rng.percent(60) {
            others.push(("license".into(), 1 + rng.below(self.license.max(1) * most)));
        }
        if rng.percent(40) {
            let whole = 1 + rng.below(u64::from(self.gpus.max(1)) * most);
            others.push((GPU.into(), if rng.percent(50) { WHOLE / 2 } else { whole * WHOLE }));
        }
        Demand { cpu, others }
    }
}

/// What may be in a plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flavour {
    pub(crate) most_tasks: u64,
    /// Of a hundred tasks.
    pub(crate) raise_percent: u64,
    /// Of a hundred tasks.
    pub(crate) nest_percent: u64,
    /// How deep it may nest.
    pub(crate) levels: u32,
    /// Of a hundred tasks of classes with retries.
    pub(crate) flaky_percent: u64,
    /// Of a hundred classes.
    pub(crate) demand_percent: u64,
    pub(crate) offer: Offer,
}

impl Plan {
    /// A random plan. `externals` are the values that inputs beyond its tasks have; `awaitable` are objects that a
    /// task may wait for.
    pub(crate) fn new(
        rng: &mut Rng,
        flavour: Flavour,
        externals: &[Option<u64>],
        awaitable: &[(ObjectId, Option<u64>)],
    ) -> Self {
        let n = 1 + rng.below(flavour.most_tasks) as u32;
        let shape = rng.below(4);
        let main_class = rng.below(3) as u32;
        let mut demands = Vec::new();
        let needs = [(); 4].map(|()| {
            let retries = if flavour.flaky_percent > 0 { rng.below(4) as u16 } else { 0 };
            if rng.percent(flavour.demand_percent) {
                demands.push(flavour.offer.demand(rng));
                return (retries, demands.len() as u32);
            }
            (retries, 0)
        });
        let mut tasks: Vec<PlanTask> = Vec::new();
        for task in 0..n {
            let mut inputs: Vec<u32> = Vec::new();
            let mut add = |input: u32| {
                if !inputs.contains(&input) {
                    inputs.push(input);
                }
            };
            match shape {
                // Chains side by side.
                0 if task >= 4 && rng.percent(90) => add(task - 4),
                // A tree of pairs.
                1 if task >= n.div_ceil(2) => {
                    let first = (task - n.div_ceil(2)) * 2;
                    for input in [first, first + 1] {
                        if input < task {
                            add(input);
                        }
                    }
                }
                // Whatever.
                2 if task > 0 => (0..rng.below(4)).for_each(|_| add(rng.below(u64::from(task)) as u32)),
                _ => {}
            }
            if !externals.is_empty() && rng.percent(20) {
                add(n + rng.index(externals.len()) as u32);
            }
            let class = if rng.percent(90) { main_class } else { rng.below(CLASS_NS.len() as u64) as u32 };
            let retries = u64::from(needs[class as usize].0);
            let kind = if rng.percent(flavour.raise_percent) {
                Kind::Raises
            } else if retries > 0 && rng.percent(flavour.flaky_percent) {
                Kind::Flaky(1 + rng.below(retries) as u32)
            } else if rng.percent(flavour.nest_percent) {
                match rng.pick(awaitable) {
                    Some(&(object, value)) if rng.percent(40) => Kind::Waits(object, value),
                    _ if flavour.levels > 0 => {
                        let inner = Flavour {
                            most_tasks: 1 + flavour.most_tasks.min(12),
                            levels: flavour.levels - 1,
                            ..flavour
                        };
                        Kind::Nested(Box::new(Self::new(rng, inner, &[], &[])))
                    }
                    _ => Kind::Plain,
                }
            } else {
                Kind::Plain
            };
            tasks.push(PlanTask { inputs, kind, class, salt: rng.next() });
        }
        let mut outputs: Vec<u32> = (0..n).filter(|_| rng.percent(20)).collect();
        if outputs.is_empty() {
            outputs.push(n - 1);
        }
        let position = positions(rng, &tasks);
        let priority = if rng.percent(30) { rng.below(5) as i32 - 2 } else { 0 };
        // What is demanded inside a task, its ancestors may have.
        let may_be_stuck = flavour.nest_percent > 0 && demands.iter().any(|demand| !demand.others.is_empty());
        let may_fail = may_be_stuck || demands.iter().any(|demand| !flavour.offer.meets(demand));
        let mut plan = Self { position, tasks, outputs, values: Vec::new(), may_fail, needs, demands, priority };
        plan.solve(externals);
        plan
    }

    /// Finds what each task returns.
    fn solve(&mut self, externals: &[Option<u64>]) {
        let n = self.tasks.len();
        for task in &self.tasks {
            let mut value = Some(task.salt);
            for &input in &task.inputs {
                let read = self.values.get(input as usize).copied().unwrap_or_else(|| externals[input as usize - n]);
                value = value.zip(read).map(|(a, b)| mix(a, b));
            }
            match &task.kind {
                Kind::Plain | Kind::Flaky(_) => {}
                Kind::Raises => {
                    value = None;
                    self.may_fail = true;
                }
                Kind::Nested(plan) => {
                    self.may_fail |= plan.may_fail;
                    for &output in &plan.outputs {
                        value = value.zip(plan.values[output as usize]).map(|(a, b)| mix(a, b));
                    }
                }
                Kind::Waits(_, read) => {
                    self.may_fail |= read.is_none();
                    value = value.zip(*read).map(|(a, b)| mix(a, b));
                }
            }
            self.values.push(value);
        }
        self.may_fail |= self.values.iter().any(Option::is_none);
    }

    /// The graph as the head gets it.
    pub(crate) fn spec(&self, id: GraphId, externals: Vec<ObjectId>, max_retries: u8) -> GraphSpec {
        let mut inputs = Csr::new();
        for task in &self.tasks {
            inputs.push_row(task.inputs.iter().copied());
        }
        GraphSpec {
            id,
            inputs,
            externals,
            position: self.position.clone(),
            class: self.tasks.iter().map(|task| task.class).collect(),
            classes: (0u64..)
                .zip(self.needs)
                .map(|(fingerprint, (retries, demand))| ClassSpec {
                    fingerprint,
                    max_retries,
                    retries,
                    demand,
                    part: false,
                })
                .collect(),
            outputs: self.outputs.clone(),
            demands: self.demands.clone(),
            priority: self.priority,
            kind: GraphKind::Computation,
            contained: Vec::new(),
        }
    }

    /// Objects of other graphs that its tasks wait for by themselves.
    pub(crate) fn waits(&self) -> Vec<ObjectId> {
        let waited = |task: &PlanTask| match &task.kind {
            Kind::Waits(object, _) => Some(*object),
            _ => None,
        };
        self.tasks.iter().filter_map(waited).collect()
    }

    pub(crate) fn len(&self) -> u32 {
        self.tasks.len() as u32
    }
}

/// A random topological order.
fn positions(rng: &mut Rng, tasks: &[PlanTask]) -> Vec<u32> {
    let n = tasks.len();
    let mut position = vec![u32::MAX; n];
    let mut open: Vec<usize> = (0..n).collect();
    let in_order = rng.percent(50);
    for next in 0..n as u32 {
        let can =
            |&&task: &&usize| tasks[task].inputs.iter().all(|&i| i as usize >= n || position[i as usize] != u32::MAX);
        let ready: Vec<usize> = open.iter().filter(can).copied().take(if in_order { 1 } else { 8 }).collect();
        let task = *rng.pick(&ready).expect("inputs come before their tasks");
        position[task] = next;
        open.retain(|&other| other != task);
    }
    position
}
