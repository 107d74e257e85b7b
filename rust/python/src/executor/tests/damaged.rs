//! Damaged values and programs: an error, never a panic and never memory that is not theirs.

use std::sync::Arc;

use eagleray_core::graph::Csr;
use eagleray_core::message::Run;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;
use pyo3::prelude::*;

use super::{GRAPH, Io, RunId, Session, TASKS, WorkerId, encoded, external, pickled, python};
use crate::executor::shape::Shape;
use crate::template;
use crate::value::{self, Payload};

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() })
}

/// Only what stands around the pickle is damaged: what a damaged pickle does is the unpickler's affair.
#[test]
fn a_damaged_value_is_a_value_or_an_error() {
    python(|py| {
        let values = ["1", "b'x' * 5000", "[array(1000), array(2000)]", "{'a': array(600), 'b': 'text'}"];
        let values: Vec<(Vec<u8>, usize)> = values
            .iter()
            .map(|expression| {
                let payload = encoded(py, expression);
                let bytes = (*payload).as_ref().to_vec();
                let parts = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
                (bytes, 8 + 16 * parts)
            })
            .collect();
        let damages = vec((any::<Index>(), prop_oneof![any::<u8>(), Just(0), Just(0xff), Just(0x80)]), 0..4);
        let strategy = (prop::sample::select(values), damages, proptest::option::of(any::<Index>()), any::<bool>());
        runner(400)
            .run(&strategy, |((mut bytes, table), damages, cut, copy)| {
                for (at, byte) in damages {
                    bytes[at.index(table)] = byte;
                }
                if let Some(cut) = cut {
                    bytes.truncate(cut.index(bytes.len()));
                }
                let payload: Payload = Arc::new(bytes);
                // What comes out is touched, all of it.
                if let Ok(value) = value::decode(py, &payload, copy) {
                    prop_assert!(value.repr().is_ok());
                    prop_assert!(value::encode(py, &value).is_ok());
                }
                Ok(())
            })
            .unwrap();
    });
}

#[test]
fn bytes_that_are_no_value_are_an_error() {
    python(|py| {
        runner(400)
            .run(&vec(any::<u8>(), 0..200), |bytes| {
                let payload: Payload = Arc::new(bytes);
                prop_assert!(value::decode(py, &payload, true).is_err());
                Ok(())
            })
            .unwrap();
    });
}

/// Words of which many are opcodes and small counts.
fn words(most: usize) -> impl Strategy<Value = Vec<u32>> {
    vec(prop_oneof![8 => 0..9u32, 4 => 0..3u32, 1 => any::<u32>()], 0..most)
}

#[test]
fn any_words_are_a_template_or_a_bad_program() {
    runner(5_000)
        .run(&(words(40), 0..4usize, any::<bool>()), |(words, functions, whole)| {
            let mut code = template::to_bytes(&words);
            if !whole {
                code.pop();
            }
            let _ = Shape::compile(&code, vec![0; functions]);
            Ok(())
        })
        .unwrap();
}

/// An expression as [`template`] describes it, with numbers that mostly mean something.
fn expressions() -> impl Strategy<Value = Vec<u32>> {
    let leaf = (prop_oneof![4 => 0..3u32, 1 => 3..4u32], 0..3u32).prop_map(|(op, number)| vec![op, number]);
    leaf.prop_recursive(4, 24, 4, |inner| {
        let container = (5..9u32, vec(inner.clone(), 0..4)).prop_map(|(op, mut parts)| {
            if op == template::DICT && parts.len() % 2 == 1 {
                parts.pop();
            }
            let count = if op == template::DICT { parts.len() / 2 } else { parts.len() };
            [&[op, count as u32], &parts.concat()[..]].concat()
        });
        let call = (0..3u32, vec(inner, 0..4), any::<bool>()).prop_map(|(function, mut parts, named)| {
            let named = if named { parts.pop() } else { None };
            let head = [template::CALL, parts.len() as u32, u32::from(named.is_some()), template::FUNC, function];
            // Function entry 1 is the names.
            let named = named.map_or(Vec::new(), |part| [&[template::FUNC, 1], &part[..]].concat());
            [&head[..], &parts.concat(), &named].concat()
        });
        prop_oneof![container, call]
    })
}

/// What was accepted as a template runs, or its task fails, whatever its row says.
#[test]
fn any_template_with_any_row_runs_or_fails() {
    python(|py| {
        let functions = ["collect", "('a',)", "inc"].map(|expression| pickled(py, expression));
        let batch = pickled(py, "[1, 'two', [3]]");
        let rows = vec((vec(prop_oneof![8 => 0..6u32, 2 => TASKS..TASKS + 3, 1 => any::<u32>()], 0..6), 0..8u8), 1..4);
        let damages = vec((any::<Index>(), 0..9u32), 0..2);
        let templates = (vec(expressions(), 1..4), damages).prop_map(|(steps, damages)| {
            let mut code = [vec![steps.len() as u32], steps.concat()].concat();
            for (at, word) in damages {
                let at = at.index(code.len());
                code[at] = word;
            }
            code
        });
        let mut run_at_all = 0;
        let mut count = |(code, rows): (Vec<u32>, Vec<(Vec<u32>, u8)>)| {
            let session = Session::default();
            for (id, pickle) in (0u32..).zip(&functions) {
                session.executor.add_blob(id, pickle.clone());
                session.executor.add_function(GRAPH, id, id);
            }
            session.executor.add_batch(GRAPH, 0, batch.clone());
            if session.executor.add_template(GRAPH, 0, &template::to_bytes(&code), vec![0, 1, 2]).is_err() {
                return;
            }
            session.executor.add_input(external(0).unwrap(), encoded(py, "array(5)"));
            let mut csr = Csr::new();
            for (parameters, _) in &rows {
                csr.push_row([5, 0, 0, template::NO_KEY].into_iter().chain(parameters.iter().copied()));
            }
            let run = Run {
                id: RunId { worker: WorkerId(0), seq: 0 },
                graph: GRAPH,
                tasks: (0..rows.len() as u32).collect(),
                outputs: rows.iter().map(|(_, flags)| *flags).collect(),
                inputs: vec![external(0).unwrap()],
            };
            let io = Io::new(rows.len());
            match session.executor.execute(py, &run, &csr, TASKS, &external, &io) {
                Ok(()) => {
                    run_at_all += 1;
                    assert_eq!(io.ended.borrow().len(), rows.len());
                }
                Err(error) => assert!(error.is_instance_of::<pyo3::exceptions::PyRuntimeError>(py), "{error}"),
            }
        };
        let mut runner = TestRunner::deterministic();
        for _ in 0..1_000 {
            use proptest::strategy::ValueTree;
            let case = (&templates, &rows).new_tree(&mut runner).unwrap().current();
            count(case);
        }
        assert!(run_at_all > 100, "too few templates are sound: {run_at_all}");
    });
}
