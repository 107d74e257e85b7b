//! The node: which workers there are and whether what they say fits.
//!
//! A pure state machine, small because a node decides little: it starts the workers the head wants, tells it who is up
//! and who died, and stands between the head and what a process sends. Recalls and samples are answered from the
//! control page by whoever owns the pages; no state is needed for them.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::ids::{RunId, WorkerId};
use crate::message::{Death, FromNode, Refusal, Report, Run};
use crate::page;

/// Starts that may fail one after the other before the head is told.
const MOST_FAILED_STARTS: u32 = 3;

/// What the node wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeEffect {
    /// Start this worker.
    Start(WorkerId),
    /// Tell the head.
    ToHead(FromNode),
}

#[derive(Debug)]
struct Flight {
    seq: u32,
    len: u32,
    upto: u32,
}

#[derive(Debug, Default)]
struct Worker {
    up: bool,
    stopping: bool,
    flights: VecDeque<Flight>,
}

/// The node. See the module.
#[derive(Debug, Default)]
pub struct Node {
    workers: BTreeMap<WorkerId, Worker>,
    next: u32,
    wanted: u32,
    failed_starts: u32,
    out: Vec<NodeEffect>,
}

impl Node {
    /// A node without workers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the effects out.
    pub fn drain(&mut self) -> impl Iterator<Item = NodeEffect> + '_ {
        self.out.drain(..)
    }

    /// The head wants this many workers. Those too many it stops itself, by name.
    pub fn want(&mut self, workers: u32) {
        self.wanted = workers;
        self.start_missing();
    }

    /// Somebody needs workers: starting is tried again if it was given up.
    pub fn nudge(&mut self) {
        if self.failed_starts >= MOST_FAILED_STARTS {
            self.failed_starts = 0;
            self.start_missing();
        }
    }

    fn start_missing(&mut self) {
        if self.failed_starts >= MOST_FAILED_STARTS {
            return;
        }
        let alive = self.workers.values().filter(|w| !w.stopping).count() as u32;
        for _ in alive..self.wanted {
            let id = WorkerId(self.next);
            self.next += 1;
            self.workers.insert(id, Worker::default());
            self.out.push(NodeEffect::Start(id));
        }
    }

    /// A worker said that it is ready.
    pub fn hello(&mut self, id: WorkerId) -> Result<(), Refusal> {
        let Some(worker) = self.workers.get_mut(&id) else { return Err(Refusal::Unknown("worker")) };
        if worker.up {
            return Err(Refusal::Report("a second hello"));
        }
        worker.up = true;
        self.failed_starts = 0;
        self.out.push(NodeEffect::ToHead(FromNode::WorkerUp(id)));
        Ok(())
    }

    /// The head asked a worker to stop: its end will be no failure, and it is not replaced.
    pub fn stopping(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.stopping = true;
        }
    }

    /// A worker shall make room for a new one, which is started at once.
    pub fn replace(&mut self, id: WorkerId) {
        self.stopping(id);
        self.start_missing();
    }

    /// A run is on its way to its worker. False if that worker is gone: its end is on its way to the head.
    pub fn assigned(&mut self, run: &Run) -> bool {
        let Some(worker) = self.workers.get_mut(&run.id.worker) else { return false };
        worker.flights.push_back(Flight { seq: run.id.seq, len: run.tasks.len() as u32, upto: 0 });
        debug_assert!(worker.flights.len() <= page::RING as usize, "more runs in flight than the page has room for");
        true
    }

    /// Whether a worker's report fits the runs it has. What does not fit must not reach the head.
    pub fn check(&mut self, report: &Report) -> Result<(), Refusal> {
        let RunId { worker, seq } = report.run;
        let worker = self.workers.get_mut(&worker).ok_or(Refusal::Unknown("worker"))?;
        let at = worker.flights.iter().position(|f| f.seq == seq).ok_or(Refusal::Report("no such run"))?;
        if at != 0 {
            return Err(Refusal::Report("an earlier run has not ended"));
        }
        let flight = &mut worker.flights[at];
        if report.upto < flight.upto || report.upto > flight.len {
            return Err(Refusal::Report("it goes back, or beyond the run"));
        }
        let fits = |index: u32| index >= flight.upto && index < report.upto;
        if !report.troubles.iter().all(|(index, _)| fits(*index))
            || !report.troubles.is_sorted_by(|(a, _), (b, _)| a < b)
            || !report.published.iter().all(|(index, _)| fits(*index))
            || !report.published.is_sorted_by(|(a, _), (b, _)| a < b)
            || report.published.iter().any(|(index, _)| report.troubles.binary_search_by_key(index, |t| t.0).is_ok())
        {
            return Err(Refusal::Report("it speaks of tasks that it does not cover"));
        }
        flight.upto = report.upto;
        if report.ended {
            worker.flights.pop_front();
        }
        Ok(())
    }

    /// A worker's process has ended. `running` is what its page says ran.
    pub fn exited(&mut self, id: WorkerId, death: Death, running: Option<(u32, u32)>) {
        let Some(worker) = self.workers.remove(&id) else { return };
        if worker.up {
            // One more start is tried, though starting was given up: if it fails too, that has to be said again.
            self.failed_starts = self.failed_starts.min(MOST_FAILED_STARTS - 1);
            self.out.push(NodeEffect::ToHead(FromNode::WorkerDown { worker: id, death, running }));
        } else if !worker.stopping {
            self.failed_starts += 1;
            if self.failed_starts == MOST_FAILED_STARTS {
                self.out.push(NodeEffect::ToHead(FromNode::CannotStart(death)));
            }
        }
        self.start_missing();
    }

    /// Workers that exist or are being started.
    pub fn workers(&self) -> impl Iterator<Item = WorkerId> + '_ {
        self.workers.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::ids::{GraphId, PeerId};
    use crate::message::End;

    fn effects(node: &mut Node) -> Vec<NodeEffect> {
        node.drain().collect()
    }

    fn up(node: &mut Node) -> WorkerId {
        node.want(1);
        let id = node.workers().last().unwrap();
        node.hello(id).unwrap();
        effects(node);
        id
    }

    fn run(worker: WorkerId, seq: u32, tasks: u32) -> Run {
        Run {
            id: RunId { worker, seq },
            graph: GraphId { peer: PeerId::USER, seq: 1 },
            tasks: (0..tasks).collect(),
            outputs: vec![0; tasks as usize],
            inputs: vec![],
            gpus: vec![],
        }
    }

    fn report(worker: WorkerId, seq: u32, upto: u32, ended: bool) -> Report {
        Report {
            run: RunId { worker, seq },
            upto,
            ended,
            troubles: vec![],
            published: vec![],
            contained: vec![],
            timings: vec![],
        }
    }

    #[test]
    fn a_dead_worker_is_replaced_and_told_of_once() {
        let mut node = Node::new();
        let id = up(&mut node);
        node.exited(id, End::Signalled(9).into(), Some((0, 3)));
        node.exited(id, End::Signalled(9).into(), None);
        assert_eq!(
            effects(&mut node),
            [
                NodeEffect::ToHead(FromNode::WorkerDown {
                    worker: id,
                    death: End::Signalled(9).into(),
                    running: Some((0, 3))
                }),
                NodeEffect::Start(WorkerId(1)),
            ]
        );
    }

    #[test]
    fn a_worker_that_makes_room_is_replaced_at_once_and_once() {
        let mut node = Node::new();
        let id = up(&mut node);
        node.replace(id);
        assert_eq!(effects(&mut node), [NodeEffect::Start(WorkerId(1))]);
        node.exited(id, End::Exited(0).into(), None);
        assert!(effects(&mut node).iter().all(|e| !matches!(e, NodeEffect::Start(_))));
    }

    #[test]
    fn a_stopped_worker_is_not_replaced() {
        let mut node = Node::new();
        let id = up(&mut node);
        node.want(0);
        node.stopping(id);
        node.exited(id, End::Exited(0).into(), None);
        assert!(effects(&mut node).iter().all(|e| !matches!(e, NodeEffect::Start(_))));
    }

    #[test]
    fn starts_that_fail_are_given_up_until_somebody_needs_them() {
        let mut node = Node::new();
        node.want(1);
        let mut seen = vec![];
        for id in 0..10 {
            node.exited(WorkerId(id), End::Exited(1).into(), None);
            seen.extend(effects(&mut node));
        }
        let starts = seen.iter().filter(|e| matches!(e, NodeEffect::Start(_))).count();
        let told = seen.iter().filter(|e| matches!(e, NodeEffect::ToHead(FromNode::CannotStart(_)))).count();
        assert_eq!((starts, told), (3, 1));
        node.nudge();
        assert_eq!(effects(&mut node), [NodeEffect::Start(WorkerId(3))]);
    }

    #[test]
    fn when_the_last_worker_dies_it_is_said_again_that_none_starts() {
        let mut node = Node::new();
        node.want(2);
        node.hello(WorkerId(0)).unwrap();
        node.hello(WorkerId(1)).unwrap();
        node.exited(WorkerId(0), End::Signalled(9).into(), None);
        for id in 2..5 {
            node.exited(WorkerId(id), End::Exited(1).into(), None);
        }
        effects(&mut node);
        node.exited(WorkerId(1), End::Signalled(9).into(), None);
        let last = node.workers().last().unwrap();
        node.exited(last, End::Exited(1).into(), None);
        let told = NodeEffect::ToHead(FromNode::CannotStart(End::Exited(1).into()));
        assert!(effects(&mut node).contains(&told));
    }

    #[test]
    fn reports_that_do_not_fit_are_refused() {
        let mut node = Node::new();
        let id = up(&mut node);
        assert!(node.assigned(&run(id, 0, 4)));
        assert!(node.assigned(&run(id, 1, 4)));
        node.check(&report(id, 0, 2, false)).unwrap();
        assert!(node.check(&report(id, 0, 1, false)).is_err(), "it goes back");
        assert!(node.check(&report(id, 0, 5, false)).is_err(), "it goes beyond");
        assert!(node.check(&report(id, 1, 1, false)).is_err(), "out of turn");
        assert!(node.check(&report(id, 7, 1, false)).is_err(), "unknown run");
        let mut covers_old = report(id, 0, 3, false);
        covers_old.troubles = vec![(1, crate::message::Trouble::Skipped)];
        assert!(node.check(&covers_old).is_err(), "covered already");
        node.check(&report(id, 0, 4, true)).unwrap();
        assert!(node.check(&report(id, 0, 4, true)).is_err(), "it has ended");
        node.check(&report(id, 1, 4, true)).unwrap();
    }
}
