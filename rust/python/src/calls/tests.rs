use std::sync::Arc;

use eagleray_core::ids::{GraphId, ObjectId, PeerId};
use eagleray_core::message::{GraphKind, GraphSpec, WHOLE};
use eagleray_runtime::command::Command;
use eagleray_runtime::program::{Part, Program};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use super::{RemoteCode, RemoteOptions, call, call_actor, create_actor};
use crate::refs::ObjectRef;
use crate::role::Role;
use crate::template::{CALL, CONST, FUNC, HEADER, INPUT, MAKES_ACTOR, NO_BATCH, OF_CALL, from_bytes};
use crate::testing::{Sent, in_role};

/// A submitted graph, with what followed before it was admitted as a whole.
struct Submitted {
    spec: GraphSpec,
    program: Program,
    part: Part,
}

impl Submitted {
    fn words(&self, template: usize) -> Vec<u32> {
        from_bytes(&self.program.templates[template].code).unwrap()
    }
}

/// The graphs that were submitted; what was put, held and released on the way.
fn submitted(sent: &Sent) -> (Vec<Submitted>, Vec<Command>) {
    let (mut graphs, mut rest) = (Vec::<Submitted>::new(), Vec::new());
    for command in sent.take() {
        match command {
            Command::Submit(spec, program) => {
                graphs.push(Submitted { spec: *spec, program: *program, part: Part::default() });
            }
            Command::Extend { graph, part, admit_upto } => {
                let last = graphs.last_mut().unwrap();
                assert_eq!((last.spec.id, last.spec.class.len() as u32), (graph, admit_upto));
                last.part = part;
            }
            other => rest.push(other),
        }
    }
    (graphs, rest)
}

fn code<'py>(py: Python<'py>, name: &str) -> Bound<'py, RemoteCode> {
    let target = py.import("builtins").unwrap().getattr(name).unwrap();
    py.get_type::<RemoteCode>().call1((target,)).unwrap().cast_into().unwrap()
}

fn options<'py>(py: Python<'py>, arguments: &str) -> Bound<'py, RemoteOptions> {
    let given = py.eval(&std::ffi::CString::new(format!("dict({arguments})")).unwrap(), None, None).unwrap();
    py.get_type::<RemoteOptions>().call(("task",), Some(given.cast::<PyDict>().unwrap())).unwrap().cast_into().unwrap()
}

fn object(index: u32) -> ObjectId {
    ObjectId { graph: GraphId { peer: PeerId::USER, seq: 99 }, index }
}

fn reference<'py>(py: Python<'py>, role: &Arc<Role>, index: u32) -> Bound<'py, ObjectRef> {
    Bound::new(py, ObjectRef::counted(role, object(index))).unwrap()
}

#[test]
fn arguments_are_constants_objects_and_objects_put_for_the_call() {
    in_role(|py, role, sent| {
        let (first, second) = (reference(py, role, 1), reference(py, role, 2));
        let big = PyBytes::new(py, &vec![0; 1 << 17]);
        let args = (&first, 7, &big, &big).into_pyobject(py).unwrap();
        let kwargs = PyDict::new(py);
        kwargs.set_item("b", &second).unwrap();
        kwargs.set_item("a", &first).unwrap();
        let refs = call(&code(py, "max"), &args, &kwargs, &options(py, "priority=3"), None).unwrap();
        let (graphs, rest) = submitted(sent);
        let [graph] = &graphs[..] else { panic!("one graph") };
        let put = ObjectId { graph: GraphId::puts(PeerId::USER), index: ObjectId::LITERALS };
        assert_eq!(graph.spec.externals, [object(1), put, object(2)]);
        assert_eq!(graph.spec.inputs.row(0), [1, 2, 3]);
        assert_eq!((graph.spec.priority, &graph.spec.kind), (3, &GraphKind::Independent));
        assert_eq!((&graph.spec.outputs[..], refs.len()), (&[0][..], 1));
        let arguments = [INPUT, 0, CONST, 1, INPUT, 2, INPUT, 3];
        let named = [FUNC, 1, INPUT, 4, INPUT, 5];
        assert_eq!(graph.words(0), [&[1, CALL, 4, 2, FUNC, 0], &arguments[..], &named].concat());
        assert_eq!(graph.program.code.row(0), [0, 0, 0, OF_CALL, 1, 0, 2, 2, 3, 1]);
        assert_eq!((graph.part.functions.len(), graph.part.batches.len()), (2, 1));
        // The graph holds what it reads, so nobody else does.
        assert!(matches!(&rest[..], [Command::Put(new, ..), Command::Release(old)] if *new == put && old[..] == [put]));
        drop(refs);
        let [Command::Release(released)] = &sent.take()[..] else { panic!("the result is released") };
        assert_eq!(released[..], [ObjectId { graph: graph.spec.id, index: 0 }]);
    });
}

#[test]
fn nothing_is_sent_that_a_call_does_not_need() {
    in_role(|py, _, sent| {
        let refs = call(&code(py, "dict"), &PyTuple::empty(py), &PyDict::new(py), &options(py, "num_returns=0"), None);
        assert!(refs.unwrap().is_empty());
        let (graphs, rest) = submitted(sent);
        let graph = &graphs[0];
        assert_eq!(graph.program.code.row(0), [0, NO_BATCH, 0, OF_CALL]);
        assert!(graph.spec.outputs.is_empty() && graph.part.batches.is_empty() && rest.is_empty());
        assert_eq!((graph.spec.classes[0].demand, graph.spec.demands.len()), (0, 0));
    });
}

