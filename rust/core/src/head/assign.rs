//! Cutting runs from the ready frontier.

use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::graph::{Graph, TaskState};
use super::positions::Positions;
use super::special::Withheld;
use super::{Flight, Head, ResultsMode, Worker, estimate};
use crate::ids::{GraphId, ObjectId, RunId, WorkerId};
use crate::message::{Run, ToNode, WHOLE, output};
use crate::page;

/// Runs in flight to one worker: one it executes, one that waits, so that it never waits for a wake-up.
pub(super) const MOST_FLIGHTS: usize = 3;

/// Tasks of unknown duration in one run. Short at first: the first report says how long the next may be.
pub(super) const MOST_UNKNOWN: u32 = 32;

/// The shortest run that is worth a frame, in ns.
const LEAST_RUN_NS: u64 = 300_000;

/// What a task of unknown duration is taken for in sums.
pub(super) const GUESS_NS: u64 = 20_000;

/// The result bytes that a run of tasks which only produce may leave behind.
const MOST_PRODUCED: u64 = 256 << 20;

pub(super) struct Cut {
    pub(super) tasks: Vec<u32>,
    pub(super) outputs: Vec<u8>,
    pub(super) inputs: Vec<ObjectId>,
    pub(super) unknown: bool,
}

/// How much a run may be.
struct Limits {
    demand: u32,
    target_ns: u64,
    max_run: u32,
}

impl Head {
    /// Gives work to workers that have room for it. Called once after all queued events were handled.
    pub fn schedule(&mut self, now_ns: u64) {
        self.ask_for_workers();
        self.assign_calls();
        self.short = 0;
        loop {
            // The worker with the least in flight first: an idle one before a second run for a busy one.
            while let Some((worker, graph, demand)) = self.next_assignment(now_ns) {
                if !self.assign_run(now_ns, worker, graph, demand) {
                    break;
                }
            }
            if !self.fail_stuck() {
                break;
            }
            self.follow_up();
        }
        self.ask_for_more();
        self.watch_busy_workers(now_ns);
        self.watch_stall(now_ns);
        self.watch_unheld(now_ns);
        self.retire(now_ns);
    }

    /// Whether a task that asks for so much of a CPU, in units of 1 / [`WHOLE`], finds a worker of its depth: as many are
    /// occupied as the [breadth](Head::breadth) says, blocked ones included but for those that make room, and more only if
    /// their tasks ask for less than a CPU.
    pub(super) fn has_room(&self, depth: u32, cpu: u64) -> bool {
        let here = self.workers.values().filter(|w| w.of_pool() && w.depth() == Some(depth) && !w.makes_room());
        here.map(Worker::weight).sum::<u64>() + cpu.min(WHOLE) <= u64::from(self.breadth(depth)) * WHOLE
    }

    /// How many depths have as many workers as there are slots.
    fn broad_depths(&self) -> u32 {
        let reserve = self.config.max_workers / 4;
        ((self.config.max_workers - reserve) / self.config.slots.max(1)).max(1)
    }

    /// How many workers may be occupied at a depth: as many as there are slots, and one where that would be too many.
    pub(super) fn breadth(&self, depth: u32) -> u32 {
        if depth < self.broad_depths() { self.config.slots } else { 1 }
    }

    /// How many workers may be occupied at all depths down to this one.
    pub(super) fn breadth_down_to(&self, depth: u32) -> u32 {
        let broad = self.broad_depths().min(depth + 1);
        broad.saturating_mul(self.config.slots).saturating_add(depth + 1 - broad)
    }

    /// The first depth for which there might be no worker.
    pub(super) fn too_deep(&self) -> u32 {
        let broad = self.broad_depths();
        broad + self.config.max_workers.saturating_sub(broad.saturating_mul(self.config.slots))
    }

