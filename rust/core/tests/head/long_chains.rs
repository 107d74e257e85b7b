//! Thousands of tasks of which each reads the one before.

use eagleray_core::head::{Head, HeadConfig, HeadEvent};
use eagleray_core::ids::ObjectId;
use eagleray_core::message::{FromDriver, FromNode, GraphKind, GraphSpec, ToHead};

use crate::fake::{USER, graph, graph_id, object, wide};

const LONG: u32 = 20_000;

fn tell(head: &mut Head, message: ToHead) {
    head.handle(1, HeadEvent::Driver(FromDriver { peer: USER, message }));
}

/// A chain of graphs; of the last alone the result is held.
fn chain(head: &mut Head, link: impl Fn(GraphSpec, ObjectId) -> GraphSpec) {
    for seq in 1..=LONG {
        let spec = GraphSpec { kind: GraphKind::Independent, ..wide(graph_id(seq), 1) };
        let spec = if seq == 1 { spec } else { link(spec, object(graph_id(seq - 1), 0)) };
        tell(head, ToHead::Submit(Box::new(spec)));
        tell(head, ToHead::Admit { graph: graph_id(seq), upto: 1 });
        if seq > 1 {
            tell(head, ToHead::Release(vec![object(graph_id(seq - 1), 0)]));
        }
    }
}

fn reads(spec: GraphSpec, last: ObjectId) -> GraphSpec {
    let inputs = graph(spec.id, &[&[1]], &[0]).inputs;
    GraphSpec { externals: vec![last], inputs, ..spec }
}

#[test]
fn a_failure_runs_through_a_long_chain() {
    let mut head = Head::new(HeadConfig::new(1));
    chain(&mut head, reads);
    tell(&mut head, ToHead::CancelTask { object: object(graph_id(1), 0), force: false, recursive: false });
    head.check().unwrap();
    tell(&mut head, ToHead::Release(vec![object(graph_id(LONG), 0)]));
    assert!(head.is_idle());
}

#[test]
fn the_failure_of_computations_runs_through_a_long_chain() {
    let mut head = Head::new(HeadConfig::new(1));
    chain(&mut head, |spec, last| GraphSpec { kind: GraphKind::Computation, ..reads(spec, last) });
    tell(&mut head, ToHead::Cancel { graph: graph_id(1) });
    head.check().unwrap();
    tell(&mut head, ToHead::Release(vec![object(graph_id(LONG), 0)]));
    assert!(head.is_idle());
}

#[test]
fn a_long_chain_of_tasks_that_name_each_other_is_let_go() {
    let mut head = Head::new(HeadConfig::new(1));
    chain(&mut head, |spec, last| GraphSpec { contained: vec![last], ..spec });
    for seq in 1..=LONG {
        tell(&mut head, ToHead::CancelTask { object: object(graph_id(seq), 0), force: false, recursive: false });
    }
    tell(&mut head, ToHead::Release(vec![object(graph_id(LONG), 0)]));
    assert!(head.is_idle());
}

#[test]
fn a_long_chain_that_can_have_no_worker_fails() {
    let mut head = Head::new(HeadConfig::new(1));
    chain(&mut head, reads);
    let death = eagleray_core::message::End::Exited(1).into();
    head.handle(2, HeadEvent::Node(FromNode::CannotStart(death)));
    head.check().unwrap();
    tell(&mut head, ToHead::Release(vec![object(graph_id(LONG), 0)]));
    assert!(head.is_idle());
}
