//! User priority between graphs.

use eagleray_core::ids::{GraphId, PeerId, WorkerId};
use eagleray_core::message::{FromNode, GraphSpec, ToHead, ToNode};

use crate::fake::{Fake, graph_id, object, wide};

fn with_priority(seq: u32, n: u32, priority: i32) -> GraphSpec {
    GraphSpec { priority, ..wide(graph_id(seq), n) }
}

/// One worker, and a graph of the lowest priority of which it has one task.
fn busy() -> Fake {
    let mut fake = Fake::new(1);
    fake.task_ns = 5_000_000;
    fake.run_graph(with_priority(1, 1, -9));
    fake
}

/// The graphs in the order in which the only worker gets to them.
fn served(fake: &mut Fake) -> Vec<u32> {
    let mut order = Vec::new();
    while let Some(run) = fake.runs.values().next().cloned() {
        order.push(run.graph.seq);
        fake.finish(&run);
    }
    order
}

#[test]
fn higher_goes_first_and_equal_in_the_order_of_submission() {
    let mut fake = busy();
    for (seq, priority) in [(2, 0), (3, 5), (4, -1), (5, 5)] {
        fake.user(ToHead::Submit(Box::new(with_priority(seq, 1, priority))));
    }
    for seq in 2..=5 {
        fake.handle(eagleray_core::head::HeadEvent::Driver(eagleray_core::message::FromDriver {
            peer: PeerId::USER,
            message: ToHead::Admit { graph: graph_id(seq), upto: 1 },
        }));
    }
    assert_eq!(served(&mut fake), [1, 3, 5, 2, 4]);
}

#[test]
fn what_waits_in_front_of_a_worker_is_taken_back_for_what_is_more_urgent() {
    let mut fake = busy();
    fake.run_all();
    fake.run_graph(with_priority(2, 4, 0));
    let runs = fake.runs_of(0);
    assert!(runs.len() > 1);
    fake.run_graph(with_priority(3, 1, 1));
    for run in &runs {
        assert!(fake.sent.contains(&ToNode::Recall { run: run.id, from: 0 }));
    }
    fake.sent.clear();
    fake.run_graph(with_priority(4, 1, 0));
    assert!(fake.sent.is_empty(), "equal priority takes nothing back");
    // The first run has begun.
    fake.node(FromNode::Recalled { run: runs[0].id, limit: 1 });
    for run in &runs[1..] {
        fake.node(FromNode::Recalled { run: run.id, limit: 0 });
        fake.runs.remove(&run.id);
    }
    fake.deliver(fake.report(&runs[0], 0, 1, true));
    for run in &runs[1..] {
        fake.node(FromNode::Report(fake.report(run, 0, 0, true)));
    }
    assert_eq!(fake.runs_of(0)[0].graph, graph_id(3));
}

#[test]
fn what_a_task_submits_is_as_urgent_as_the_task() {
    let mut fake = Fake::new(1);
    fake.task_ns = 5_000_000;
    fake.run_graph(with_priority(1, 1, 3));
    let inner = GraphId { peer: PeerId::of_worker(WorkerId(0)), seq: 1 };
    fake.run_graph(GraphSpec { priority: -7, ..wide(inner, 1) });
    fake.run_graph(with_priority(2, 1, 2));
    fake.ask_as(inner.peer, 1, &[object(inner, 0)]);
    fake.up(1);
    assert_eq!(fake.runs_of(1)[0].graph, inner);
}