    /// Which worker should get a run of which graph and demand next, if any has room.
    fn next_assignment(&mut self, now: u64) -> Option<(WorkerId, GraphId, u32)> {
        let free_cpu = self.free_cpu();
        let mut withheld = Withheld::default();
        self.short = 0;
        if self.nothing_can_start(free_cpu) {
            return None;
        }
        let mut firsts = self.ready.firsts();
        while let Some(at) = (0..firsts.len()).min_by_key(|&at| firsts[at].1) {
            let (lot, entry @ (rank, id)) = firsts[at];
            match self.ready.after(lot, entry) {
                Some(next) => firsts[at].1 = next,
                None => _ = firsts.swap_remove(at),
            }
            if !self.graphs.get(&id).is_some_and(|graph| graph.rank == rank && graph.has_ready()) {
                self.ready.remove(lot, entry);
                continue;
            }
            self.counters.looks += 1;
            self.decide_spread(now, id);
            let found = if self.graphs[&id].special.is_empty() {
                self.worker_for(id, free_cpu, &withheld).map(|worker| (worker, 0))
            } else {
                self.next_of_several(now, id, free_cpu, &mut withheld)
            };
            if let Some((worker, demand)) = found {
                return Some((worker, id, demand));
            }
            let graph = &self.graphs[&id];
            if lot.is_uniform() && (graph.spread || graph.home.is_none()) {
                firsts.retain(|(other, _)| *other != lot);
            }
        }
        None
    }

    /// Whether no task can start whatever is ready, so that thousands of graphs need not be looked at.
    fn nothing_can_start(&self, free_cpu: u64) -> bool {
        // Who has demands gets a worker that has nothing to do; another is started for it only if less than a CPU is asked.
        let special = self.ready.demanding > 0
            && (self.ready.light > 0 || free_cpu >= WHOLE || self.workers.values().any(super::Worker::idle));
        !special && !self.somebody_has_room(free_cpu)
    }

    /// Whether a worker can be given a run, if the run fits.
    fn somebody_has_room(&self, free_cpu: u64) -> bool {
        self.workers.values().any(|worker| {
            let open = worker.of_pool() && !worker.blocked() && !worker.stopping && worker.flights.len() < MOST_FLIGHTS;
            let waited_for = worker.holding.is_some() || worker.flights.iter().any(|f| f.unknown);
            open && if worker.busy() { !waited_for } else { free_cpu >= WHOLE }
        })
    }

    /// Which worker should get a run of a graph's tasks that need a CPU and nothing else.
    pub(super) fn worker_for(&self, id: GraphId, free_cpu: u64, withheld: &Withheld) -> Option<WorkerId> {
        let graph = &self.graphs[&id];
        if withheld.workers(graph.depth) {
            return None;
        }
        let can_start = free_cpu >= WHOLE && self.has_room(graph.depth, WHOLE);
        let mut best: Option<((usize, u32), WorkerId)> = None;
        for (&worker_id, worker) in &self.workers {
            if worker.blocked() || worker.stopping || !worker.of_pool() || worker.flights.len() >= MOST_FLIGHTS {
                continue;
            }
            if worker.busy() {
                // What follows in a busy worker is of the same depth, so that a blocked parent's child never
                // queues behind its parent's siblings. A run of unknown length is waited for, and one of other demand.
                if worker.depth() != Some(graph.depth)
                    || worker.holding.is_some()
                    || worker.flights.iter().any(|f| f.unknown)
                    || withheld.queues(graph.depth)
                {
                    continue;
                }
            } else if !can_start {
                continue;
            }
            if !graph.spread && graph.home.is_some_and(|home| home != worker_id) {
                continue;
            }
            let own = graph.ready_on.get(&worker_id).is_some_and(|set| !set.is_empty());
            // An idle worker may have others publish what it then reads; once it has asked, it waits for that.
            if graph.ready.is_empty() && !own && (worker.busy() || graph.publishing > 0) {
                continue;
            }
            let score = (worker.flights.len(), u32::from(!own));
            if best.is_none_or(|(found, _)| score < found) {
                best = Some((score, worker_id));
            }
        }
        best.map(|(_, worker)| worker)
    }

