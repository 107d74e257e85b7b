//! Runs that go well: results, lifetimes, hooks.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use eagleray_core::message::output::{KEEP, PUBLISH, SEAL};
use pyo3::prelude::*;
use pyo3::types::PyCFunction;

use super::{GRAPH, Io, Session, TASKS, call, constant, eval, functions, holds, input, local, object, pickled, python};
use crate::executor::Executor;
use crate::template::{CALL, DICT, FUNC, LIST, SET, TUPLE};

#[test]
fn a_chain_of_calls() {
    python(|py| {
        let session = Session::default();
        session.template(py, 0, &[call(0, &[constant(0)])], &["inc"]);
        session.template(py, 1, &[call(0, &[input(0), input(1), constant(2)])], &["collect"]);
        session.constants(py, "[1, 'c']");
        let io = Io::new(3);
        let tasks: [(u32, u32, u8, &[u32]); 3] = [(7, 0, 0, &[0]), (3, 1, KEEP, &[7, 7, 1]), (5, 1, KEEP, &[3, 7, 1])];
        session.execute(py, &tasks, &io).unwrap();
        assert_eq!(io.ends(), "+++");
        assert_eq!(*io.started.borrow(), [0, 1, 2]);
        assert_eq!(session.kept_repr(py, 3).unwrap(), "((2, 2, 'c'), {})");
        assert_eq!(session.kept_repr(py, 5).unwrap(), "((((2, 2, 'c'), {}), 2, 'c'), {})");
        assert!(session.kept(py, 7).is_none());
        session.executor.drop_kept(object(3));
        assert!(session.kept(py, 3).is_none());
    });
}

#[test]
fn keyword_arguments_and_containers() {
    python(|py| {
        let session = Session::default();
        let named = [&[CALL, 1, 2, FUNC, 0][..], &constant(0), &[FUNC, 1], &constant(1), &constant(0)].concat();
        session.template(py, 0, &[named], &["add", "('z', 'y')"]);
        let inner = [
            &[LIST, 4][..],
            &[&[TUPLE, 2], &constant(0)[..], &constant(1)].concat(),
            &[&[SET, 2], &constant(0)[..], &constant(0)].concat(),
            &[&[DICT, 2], &constant(0)[..], &[LIST, 0], &constant(1), &[TUPLE, 0]].concat(),
            &[FUNC, 0],
        ];
        session.template(py, 1, &[inner.concat()], &["'shape'"]);
        session.template(py, 2, &[[&[SET, 1][..], &[LIST, 0]].concat()], &[]);
        session.template(py, 3, &[constant(0)], &[]);
        session.constants(py, "[1, 20]");
        let io = Io::new(4);
        let tasks: [(u32, u32, u8, &[u32]); 4] =
            [(0, 0, KEEP, &[0, 1]), (1, 1, KEEP, &[0, 1]), (2, 2, KEEP, &[]), (3, 3, KEEP, &[1])];
        session.execute(py, &tasks, &io).unwrap();
        assert_eq!(io.ends(), "++R+");
        assert_eq!(session.kept_repr(py, 0).unwrap(), "22");
        assert_eq!(session.kept_repr(py, 1).unwrap(), "[(1, 20), {1}, {1: [], 20: ()}, 'shape']");
        assert_eq!(io.error(py, 2).0, "TypeError");
        assert_eq!(session.kept_repr(py, 3).unwrap(), "20");
    });
}

#[test]
fn bound_methods_are_called() {
    python(|py| {
        let session = Session::default();
        session.template(py, 0, &[call(0, &[constant(0), constant(0)])], &["'{}-{}'.format"]);
        session.constants(py, "['a']");
        session.execute(py, &[(0, 0, KEEP, &[0])], &Io::new(1)).unwrap();
        assert_eq!(session.kept_repr(py, 0).unwrap(), "'a-a'");
    });
}

#[test]
fn steps_are_dropped_at_their_last_use() {
    python(|py| {
        let session = Session::default();
        // Two things are made; the first is gone before the second is looked at, the second is gone at the end.
        let steps = [
            call(0, &[]),
            call(1, &[local(0)]),
            call(0, &[]),
            call(2, &[]),
            call(1, &[local(2)]),
            call(2, &[]),
            [vec![LIST, 2], local(3), local(5)].concat(),
        ];
        session.template(py, 0, &steps, &["Thing", "nothing", "Thing.count"]);
        session.execute(py, &[(0, 0, KEEP, &[])], &Io::new(1)).unwrap();
        assert_eq!(session.kept_repr(py, 0).unwrap(), "[1, 0]");
    });
}

