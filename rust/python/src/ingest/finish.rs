//! Final numbers: tasks in the order of the mapping, positions, batches of constants.

use eagleray_core::graph::Csr;
use eagleray_core::order::order;
use pyo3::prelude::*;
use rustc_hash::FxHashMap;

use super::compile::Compiler;
use super::draft::tag;
use super::externals::Numbered;
use super::{Batch, Ingested, ResultShape, priority};
use crate::template::{HEADER, NO_BATCH, NO_KEY};

/// How many tasks share the first batch of constants: few enough that workers can start early.
const FIRST_BATCH: usize = 256;

/// How many tasks share a later one, at most: each is admitted by a message of its own, which should cost little for a
/// task.
const LARGEST_BATCH: usize = 2048;

/// Cuts the order into batches, each twice as long as the one before.
fn cut<T>(mut rest: &[T]) -> impl Iterator<Item = &[T]> {
    let mut len = FIRST_BATCH;
    std::iter::from_fn(move || {
        let (batch, tail) = rest.split_at(len.min(rest.len()));
        rest = tail;
        len = (2 * len).min(LARGEST_BATCH);
        (!batch.is_empty()).then_some(batch)
    })
}

/// A task that has been written.
pub(super) struct Compiled {
    /// The number of its key.
    pub(super) slot: u32,
    pub(super) template: u32,
    pub(super) class: u32,
    /// Where its parameters begin; they end where those of the task written next begin.
    pub(super) first_param: usize,
}

/// Turns what was written into what is sent. `priorities` are those of the tasks as they were written, or none.
pub(super) fn finish(
    compiler: Compiler<'_>,
    written: Vec<Compiled>,
    mut result: ResultShape,
    keys_for_hooks: bool,
    priorities: &[i32],
) -> PyResult<Ingested> {
    let Compiler { graph, externals, templates, draft, .. } = compiler;
    let mut params = draft.params;
    let mut ends: Vec<usize> = written.iter().skip(1).map(|task| task.first_param).collect();
    ends.push(params.len());

    // Tasks get their numbers in the order of the mapping.
    let mut written_as = vec![u32::MAX; graph.keys.len()];
    for (place, task) in written.iter().enumerate() {
        written_as[task.slot as usize] = place as u32;
    }
    let mut number_of = written_as.clone();
    let mut by_number = Vec::with_capacity(written.len());
    for number in &mut number_of {
        if *number != u32::MAX {
            by_number.push(*number as usize);
            *number = by_number.len() as u32 - 1;
        }
    }
    drop(written_as);
    let range = |written: &[Compiled], place: usize| written[place].first_param..ends[place];

    let mut requested = Vec::new();
    result.each(&mut |part| {
        if let ResultShape::External(number) = part {
            requested.push(*number);
        }
    });
    let Numbered { refs, literals, number: external_number } = externals.number(&params, &requested);
    let tasks = by_number.len() as u32;
    let mut inputs = Csr::with_capacity(by_number.len(), params.len());
    // The task that named an input last.
    let mut named_by = vec![u32::MAX; by_number.len() + refs.len() + literals.len()];
    let mut row = Vec::new();
    for (number, &place) in by_number.iter().enumerate() {
        for param in &mut params[range(&written, place)] {
            *param = match *param & tag::MASK {
                tag::CONSTANT => continue,
                tag::EXTERNAL => tasks + external_number[(*param & !tag::MASK) as usize],
                _ => number_of[*param as usize],
            };
            if named_by[*param as usize] != number as u32 {
                named_by[*param as usize] = number as u32;
                row.push(*param);
            }
        }
        inputs.push_row(row.drain(..));
    }

    let position = order(&inputs).map_err(|cycle| {
        let slots: Vec<u32> = cycle.nodes.iter().map(|&task| written[by_number[task as usize]].slot).collect();
        graph.cycle(&slots)
    })?;
    let position = match priorities {
        [] => position,
        _ => priority::ordered(&inputs, position, by_number.iter().map(|&place| priorities[place]).collect()),
    };
    let mut by_position = vec![0; by_number.len()];
    for (number, &position) in position.iter().enumerate() {
        by_position[position as usize] = number;
    }

    let mut keys_of = Vec::new();
    let mut batch_of = vec![NO_BATCH; by_number.len()];
    let mut batches: Vec<Batch> = Vec::new();
    if keys_for_hooks {
        keys_of.resize(by_number.len(), NO_KEY);
    }
    let mut place_of = FxHashMap::default();
    for (batch, members) in cut(&by_position).enumerate() {
        let mut constants: Vec<Py<PyAny>> = Vec::new();
        place_of.clear();
        let mut place = |value: &Bound<'_, PyAny>| {
            *place_of.entry(value.as_ptr() as usize).or_insert_with(|| {
                constants.push(value.clone().unbind());
                constants.len() as u32 - 1
            })
        };
        for &number in members {
            let written_place = by_number[number];
            if keys_for_hooks {
                keys_of[number] = place(graph.keys.key(written[written_place].slot));
                batch_of[number] = batch as u32;
            }
            for param in &mut params[range(&written, written_place)] {
                if *param & tag::MASK == tag::CONSTANT {
                    *param = place(&draft.constants[(*param & !tag::MASK) as usize]);
                    batch_of[number] = batch as u32;
                }
            }
        }
        let upto = batches.last().map_or(0, |batch| batch.upto) + members.len() as u32;
        batches.push(Batch { constants, upto });
    }

    let mut code = Csr::with_capacity(by_number.len(), params.len() + HEADER * by_number.len());
    for (number, &place) in by_number.iter().enumerate() {
        let task = &written[place];
        let key = keys_of.get(number).copied().unwrap_or(NO_KEY);
        let header: [u32; HEADER] = [task.class, batch_of[number], task.template, key];
        code.push_row(header.into_iter().chain(params[range(&written, place)].iter().copied()));
    }

    let mut outputs = Vec::new();
    let mut is_output = vec![false; by_number.len()];
    result.each(&mut |part| match part {
        ResultShape::Task(task) => {
            *task = number_of[*task as usize];
            if !std::mem::replace(&mut is_output[*task as usize], true) {
                outputs.push(*task);
            }
        }
        ResultShape::External(number) => *number = external_number[*number as usize],
        _ => {}
    });
    let (keys, nodes) = graph.into_parts(|slot| number_of[slot] != u32::MAX);
    let in_order = |place: &usize| &written[*place];
    Ok(Ingested {
        inputs,
        position,
        class: by_number.iter().map(in_order).map(|task| task.class).collect(),
        outputs,
        externals: refs,
        literals,
        code,
        batches,
        keys,
        nodes,
        result,
        classes: templates.classes,
        names: templates.class_names,
        demands: templates.demands,
        retry_filters: templates.retry_filters,
        priority: priorities.iter().copied().min().unwrap_or_default(),
        templates: templates.list,
        functions: templates.functions.into_iter().map(Bound::unbind).collect(),
    })
}

impl ResultShape {
    /// Calls `visit` with each part that is no list.
    fn each(&mut self, visit: &mut impl FnMut(&mut Self)) {
        match self {
            Self::List(parts) => parts.iter_mut().for_each(|part| part.each(visit)),
            other => visit(other),
        }
    }
}