    /// A tiny graph is fastest on one worker. A second is woken when what remains is worth more than the wake and the
    /// bytes to publish, or when that has been unknown for too long.
    fn decide_spread(&mut self, now: u64, id: GraphId) {
        let graph = &self.graphs[&id];
        if graph.spread {
            return;
        }
        let (remaining, all_known) = self.remaining_ns(graph);
        let due = graph.spread_at.is_some_and(|at| now >= at);
        let home_gone =
            graph.home.is_some_and(|home| self.workers.get(&home).is_none_or(|w| w.blocked() || w.stopping));
        let spread = (all_known && remaining > self.config.spread_ns)
            || due
            || home_gone
            || self.config.results != ResultsMode::Auto;
        let graph = self.graphs.get_mut(&id).expect("a queued graph exists");
        if spread {
            graph.spread = true;
            self.forget_spread(id);
        }
    }

    /// It is not to be looked any more whether a graph is worth spreading.
    pub(super) fn forget_spread(&mut self, id: GraphId) {
        if let Some(at) = self.graphs.get_mut(&id).and_then(|graph| graph.spread_at.take()) {
            self.spreads.remove(&(at, id));
        }
    }

    /// What the unfinished tasks of a graph take together, and whether all of it was measured.
    fn remaining_ns(&self, graph: &Graph) -> (u64, bool) {
        let mut sum = 0u64;
        let mut known = true;
        for (spec, &count) in graph.classes.iter().zip(&graph.unfinished_of) {
            if count == 0 {
                continue;
            }
            let ns = self.estimates.get(spec.fingerprint).map_or(GUESS_NS, |e| e.ns);
            known &= self.estimates.get(spec.fingerprint).is_some();
            sum = sum.saturating_add(ns.saturating_mul(u64::from(count)));
        }
        (sum, known)
    }

    fn assign_run(&mut self, now: u64, worker_id: WorkerId, id: GraphId, demand: u32) -> bool {
        let alive = self.workers.values().filter(|w| !w.stopping && w.of_pool()).count() as u64;
        let (remaining, _) = self.remaining_ns(&self.graphs[&id]);
        let shares = if self.graphs[&id].spread { 2 * alive.min(u64::from(self.config.slots)).max(1) } else { 1 };
        let least = LEAST_RUN_NS.min(self.config.run_ns);
        // What a run demands it has to its end: others wait for that.
        let most = if demand == 0 { self.config.run_ns } else { least };
        let target = (remaining / shares).clamp(least, most);
        let keep_only = match self.config.results {
            ResultsMode::Resident => true,
            ResultsMode::Sealed => false,
            ResultsMode::Auto => self.config.slots == 1 && alive == 1,
        };
        let seal = self.config.results == ResultsMode::Sealed;
        let max_run = self.config.max_run.min(page::MAX_RUN_LEN);
        let graph = self.graphs.get_mut(&id).expect("a queued graph exists");
        let limits = Limits { demand, target_ns: target, max_run };
        let mut cut = cut_run(graph, id, worker_id, &limits, &self.estimates);
        if cut.tasks.is_empty() {
            // Only what other workers keep is ready: have some of it published.
            return self.ask_to_publish(worker_id, id);
        }
        mark_outputs(graph, &mut cut, keep_only, seal, self.config.results);
        if graph.home.is_none() {
            graph.home = Some(worker_id);
            if !graph.spread {
                let at = now + self.config.spread_ns;
                graph.spread_at = Some(at);
                self.spreads.insert((at, id));
            }
        }
        let makes = graph.is_actor();
        let mut gpus = Vec::new();
        if demand > 0 {
            let holding = self.resources.take(&graph.special[demand as usize - 1].need);
            gpus = holding.gpus();
            self.workers.get_mut(&worker_id).expect("the chosen worker exists").holding = Some(holding);
        }
        if makes {
            // No task that reads what it keeps will run there.
            self.publish_kept(worker_id);
        }
        self.send_run(worker_id, id, demand, cut, gpus);
        if makes {
            self.on_making(id, worker_id);
        }
        true
    }

