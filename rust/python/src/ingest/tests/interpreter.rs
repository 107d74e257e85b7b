//! What a worker does with templates, in its simplest form; and what must be true of every graph.

use pyo3::exceptions::PyAssertionError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PySet, PyTuple};

use crate::ingest::{Ingested, Options, ResultShape};
use crate::template::{CALL, CONST, DICT, FUNC, HEADER, INPUT, LIST, LOCAL, NO_BATCH, NO_KEY, SET, TUPLE};

/// Executes all tasks in their order; the values asked for.
pub(super) fn run<'py>(py: Python<'py>, graph: &Ingested, options: Options) -> PyResult<Bound<'py, PyAny>> {
    check_form(py, graph, options);
    let mut values: Vec<Option<Bound<'py, PyAny>>> = vec![None; graph.position.len()];
    for reference in &graph.externals {
        values.push(Some(reference.bind(py).getattr("value")?));
    }
    values.extend(graph.literals.iter().map(|value| Some(value.bind(py).clone())));
    let mut tasks: Vec<usize> = (0..graph.position.len()).collect();
    tasks.sort_by_key(|&task| graph.position[task]);
    for task in tasks {
        let row = graph.code.row(task as u32);
        let (code, functions) = &graph.templates[row[2] as usize];
        let mut reader = Reader { py, graph, row, code, functions, at: 1, locals: Vec::new(), values: &values };
        for _ in 0..code[0] {
            let value = reader.expression()?;
            reader.locals.push(value);
        }
        assert_eq!(reader.at, code.len(), "the code is longer than its steps");
        values[task] = reader.locals.pop();
    }
    shape(py, graph, &graph.result, &values)
}

/// What must be true of every ingested graph.
fn check_form(py: Python<'_>, graph: &Ingested, options: Options) {
    let tasks = graph.position.len();
    assert_eq!(
        [graph.inputs.len(), graph.class.len(), graph.code.len(), graph.keys.len(), graph.nodes.len()],
        [tasks; 5]
    );
    let externals = graph.externals.len() + graph.literals.len();
    let mut by_position = vec![usize::MAX; tasks];
    for task in 0..tasks {
        by_position[graph.position[task] as usize] = task;
        let mut row = graph.inputs.row(task as u32).to_vec();
        for &input in &row {
            assert!((input as usize) < tasks + externals);
            if let Some(position) = graph.position.get(input as usize) {
                assert!(*position < graph.position[task], "a task comes before its input");
            }
        }
        row.sort_unstable();
        assert!(row.is_sorted_by(|a, b| a < b), "an input is named twice");
        assert!((graph.class[task] as usize) < graph.classes.len());
        assert_eq!(graph.code.row(task as u32)[0], graph.class[task]);
    }
    assert!(!by_position.contains(&usize::MAX), "positions are no permutation");
    assert_eq!(graph.batches.last().map_or(0, |batch| batch.upto as usize), tasks);
    let mut from = 0;
    for (number, batch) in graph.batches.iter().enumerate() {
        for &task in &by_position[from..batch.upto as usize] {
            let row = graph.code.row(task as u32);
            assert!(row[1] == NO_BATCH || row[1] == number as u32);
            if options.keys_for_hooks {
                assert!(batch.constants[row[3] as usize].bind(py).eq(&graph.keys[task]).unwrap());
            } else {
                assert_eq!(row[3], NO_KEY);
            }
        }
        from = batch.upto as usize;
    }
    let mut outputs = graph.outputs.clone();
    outputs.sort_unstable();
    assert!(outputs.is_sorted_by(|a, b| a < b), "an output is named twice");
}

struct Reader<'a, 'py> {
    py: Python<'py>,
    graph: &'a Ingested,
    row: &'a [u32],
    code: &'a [u32],
    functions: &'a [u32],
    at: usize,
    locals: Vec<Bound<'py, PyAny>>,
    values: &'a [Option<Bound<'py, PyAny>>],
}

impl<'py> Reader<'_, 'py> {
    fn word(&mut self) -> usize {
        self.at += 1;
        self.code[self.at - 1] as usize
    }

    fn expressions(&mut self, count: usize) -> PyResult<Vec<Bound<'py, PyAny>>> {
        (0..count).map(|_| self.expression()).collect()
    }

    fn expression(&mut self) -> PyResult<Bound<'py, PyAny>> {
        match self.word() as u32 {
            INPUT => {
                let param = self.word();
                let input = self.row[HEADER + param];
                assert!(self.graph.inputs.row(self.task()).contains(&input), "an input that is not declared");
                self.values[input as usize].clone().ok_or_else(|| PyAssertionError::new_err("input is not there"))
            }
            CONST => {
                let param = self.word();
                let batch = &self.graph.batches[self.row[1] as usize];
                Ok(batch.constants[self.row[HEADER + param] as usize].bind(self.py).clone())
            }
            FUNC => {
                let function = self.word();
                Ok(self.graph.functions[self.functions[function] as usize].bind(self.py).clone())
            }
            LOCAL => {
                let step = self.word();
                Ok(self.locals[step].clone())
            }
            CALL => {
                let (positional, named) = (self.word(), self.word());
                let function = self.expression()?;
                let args = self.expressions(positional)?;
                let kwargs = PyDict::new(self.py);
                if named > 0 {
                    let names = self.expression()?.cast_into::<PyTuple>()?;
                    assert_eq!(names.len(), named);
                    for (name, value) in names.iter().zip(self.expressions(named)?) {
                        kwargs.set_item(name, value)?;
                    }
                }
                function.call(PyTuple::new(self.py, args)?, Some(&kwargs))
            }
            LIST => {
                let count = self.word();
                Ok(PyList::new(self.py, self.expressions(count)?)?.into_any())
            }
            TUPLE => {
                let count = self.word();
                Ok(PyTuple::new(self.py, self.expressions(count)?)?.into_any())
            }
            SET => {
                let count = self.word();
                Ok(PySet::new(self.py, self.expressions(count)?)?.into_any())
            }
            DICT => {
                let count = self.word();
                let dict = PyDict::new(self.py);
                for _ in 0..count {
                    let key = self.expression()?;
                    dict.set_item(key, self.expression()?)?;
                }
                Ok(dict.into_any())
            }
            word => Err(PyAssertionError::new_err(format!("word {word}"))),
        }
    }

    /// The task whose row this is.
    fn task(&self) -> u32 {
        let start = self.row.as_ptr();
        let found = (0..self.graph.code.len() as u32).find(|&task| self.graph.code.row(task).as_ptr() == start);
        found.expect("a row of the graph")
    }
}

fn shape<'py>(
    py: Python<'py>,
    graph: &Ingested,
    result: &ResultShape,
    values: &[Option<Bound<'py, PyAny>>],
) -> PyResult<Bound<'py, PyAny>> {
    Ok(match result {
        ResultShape::Task(task) => {
            assert!(graph.outputs.contains(task));
            values[*task as usize].clone().expect("every task was executed")
        }
        ResultShape::Literal(value) => value.bind(py).clone(),
        ResultShape::External(number) => {
            values[graph.position.len() + *number as usize].clone().expect("externals are there")
        }
        ResultShape::List(parts) => {
            let parts = parts.iter().map(|part| shape(py, graph, part, values)).collect::<PyResult<Vec<_>>>()?;
            PyList::new(py, parts)?.into_any()
        }
    })
}