#[test]
fn results_are_dropped_after_their_last_reader() {
    python(|py| {
        let session = Session::default();
        session.template(py, 0, &[call(0, &[])], &["Thing"]);
        session.template(py, 1, &[call(0, &[input(0), input(1)])], &["Thing.count"]);
        session.template(py, 2, &[call(0, &[])], &["Thing.count"]);
        let counts = RefCell::new(Vec::new());
        let io = Io {
            between: Box::new(|py, _| counts.borrow_mut().push(eval(py, "Thing.count()").extract::<u32>().unwrap())),
            ..Io::new(6)
        };
        let tasks: [(u32, u32, u8, &[u32]); 6] = [
            (0, 0, 0, &[]),
            (1, 0, 0, &[]),
            (2, 1, 0, &[0, 1]),
            (3, 1, 0, &[0, 0]),
            (4, 0, 0, &[]),
            (5, 1, 0, &[1, 1]),
        ];
        session.execute(py, &tasks, &io).unwrap();
        assert_eq!(io.ends(), "++++++");
        // The thing that task 4 makes has no reader at all.
        assert_eq!(*counts.borrow(), [1, 2, 2, 1, 1, 0]);
    });
}

#[test]
fn what_recalled_tasks_would_have_read_is_kept() {
    python(|py| {
        let session = Session::default();
        session.template(py, 0, &[constant(0)], &[]);
        session.template(py, 1, &[call(0, &[input(0), input(1)])], &["collect"]);
        session.constants(py, "['a', 'b', 'c']");
        let seen = Cell::new(0);
        let io = Io {
            between: Box::new(|py, claimed| {
                // Asked for while the run goes on: it is there, too.
                if claimed == 3 && session.kept(py, 1).is_some() && session.kept(py, 2).is_none() {
                    seen.set(claimed);
                }
            }),
            ..Io::new(4)
        };
        let tasks: [(u32, u32, u8, &[u32]); 5] =
            [(0, 0, 0, &[0]), (1, 0, 0, &[1]), (2, 0, 0, &[2]), (3, 1, 0, &[0, 0]), (4, 1, 0, &[1, 3])];
        session.execute(py, &tasks, &io).unwrap();
        assert_eq!(io.ends(), "++++");
        assert_eq!(seen.get(), 3);
        assert!(session.kept(py, 0).is_none());
        assert_eq!(session.kept_repr(py, 1).unwrap(), "'b'");
        assert_eq!(session.kept_repr(py, 3).unwrap(), "(('a', 'a'), {})");
        // The recalled task runs later, on what was kept.
        session.execute(py, &[(4, 1, KEEP, &[1, 3])], &Io::new(1)).unwrap();
        assert_eq!(session.kept_repr(py, 4).unwrap(), "(('b', (('a', 'a'), {})), {})");
    });
}

#[test]
fn results_are_published_before_the_next_task_starts() {
    python(|py| {
        let session = Session::default();
        session.template(py, 0, &[call(0, &[constant(0)])], &["inc"]);
        session.constants(py, "[1]");
        let io = Io::new(2);
        session.execute(py, &[(0, 0, PUBLISH, &[0]), (1, 0, PUBLISH | SEAL | KEEP, &[0])], &io).unwrap();
        let published = io.published.borrow();
        assert_eq!(
            published.iter().map(|(place, _, seal)| (*place, *seal)).collect::<Vec<_>>(),
            [(0, false), (1, true)]
        );
        assert_eq!(io.ended.borrow()[0].1, published[0].1.len() as u64);
        assert!(session.kept(py, 0).is_none());
        assert_eq!(session.kept_repr(py, 1).unwrap(), "2");
    });
}

#[test]
fn hooks_are_called_in_order_with_inputs_and_state() {
    python(|py| {
        eval(py, "log.clear()");
        let session = Session::default();
        session.template(py, 0, &[constant(0)], &[]);
        session.template(py, 1, &[call(0, &[input(0), constant(1), input(2), input(3)])], &["collect"]);
        session.constants(py, "['k0', 'k1', 'k2']");
        session.hooks(py, "[(before, after), (None, after), (before, None)]");
        let external = TASKS + 4;
        let io = Io::new(2);
        let tasks: [(u32, u32, u8, &[u32]); 2] = [(0, 0, 0, &[2]), (1, 1, 0, &[external, 1, 0, external])];
        session.execute_with(py, &tasks, &[(4, "'put'")], &io).unwrap();
        assert_eq!(io.ends(), "++");
        let log = eval(py, "log");
        assert!(holds(
            &log,
            "x[:4] == [('before', 'k0', ()), ('before', 'k0', ()), ('after', 'k0', 'k2', 'K0'), ('after', 'k0', 'k2', None)]"
        ));
        assert!(holds(&log, "x[4:6] == [('before', 'k1', ('put', 'k2'))] * 2"));
        assert!(holds(&log, "x[6][2] == (('put', 'k1', 'k2', 'put'), {}) and x[6][3] == 'K1' and len(x) == 8"));

        session.hooks(py, "[(before_fails, None)]");
        let io = Io::new(2);
        session.execute(py, &[(0, 0, 0, &[2]), (1, 1, KEEP, &[0, 0, 0, 0])], &io).unwrap();
        assert_eq!(io.ends(), "RS");
        assert_eq!(io.error(py, 0), ("LookupError".into(), "hook".into()));
    });
}