    /// Sends the run that was cut last of a graph.
    pub(super) fn send_run(&mut self, worker_id: WorkerId, id: GraphId, demand: u32, cut: Cut, gpus: Vec<u32>) {
        let graph = self.graphs.get_mut(&id).expect("the graph of a cut exists");
        graph.runs += 1;
        let (stamp, depth) = (graph.cuts, graph.depth);
        let worker = self.workers.get_mut(&worker_id).expect("the chosen worker exists");
        if !worker.busy() {
            worker.sample_every = self.config.spread_ns;
        }
        let seq = worker.next_seq;
        worker.next_seq += 1;
        worker.flights.push_back(Flight {
            seq,
            graph: id,
            demand,
            depth,
            cut: stamp,
            tasks: cut.tasks.clone(),
            outputs: cut.outputs.clone(),
            limit: cut.tasks.len() as u32,
            upto: 0,
            kept: Vec::new(),
            spoilt: Vec::new(),
            stale: Vec::new(),
            troubled: Vec::new(),
            unknown: cut.unknown,
            moving: false,
            recalled: false,
        });
        self.assign(Run {
            id: RunId { worker: worker_id, seq },
            graph: id,
            tasks: cut.tasks,
            outputs: cut.outputs,
            inputs: cut.inputs,
            gpus,
        });
    }

    /// Asks the workers that keep inputs of ready tasks to publish them for `idle`. True if something was asked.
    fn ask_to_publish(&mut self, idle: WorkerId, id: GraphId) -> bool {
        const AT_ONCE: u32 = 16;
        let graph = self.graphs.get_mut(&id).expect("a queued graph exists");
        let mut asks = Vec::new();
        let Some((&holder, set)) = graph
            .ready_on
            .iter()
            .filter(|(holder, set)| **holder != idle && set.last().is_some_and(|position| can_leave(graph, position)))
            .max_by_key(|(_, set)| set.len())
        else {
            return false;
        };
        // The last in the order: its keeper would come to them last.
        let take = set.len().div_ceil(2).min(AT_ONCE);
        for _ in 0..take {
            let set = &graph.ready_on[&holder];
            let Some(position) = set.last() else { break };
            if !can_leave(graph, position) {
                break;
            }
            let set = graph.ready_on.get_mut(&holder).expect("found above");
            set.remove(position);
            let task = graph.at[position as usize];
            graph.tasks[task as usize].state = TaskState::Waiting;
            place_ready(graph, task, true, &mut asks);
        }
        self.publish(id, asks);
        take > 0
    }

    /// Sends publish requests for objects of a graph, those not asked for yet.
    pub(super) fn publish(&mut self, id: GraphId, asks: Vec<u32>) {
        let seal = self.config.results == ResultsMode::Sealed;
        for task in asks {
            let Some(graph) = self.graphs.get_mut(&id) else { return };
            let object = &mut graph.objects[task as usize];
            let Some(worker) = object.resident else { continue };
            if object.asked || object.place.is_some() {
                continue;
            }
            object.asked = true;
            let objects = Vec::from([ObjectId { graph: id, index: task }]);
            self.to_node(ToNode::Publish { worker, objects, seal });
        }
    }
}

/// Whether all that the task at a position reads can be published.
fn can_leave(graph: &Graph, position: u32) -> bool {
    let len = graph.len();
    let inputs = graph.inputs.row(graph.at[position as usize]);
    inputs.iter().all(|&input| input >= len || !graph.objects[input as usize].stays)
}

