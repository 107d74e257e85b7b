//! Results that cannot be encoded.

use eagleray_core::ids::WorkerId;
use eagleray_core::message::{FailureKind, FromNode, ToNode, Trouble, output};

use crate::fake::{Fake, graph, graph_id, object};

fn unsendable() -> Trouble {
    Trouble::Unsendable(b"no".as_slice().into())
}

/// Two workers, with a first task each, whose results are `a` and `b`; then what reads them.
fn two_branches(inputs: &[&[u32]], output: u32) -> Fake {
    let mut fake = Fake::new(2);
    // Measured before: so long that a run is one task, and that the graph is spread at once.
    fake.task_ns = 5_000_000;
    fake.run_graph(graph(graph_id(1), &[&[]], &[0]));
    fake.run_all();
    let id = graph_id(2);
    fake.run_graph(graph(id, &[&[&[][..], &[]], inputs].concat(), &[output]));
    fake.ask(1, &[object(id, output)]);
    fake
}

#[test]
fn what_cannot_be_sent_is_read_where_it_is() {
    let mut fake = two_branches(&[&[0], &[1], &[2, 3]], 4);
    let (left, right) = (fake.runs_of(0)[0].clone(), fake.runs_of(1)[0].clone());
    assert_eq!(left.outputs, [output::PUBLISH]);
    fake.finish_with(&left, 0, unsendable());
    // The other worker has nothing to do, and yet.
    fake.finish(&right);
    let reader = fake.runs.values().find(|run| run.tasks.contains(&2)).expect("the reader is assigned").clone();
    assert_eq!(reader.id.worker, left.id.worker);
    let id = reader.graph;
    fake.run_all();
    assert_eq!(fake.values(1), 1);
    assert_eq!(fake.dropped(object(id, left.tasks[0])), 1);
}

#[test]
fn what_cannot_be_sent_and_must_be_is_a_failure() {
    let mut fake = two_branches(&[&[0, 1]], 2);
    let (left, right) = (fake.runs_of(0)[0].clone(), fake.runs_of(1)[0].clone());
    let id = left.graph;
    fake.finish_with(&left, 0, unsendable());
    fake.finish_with(&right, 0, unsendable());
    for worker in [0, 1] {
        let objects = vec![object(id, worker)];
        assert!(fake.sent.contains(&ToNode::Publish { worker: WorkerId(worker), objects, seal: false }));
    }
    fake.node(FromNode::Published { worker: WorkerId(0), object: object(id, 0), place: None, contained: Vec::new() });
    let again = fake.runs.values().find(|run| run.tasks == [0]).expect("it is made again").clone();
    fake.finish_with(&again, 0, unsendable());
    let failure = fake.failure(1);
    assert_eq!(failure.origin, object(id, 0));
    assert!(matches!(failure.kind, FailureKind::Raised { ref error, .. } if **error == *b"no"));
}

#[test]
fn a_result_that_is_asked_for_must_be_sent() {
    let mut fake = two_branches(&[], 0);
    let left = fake.runs.values().find(|run| run.tasks.contains(&0)).expect("assigned").clone();
    fake.finish_with(&left, 0, unsendable());
    assert_eq!(fake.failure(1).origin, object(left.graph, 0));
}
