//! A run before its first task: what each task reads, and how long each value is needed.

use std::sync::Arc;

use eagleray_core::graph::Csr;
use eagleray_core::ids::ObjectId;
use eagleray_core::message::Run;
use pyo3::prelude::*;
use rustc_hash::FxHashMap;

use super::library::Library;
use super::shape::{BadProgram, Shape};
use crate::template::HEADER;

/// Where a value of the run is: first the tasks' results, by place, then the objects from outside.
pub(super) struct Slot {
    pub(super) value: Option<Py<PyAny>>,
    /// How many reads are to come. A task that reads a value twice is counted twice.
    pub(super) readers: u32,
    /// The task has failed, or its result was spoilt by one that did: there will be no value.
    pub(super) failed: bool,
}

/// See the module.
pub(super) struct Plan {
    /// The shapes of the run's tasks.
    shapes: Vec<Arc<Shape>>,
    /// For each task, its place in `shapes`.
    shape: Vec<u32>,
    /// Row `i`: the slots that task `i` reads, as its shape lists them.
    sources: Csr,
    /// The objects of the slots behind those of the tasks.
    outside: Vec<ObjectId>,
}

impl Plan {
    /// Plans a run. Everything that evaluation relies on is checked here, for all rows, but for what is still pickled.
    pub(super) fn new(
        library: &Library,
        run: &Run,
        code: &Csr,
        n_tasks_in_graph: u32,
        externals: &dyn Fn(u32) -> Option<ObjectId>,
    ) -> Result<(Self, Vec<Slot>), BadProgram> {
        let len = run.tasks.len();
        if code.len() != len || run.outputs.len() != len {
            return Err(BadProgram::RowsDoNotFit);
        }
        let mut planner = Planner {
            run,
            n_tasks_in_graph,
            externals,
            places: None,
            outside: Vec::new(),
            known: FxHashMap::default(),
            slots: (0..len).map(|_| Slot { value: None, readers: 0, failed: false }).collect(),
        };
        let mut shapes: Vec<Arc<Shape>> = Vec::new();
        let mut shape_of = FxHashMap::default();
        let mut shape = Vec::with_capacity(len);
        let mut sources = Csr::with_capacity(len, code.items().len() - (HEADER * len).min(code.items().len()));
        let mut row_sources = Vec::new();
        for place in 0..len as u32 {
            let row = code.row(place);
            let (header, parameters) = row.split_at_checked(HEADER).ok_or(BadProgram::ShortRow(place))?;
            let template = header[2];
            let number = if let Some(&number) = shape_of.get(&template) {
                number
            } else {
                shapes.push(library.template(run.graph, template)?);
                shape_of.insert(template, shapes.len() as u32 - 1);
                shapes.len() as u32 - 1
            };
            let of_row = &shapes[number as usize];
            if parameters.len() < of_row.parameters {
                return Err(BadProgram::ShortRow(place));
            }
            for &parameter in &of_row.inputs {
                row_sources.push(planner.source(place, parameters[parameter as usize])?);
            }
            shape.push(number);
            sources.push_row(row_sources.drain(..));
        }
        Ok((Self { shapes, shape, sources, outside: planner.outside }, planner.slots))
    }

    /// The shape of the task at a place.
    pub(super) fn shape(&self, place: u32) -> &Arc<Shape> {
        &self.shapes[self.shape[place as usize] as usize]
    }

    /// The slots that the task at a place reads.
    pub(super) fn sources(&self, place: u32) -> &[u32] {
        self.sources.row(place)
    }

    /// The object of a slot, if it is from outside.
    pub(super) fn outside(&self, slot: u32) -> Option<ObjectId> {
        (slot as usize).checked_sub(self.shape.len()).map(|number| self.outside[number])
    }
}

struct Planner<'a> {
    run: &'a Run,
    n_tasks_in_graph: u32,
    externals: &'a dyn Fn(u32) -> Option<ObjectId>,
    /// The place of each task; made when a task's result is first read.
    places: Option<FxHashMap<u32, u32>>,
    outside: Vec<ObjectId>,
    /// The slots of `outside`.
    known: FxHashMap<ObjectId, u32>,
    slots: Vec<Slot>,
}

impl Planner<'_> {
    /// The slot that the task at `reader` reads when its row says `number`, with one more read counted.
    fn source(&mut self, reader: u32, number: u32) -> Result<u32, BadProgram> {
        let slot = match self.made_before(reader, number) {
            Some(place) => place,
            None => self.slot_of(self.object(number)?),
        };
        self.slots[slot as usize].readers += 1;
        Ok(slot)
    }

    fn made_before(&mut self, reader: u32, number: u32) -> Option<u32> {
        if number >= self.n_tasks_in_graph {
            return None;
        }
        let tasks = &self.run.tasks;
        let places = self.places.get_or_insert_with(|| tasks.iter().copied().zip(0..).collect());
        places.get(&number).copied().filter(|place| *place < reader)
    }

    fn object(&self, number: u32) -> Result<ObjectId, BadProgram> {
        match number.checked_sub(self.n_tasks_in_graph) {
            None => Ok(ObjectId { graph: self.run.graph, index: number }),
            Some(external) => (self.externals)(external).ok_or(BadProgram::UnknownInput(number)),
        }
    }

    fn slot_of(&mut self, object: ObjectId) -> u32 {
        *self.known.entry(object).or_insert_with(|| {
            self.outside.push(object);
            self.slots.push(Slot { value: None, readers: 0, failed: false });
            self.slots.len() as u32 - 1
        })
    }
}