/// Puts a task without missing inputs into the ready set where it belongs, or, if what it reads is kept by several
/// workers (or `publish` demands it), lets it wait until that is published: `asks` names what to publish.
pub(super) fn place_ready(graph: &mut Graph, task: u32, publish: bool, asks: &mut Vec<u32>) {
    debug_assert_eq!(graph.tasks[task as usize].missing, 0);
    let len = graph.len();
    let mut keeper = None;
    let mut several = publish;
    for &input in graph.inputs.row(task) {
        if input < len {
            let object = &graph.objects[input as usize];
            if object.place.is_none() {
                match (keeper, object.resident) {
                    (None, found) => keeper = found,
                    (Some(a), Some(b)) if a != b => several = true,
                    _ => {}
                }
            }
        }
    }
    let position = graph.position[task as usize];
    let demand = graph.demand(task);
    match keeper {
        // One of special demand goes to a worker that has nothing to do, whichever that will be.
        Some(_) if several || demand > 0 => {
            for &input in graph.inputs.row(task) {
                if input < len && graph.objects[input as usize].place.is_none() {
                    asks.push(input);
                }
            }
            graph.tasks[task as usize].state = TaskState::Publishing;
            graph.publishing += 1;
        }
        Some(worker) => {
            graph.tasks[task as usize].state = TaskState::Ready;
            let set = graph.ready_on.entry(worker).or_insert_with(|| Positions::new(len));
            set.insert(position);
        }
        None => {
            graph.tasks[task as usize].state = TaskState::Ready;
            if demand > 0 {
                graph.special[demand as usize - 1].ready.insert(position);
            } else {
                graph.ready.insert(position);
            }
        }
    }
}

/// Takes tasks in the order, and with each those that become ready through it, until their time adds up; parts of a result
/// even then.
fn cut_run(graph: &mut Graph, id: GraphId, worker: WorkerId, limits: &Limits, estimates: &estimate::Estimates) -> Cut {
    let &Limits { demand, target_ns, max_run } = limits;
    let most_unknown = if demand == 0 { MOST_UNKNOWN } else { 1 };
    graph.cuts += 1;
    let stamp = graph.cuts;
    let len = graph.len();
    // Tasks that this very cut made ready. Those not taken need no undoing: they are `Waiting` still.
    let mut fresh: BinaryHeap<Reverse<u32>> = BinaryHeap::new();
    let mut cut = Cut { tasks: Vec::new(), outputs: Vec::new(), inputs: Vec::new(), unknown: false };
    let mut ns = 0u64;
    let mut unknown = 0u32;
    let mut produced = 0u64;
    let mut own = if demand == 0 { graph.ready_on.remove(&worker) } else { None };
    // Classes repeat from task to task; the last one's estimate is at hand.
    let mut last_class = (u32::MAX, None);
    loop {
        let candidates =
            [graph.first_ready(demand), own.as_ref().and_then(Positions::first), fresh.peek().map(|r| r.0)];
        let Some(position) = candidates.into_iter().flatten().min() else { break };
        let task = graph.at[position as usize];
        let taken = cut.tasks.len() as u32;
        let full = taken >= max_run || ns >= target_ns || unknown >= most_unknown || produced >= MOST_PRODUCED;
        if full && (taken >= page::MAX_RUN_LEN || !cut.tasks.last().is_some_and(|&last| graph.belongs(task, last))) {
            break;
        }
        if candidates[2] == Some(position) {
            fresh.pop();
        } else if candidates[0] == Some(position) {
            graph.remove_ready(demand, position);
        } else if let Some(set) = &mut own {
            set.remove(position);
        }
        let record = &mut graph.tasks[task as usize];
        record.state = TaskState::Assigned;
        record.cut = stamp;
        cut.tasks.push(task);
        let class = graph.class[task as usize];
        if last_class.0 != class {
            last_class = (class, estimates.get(graph.classes[class as usize].fingerprint));
        }
        if let Some(estimate) = last_class.1 {
            ns += estimate.ns;
            if graph.inputs.row(task).is_empty() {
                produced += estimate.bytes;
            }
        } else {
            unknown += 1;
        }
        for &input in graph.inputs.row(task) {
            if input >= len || graph.objects[input as usize].place.is_some() {
                let object = graph.object_id(id, input);
                // The worker's own copy is as good.
                let own_copy = input < len && graph.objects[input as usize].resident == Some(worker);
                if !own_copy {
                    cut.inputs.push(object);
                }
            }
        }
        for &next in graph.dependents.row(task) {
            let entry = &mut graph.scratch[next as usize];
            if matches!(graph.tasks[next as usize].state, TaskState::Done | TaskState::Failed) {
                continue;
            }
            if entry.0 != stamp {
                *entry = (stamp, graph.tasks[next as usize].missing);
            }
            entry.1 -= 1;
            let next_task = &graph.tasks[next as usize];
            if entry.1 == 0
                && next_task.state == TaskState::Waiting
                && graph.position[next as usize] < graph.admitted
                && (graph.demand(next) == demand || graph.belongs(next, task))
                && readable(graph, next, stamp, worker)
            {
                fresh.push(Reverse(graph.position[next as usize]));
            }
        }
    }
    if demand > 0 {
        graph.special[demand as usize - 1].since = None;
    }
    if let Some(set) = own.filter(|set| !set.is_empty()) {
        graph.ready_on.insert(worker, set);
    }
    cut.inputs.sort_unstable();
    cut.inputs.dedup();
    cut.unknown = unknown > 0;
    cut
}