#[test]
fn several_results_are_tasks_that_take_the_parts() {
    in_role(|py, _, sent| {
        let args = PyTuple::new(py, [1]).unwrap();
        let options = options(py, "num_returns=3, retries=2, resources={'CPU': 2}");
        let refs = call(&code(py, "divmod"), &args, &PyDict::new(py), &options, None).unwrap();
        let (graphs, _) = submitted(sent);
        let graph = &graphs[0];
        assert_eq!((refs.len(), &graph.spec.outputs[..]), (3, &[1, 2, 3][..]));
        assert!(graph.spec.inputs.row(0).is_empty());
        for task in 1..4 {
            assert_eq!(graph.spec.inputs.row(task), [0]);
            assert_eq!(graph.program.code.row(task)[..HEADER], [1, 1, 1, OF_CALL]);
            assert_eq!(graph.program.code.row(task)[HEADER..], [0, 3, task - 1]);
        }
        assert_eq!(graph.spec.demands[0].cpu, 2 * WHOLE);
        let [whole, part] = &graph.spec.classes[..] else { panic!("two classes") };
        assert_eq!((whole.demand, whole.retries, part.demand, part.retries), (1, 2, 0, 0));
        assert_eq!(graph.program.retry_filters[0].classes, [0]);
    });
}

#[test]
fn classes_are_the_same_in_each_call_and_differ_where_the_options_do() {
    in_role(|py, _, sent| {
        let mut last = None;
        let mut fingerprint = |name: &str, given: &str| {
            last =
                Some(call(&code(py, name), &PyTuple::empty(py), &PyDict::new(py), &options(py, given), None).unwrap());
            submitted(sent).0[0].spec.classes[0].fingerprint
        };
        let usual = fingerprint("dict", "");
        assert_eq!(fingerprint("dict", "priority=5"), usual);
        assert_ne!(fingerprint("dict", "max_retries=0"), usual);
        assert_ne!(fingerprint("dict", "resources={'disk': 1}"), usual);
        assert_ne!(fingerprint("list", ""), usual);
    });
}

#[test]
fn an_actor_is_made_and_its_calls_read_it() {
    in_role(|py, role, sent| {
        let (none, nothing) = (PyTuple::empty(py), PyDict::new(py));
        let meta = PyBytes::new(py, b"meta");
        let name = Some(("space".into(), "name".into()));
        let usual = options(py, "");
        let actor = create_actor(&code(py, "dict"), &none, &nothing, &usual, None, name, true, -1, 0.5, &meta).unwrap();
        let (graphs, _) = submitted(sent);
        let GraphKind::Actor(spec) = &graphs[0].spec.kind else { panic!("an actor") };
        assert_eq!((spec.max_restarts, spec.cpu, spec.detached), (u32::MAX, WHOLE / 2, true));
        assert_eq!(graphs[0].program.actor_meta.as_deref(), Some(&b"meta"[..]));
        assert_eq!(graphs[0].program.code.row(0)[HEADER - 1], MAKES_ACTOR);
        assert_eq!(
            (graphs[0].spec.classes[0].demand, graphs[0].spec.demands[0].cpu),
            (1, WHOLE),
            "it has to be placed"
        );

        let actor = Bound::new(py, actor).unwrap();
        let args = PyTuple::new(py, [reference(py, role, 5)]).unwrap();
        let two = options(py, "num_returns=2, resources={'CPU': 3}");
        let refs = call_actor(&actor, &code(py, "len"), &args, &nothing, &two).unwrap();
        let (graphs, rest) = submitted(sent);
        let [calls, parts] = &graphs[..] else { panic!("the call, and what takes its parts") };
        let object = actor.get().object(role).unwrap();
        assert_eq!((&calls.spec.kind, calls.spec.externals[0]), (&GraphKind::Calls, object));
        assert_eq!(calls.spec.inputs.row(0), [1, 2]);
        assert_eq!(calls.program.code.row(0)[HEADER..], [2], "the actor is no argument");
        assert_eq!(calls.spec.classes[0].demand, 0, "a call runs on what its actor has");
        let whole = ObjectId { graph: calls.spec.id, index: 0 };
        assert_eq!((&parts.spec.kind, &parts.spec.externals[..]), (&GraphKind::Independent, &[whole][..]));
        assert_eq!((parts.spec.inputs.row(1), refs.len()), (&[2][..], 2));
        let released = |command: &Command| matches!(command, Command::Release(objects) if objects[..] == [whole]);
        assert!(rest.iter().any(released), "only the parts are wanted");
    });
}

#[test]
fn what_cannot_be_pickled_is_named_and_leaves_nothing() {
    in_role(|py, _, sent| {
        let big = PyBytes::new(py, &vec![0; 1 << 17]);
        let lock = py.import("threading").unwrap().call_method0("Lock").unwrap();
        let args = PyTuple::new(py, [big.into_any(), lock]).unwrap();
        let error = call(&code(py, "max"), &args, &PyDict::new(py), &options(py, ""), None).err().unwrap();
        assert_eq!(error.to_string(), "TypeError: ['task'] lock");
        assert!(matches!(&sent.take()[..], [Command::Put(..), Command::Release(_)]));
    });
}
