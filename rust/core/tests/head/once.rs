//! Calls that are not to be run twice: `max_retries` is 0.

use eagleray_core::head::HeadConfig;
use eagleray_core::message::{ClassSpec, GraphKind, GraphSpec, output};

use crate::fake::{Fake, graph, graph_id};

/// The second and the third read the first, which nobody else does; the third is a part of it.
fn calls(max_retries: u8, kind: GraphKind) -> GraphSpec {
    let spec = graph(graph_id(1), &[&[], &[0], &[0]], &[1, 2]);
    let class = ClassSpec { max_retries, ..spec.classes[0] };
    let (reader, part) = (ClassSpec { fingerprint: 8, ..spec.classes[0] }, ClassSpec { part: true, ..spec.classes[0] });
    GraphSpec { kind, classes: vec![class, reader, part], class: vec![0, 1, 2], position: vec![0, 2, 1], ..spec }
}

#[test]
fn are_reported_at_once_with_what_they_have_made() {
    for slots in [1, 2] {
        let mut fake = Fake::with(HeadConfig::new(slots));
        fake.up(0);
        fake.run_graph(calls(0, GraphKind::Independent));
        let run = fake.only_run();
        assert_eq!(run.tasks, [0, 2, 1]);
        // Its reader may end the worker, and is run again then.
        assert_eq!(run.outputs[0], output::PUBLISH | output::ONCE);
        assert_eq!(run.outputs[1] & (output::ONCE | output::WITH_LAST), output::WITH_LAST);
        assert_eq!(run.outputs[2] & output::ONCE, 0);
    }
}

#[test]
fn are_none_of_a_computation_nor_with_retries() {
    for (max_retries, kind) in [(1, GraphKind::Independent), (0, GraphKind::Computation)] {
        let mut fake = Fake::new(1);
        fake.run_graph(calls(max_retries, kind));
        assert_eq!(fake.only_run().outputs[0], 0);
    }
}