/// Whether `worker` can read all inputs of a task, given the tasks of cut `stamp`.
fn readable(graph: &Graph, task: u32, stamp: u32, worker: WorkerId) -> bool {
    let len = graph.len();
    graph.inputs.row(task).iter().all(|&input| {
        if input >= len {
            return true;
        }
        let object = &graph.objects[input as usize];
        let maker = &graph.tasks[input as usize];
        object.place.is_some()
            || object.resident == Some(worker)
            || (maker.state == TaskState::Assigned && maker.cut == stamp)
    })
}

/// Says of each result whether it stays, is published, or never leaves the run.
pub(super) fn mark_outputs(graph: &Graph, cut: &mut Cut, keep_only: bool, seal: bool, mode: ResultsMode) {
    let mut last = None;
    for &task in &cut.tasks {
        let once = graph.is_once(task);
        let mut dependents = graph.dependents.row(task).iter().filter(|&&next| {
            let is_part = once && graph.is_part(next);
            let next = &graph.tasks[next as usize];
            match next.state {
                // The worker may end, or the reader be taken back, when this one is done and cannot be done again.
                TaskState::Assigned => next.cut != graph.cuts || (once && !is_part),
                TaskState::Waiting | TaskState::Ready | TaskState::Publishing => true,
                TaskState::Done | TaskState::Failed => false,
            }
        });
        let outside = dependents.next();
        // A part that is told alone must not end with the worker that has the rest.
        let may_stay =
            keep_only && (!once || mode == ResultsMode::Resident) && !graph.objects[task as usize].must_leave;
        let stays = may_stay && outside.is_some_and(|&next| !graph.is_part(next));
        let outside = outside.is_some();
        // An actor may be found by its name while nobody holds it.
        let held = graph.objects[task as usize].holders > 0 || graph.is_actor();
        let mut flags = 0;
        if seal {
            flags = output::PUBLISH | output::SEAL;
        } else if held && mode != ResultsMode::Resident {
            flags = output::PUBLISH;
        } else if held || stays {
            flags = output::KEEP;
        } else if outside {
            flags = output::PUBLISH;
        }
        if last.replace(task).is_some_and(|last| graph.belongs(task, last)) {
            flags |= output::WITH_LAST;
        }
        if once {
            flags |= output::ONCE;
        }
        cut.outputs.push(flags);
    }
}