#[test]
fn a_task_may_start_a_run_and_ask_for_values() {
    python(|py| {
        let session = Arc::new(Session::default());
        session.template(py, 0, &[constant(0)], &[]);
        session.template(py, 1, &[call(0, &[input(0)])], &["inc"]);
        session.template(py, 2, &[call(0, &[input(0)])], &["reenter"]);
        session.constants(py, "[5]");
        let inner = session.clone();
        let callback = PyCFunction::new_closure(py, None, None, move |arguments, _| -> PyResult<u32> {
            let py = arguments.py();
            let io = Io::new(2);
            inner.execute(py, &[(10, 0, 0, &[0]), (11, 1, KEEP, &[10])], &io)?;
            let nested: u32 = inner.kept(py, 11).unwrap().extract()?;
            // Not kept, but in the hands of the run that goes on around this one.
            let outer: u32 = inner.kept(py, 0).unwrap().extract()?;
            Ok(100 * nested + outer + arguments.get_item(0)?.extract::<u32>()?)
        });
        functions(py).setattr("callback", callback.unwrap()).unwrap();
        let io = Io::new(3);
        let tasks: [(u32, u32, u8, &[u32]); 3] = [(0, 0, 0, &[0]), (1, 2, KEEP, &[0]), (2, 1, KEEP, &[1])];
        session.execute(py, &tasks, &io).unwrap();
        functions(py).delattr("callback").unwrap();
        assert_eq!(io.ends(), "+++");
        assert_eq!(session.kept_repr(py, 2).unwrap(), "611");
        assert!(session.kept(py, 0).is_none());
    });
}

#[test]
fn forgetting_a_graph_drops_its_program_and_no_values() {
    python(|py| {
        let session = Session::default();
        session.template(py, 0, &[constant(0)], &[]);
        session.constants(py, "[1]");
        session.execute(py, &[(0, 0, KEEP, &[0])], &Io::new(1)).unwrap();
        session.executor.forget(super::GRAPH);
        assert_eq!(session.kept_repr(py, 0).unwrap(), "1");
        let error = session.execute(py, &[(1, 0, KEEP, &[0])], &Io::new(1)).unwrap_err();
        assert_eq!(error.to_string(), "RuntimeError: unknown template 0");
    });
}

#[test]
fn sizes_are_guessed() {
    python(|py| {
        let guess = |expression| crate::executor::size::guess(&eval(py, expression));
        assert_eq!(guess("1"), guess("None"));
        assert!((1000..2000).contains(&guess("b'x' * 1000")));
        assert!((1000..2000).contains(&guess("'x' * 1000")));
        assert_eq!(guess("array(1000)"), 8000);
        assert_eq!(guess("__import__('pandas').DataFrame({'a': [1.0] * 500, 'b': 1})"), 8000);
        assert!(guess("[1] * 1000") >= 8000);
        assert!(guess("Thing()") > 0);
    });
}

/// A worker's main thread makes it, and whatever thread computes in the user's process.
#[test]
fn an_executor_may_be_shared() {
    fn shared<T: Send + Sync>(_: &T) {}
    let executor = Executor::new();
    shared(&executor);
    python(|py| executor.add_blob(0, pickled(py, "inc")));
}

/// Other workers have copies of a published result; what the original stands for is theirs too.
#[test]
fn what_is_published_does_not_end_before_its_graph() {
    python(|py| {
        for class in ["Ends", "Wrapper"] {
            let session = Session::default();
            session.template(py, 0, &[call(0, &[])], &[class]);
            session.template(py, 1, &[call(0, &[input(0)])], &["nothing"]);
            session.template(py, 2, &[call(0, &[])], &["Ends.count"]);
            let counted = |output| {
                let tasks: [(u32, u32, u8, &[u32]); 3] = [(0, 0, output, &[]), (1, 1, 0, &[0]), (2, 2, KEEP, &[])];
                session.execute(py, &tasks, &Io::new(3)).unwrap();
                session.kept_repr(py, 2).unwrap()
            };
            assert_eq!(counted(0), "0", "{class}");
            assert_eq!(counted(PUBLISH), "1", "{class}");
            session.executor.forget(GRAPH);
            assert!(holds(&py.None().into_bound(py), "len(Ends.alive) == 0"), "{class}");
        }
    });
}
