//! Calls on their way to the session: those that it has not taken yet become one graph.
//!
//! A graph of its own for each call would cost several times what the call does.

use std::sync::Arc;

use bytes::Bytes;
use eagleray_core::graph::Csr;
use eagleray_core::ids::{GraphId, ObjectId};
use eagleray_core::message::{ClassSpec, Demand, GraphKind, GraphSpec};
use rustc_hash::FxHashMap;

use crate::command::Command;
use crate::program::{Part, Program, RetryFilter, Template};

/// Calls in one graph at most. Its results are kept in tables as long as one of them is held.
const MOST_CALLS: usize = 4096;

/// Bytes of pickled arguments in one graph at most.
const MOST_BYTES: usize = 4 << 20;

/// An input number that stands for an object from outside, as long as it is not known how many tasks the graph has.
const OUTSIDE: u32 = 1 << 31;

/// How many of the latest templates, functions and classes are looked through for the same.
const LOOKED_THROUGH: usize = 4;

/// The shape of a task of a [`Call`], and what it is measured and run by.
#[derive(Clone, Debug)]
pub struct Shape {
    /// What the executor compiles.
    pub code: Bytes,
    /// The functions that it calls, pickled.
    pub functions: Vec<Bytes>,
    /// Which parameters are numbers of inputs.
    pub inputs: Vec<u32>,
    /// The class. Its demand is `demand`.
    pub class: ClassSpec,
    /// What it demands, if that is not one CPU.
    pub demand: Option<Demand>,
    /// After which exceptions it is run again, if it is: a tuple of classes, pickled, or all.
    pub retry: Option<Option<Bytes>>,
    /// What the tasks are called.
    pub name: Arc<str>,
}

/// A task of a [`Call`].
#[derive(Clone, Debug)]
pub struct Task {
    /// Its shape, as an index.
    pub shape: usize,
    /// Its constants, as an index; none, if absent.
    pub batch: Option<usize>,
    /// The key of its row.
    pub key: u32,
    /// Its parameters. Numbers of inputs are those of the call's tasks, and then of its externals.
    pub parameters: Vec<u32>,
    /// What it reads, by the same numbers.
    pub inputs: Vec<u32>,
}

/// A call: one task, or several that belong together.
#[derive(Clone, Debug)]
pub struct Call {
    /// [`GraphKind::Independent`] or [`GraphKind::Calls`]; of [`GraphKind::Actor`] there is one in a graph.
    pub kind: GraphKind,
    /// As [`GraphSpec::priority`].
    pub priority: i32,
    /// As [`Program::surroundings`].
    pub surroundings: Option<Bytes>,
    /// The shapes of its tasks.
    pub shapes: Vec<Shape>,
    /// The pickled constants of its tasks.
    pub batches: Vec<Bytes>,
    /// Its tasks.
    pub tasks: Vec<Task>,
    /// What it reads from outside; of calls of an actor the first is the actor.
    pub externals: Vec<ObjectId>,
    /// What constants and functions name.
    pub contained: Vec<ObjectId>,
    /// The tasks whose results are asked for.
    pub wanted: std::ops::Range<u32>,
    /// No other is in its graph, so none is in its run if it demands something.
    pub alone: bool,
}

/// Calls that will be one graph. See the module.
#[derive(Debug)]
pub(crate) struct Batch {
    spec: GraphSpec,
    program: Program,
    part: Part,
    external_of: FxHashMap<ObjectId, u32>,
    /// Where the code has numbers of objects from outside.
    outside: Vec<usize>,
    code: Vec<u32>,
    code_rows: Vec<u32>,
    inputs: Vec<u32>,
    input_rows: Vec<u32>,
    bytes: usize,
    alone: bool,
    /// First and last uses to be told after it.
    uses: Vec<Command>,
}

impl Batch {
    /// A graph for calls like this one.
    pub(crate) fn new(id: GraphId, call: &Call) -> Self {
        let spec = GraphSpec {
            id,
            inputs: Csr::new(),
            externals: Vec::new(),
            position: Vec::new(),
            class: Vec::new(),
            classes: Vec::new(),
            demands: Vec::new(),
            priority: call.priority,
            outputs: Vec::new(),
            kind: call.kind.clone(),
            contained: call.contained.clone(),
        };
        Self {
            spec,
            program: Program { surroundings: call.surroundings.clone(), ..Program::default() },
            part: Part::default(),
            external_of: FxHashMap::default(),
            outside: Vec::new(),
            code: Vec::new(),
            code_rows: vec![0],
            inputs: Vec::new(),
            input_rows: vec![0],
            bytes: 0,
            alone: call.alone,
            uses: Vec::new(),
        }
    }

    /// What others find who look for the actor that it makes.
    pub(crate) fn say_of_actor(&mut self, meta: Bytes) {
        self.program.actor_meta = Some(meta);
    }

    /// First and last uses, to be told after it.
    pub(crate) fn then(&mut self, uses: Vec<Command>) {
        for command in uses {
            match (self.uses.last_mut(), command) {
                (Some(Command::Release(known)), Command::Release(more)) => known.extend(more),
                (_, command) => self.uses.push(command),
            }
        }
    }

    /// What is to be told after it.
    pub(crate) fn take_uses(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.uses)
    }

    /// Its number.
    pub(crate) const fn id(&self) -> GraphId {
        self.spec.id
    }

    /// Whether a call can be one of it. What the graph names it holds until all its calls have ended: it may neither be the
    /// result of one of these, nor what another call names.
    pub(crate) fn takes(&self, call: &Call) -> bool {
        !self.alone
            && !call.alone
            && self.spec.kind == call.kind
            && self.spec.contained == call.contained
            && self.spec.priority == call.priority
            && self.program.surroundings == call.surroundings
            && self.spec.class.len() < MOST_CALLS
            && self.bytes < MOST_BYTES
            && (call.kind != GraphKind::Calls || self.spec.externals.first() == call.externals.first())
    }

    /// Adds a call. Gives the number of its first task.
    pub(crate) fn add(&mut self, call: Call) -> u32 {
        let first = self.spec.class.len() as u32;
        let own = call.tasks.len() as u32;
        let externals: Vec<u32> = call.externals.iter().map(|&object| self.external(object)).collect();
        let number = |input: u32| if input < own { first + input } else { externals[(input - own) as usize] };
        let batch = self.part.batches.len() as u32;
        self.bytes += call.batches.iter().map(Bytes::len).sum::<usize>();
        self.part.batches.extend(call.batches);
        let shapes: Vec<(u32, u32, Vec<u32>)> = call.shapes.into_iter().map(|shape| self.shape(shape)).collect();
        for task in call.tasks {
            let (class, template, places) = &shapes[task.shape];
            self.spec.position.push(self.spec.class.len() as u32);
            self.spec.class.push(*class);
            self.inputs.extend(task.inputs.iter().map(|&input| number(input)));
            self.input_rows.push(self.inputs.len() as u32);
            let constants = task.batch.map_or(u32::MAX, |own| batch + own as u32);
            self.code.extend([*class, constants, *template, task.key]);
            let begin = self.code.len();
            self.code.extend(task.parameters);
            for &place in places {
                let at = begin + place as usize;
                self.code[at] = number(self.code[at]);
                if self.code[at] >= OUTSIDE {
                    self.outside.push(at);
                }
            }
            self.code_rows.push(self.code.len() as u32);
        }
        self.spec.outputs.extend(call.wanted.map(|task| first + task));
        first
    }

    /// The number of an object that a call reads. It may be the result of an earlier call.
    fn external(&mut self, object: ObjectId) -> u32 {
        if object.graph == self.spec.id {
            return object.index;
        }
        let next = self.spec.externals.len() as u32;
        let number = *self.external_of.entry(object).or_insert(next);
        if number == next {
            self.spec.externals.push(object);
        }
        OUTSIDE | number
    }

    /// Class, template and places of inputs of a shape.
    fn shape(&mut self, shape: Shape) -> (u32, u32, Vec<u32>) {
        let Shape { code, functions, inputs, mut class, demand, retry, name } = shape;
        let functions: Vec<u32> =
            functions.into_iter().map(|function| index_of(&mut self.part.functions, function, same_bytes)).collect();
        let template = Template { code, functions };
        let same = |a: &Template, b: &Template| a.functions == b.functions && a.code == b.code;
        let template = index_of(&mut self.program.templates, template, same);
        class.demand = demand.map_or(0, |demand| 1 + index_of(&mut self.spec.demands, demand, |a, b| a == b));
        let before = self.spec.classes.len();
        let class = self.class(class, name);
        if self.spec.classes.len() > before {
            if let Some(exceptions) = retry {
                self.program.retry_filters.push(RetryFilter { classes: vec![class], exceptions });
            }
        }
        (class, template, inputs)
    }

    /// The index of a class whose tasks are called so.
    fn class(&mut self, class: ClassSpec, name: Arc<str>) -> u32 {
        let from = self.spec.classes.len().saturating_sub(LOOKED_THROUGH);
        let mut latest = self.spec.classes[from..].iter().zip(&self.program.names[from..]);
        if let Some(at) = latest.rposition(|known| known == (&class, &name)) {
            return (from + at) as u32;
        }
        self.spec.classes.push(class);
        self.program.names.push(name);
        self.spec.classes.len() as u32 - 1
    }

    /// The graph.
    pub(crate) fn close(self) -> (GraphSpec, Program, Part) {
        let Self { mut spec, mut program, part, mut code, mut inputs, outside, code_rows, input_rows, .. } = self;
        let tasks = spec.class.len() as u32;
        for at in outside {
            code[at] = tasks + (code[at] & !OUTSIDE);
        }
        for input in &mut inputs {
            if *input >= OUTSIDE {
                *input = tasks + (*input & !OUTSIDE);
            }
        }
        // Rows end where the next begin: this cannot fail.
        spec.inputs = Csr::from_parts(input_rows, inputs).unwrap_or_default();
        program.code = Csr::from_parts(code_rows, code).unwrap_or_default();
        (spec, program, part)
    }
}

fn same_bytes(a: &Bytes, b: &Bytes) -> bool {
    a.as_ptr() == b.as_ptr() && a.len() == b.len()
}

/// The index of something among the latest of a list, of which it becomes the last if it is not.
fn index_of<T>(list: &mut Vec<T>, item: T, same: impl Fn(&T, &T) -> bool) -> u32 {
    let from = list.len().saturating_sub(LOOKED_THROUGH);
    if let Some(at) = list[from..].iter().rposition(|known| same(known, &item)) {
        return (from + at) as u32;
    }
    list.push(item);
    list.len() as u32 - 1
}

#[cfg(test)]
mod tests {
    use eagleray_core::ids::PeerId;

    use super::*;

    fn id(seq: u32) -> GraphId {
        GraphId { peer: PeerId::USER, seq }
    }

    fn object(seq: u32, index: u32) -> ObjectId {
        ObjectId { graph: id(seq), index }
    }

    /// A call with a constant, which reads these objects.
    fn call(function: &Bytes, externals: &[ObjectId]) -> Call {
        let count = externals.len() as u32;
        let class = ClassSpec { fingerprint: 1, max_retries: 3, retries: 0, demand: 0, part: false };
        Call {
            kind: GraphKind::Independent,
            priority: 0,
            surroundings: None,
            shapes: vec![Shape {
                code: "code".into(),
                functions: vec![function.clone()],
                inputs: (1..=count).collect(),
                class,
                demand: None,
                retry: None,
                name: "f".into(),
            }],
            batches: vec!["pickle".into()],
            tasks: vec![Task {
                shape: 0,
                batch: Some(0),
                key: 9,
                parameters: std::iter::once(0).chain(1..=count).collect(),
                inputs: (1..=count).collect(),
            }],
            externals: externals.to_vec(),
            contained: Vec::new(),
            wanted: 0..1,
            alone: false,
        }
    }

    #[test]
    fn calls_become_one_graph() {
        let function = Bytes::from(vec![1, 2, 3]);
        let mut batch = Batch::new(id(7), &call(&function, &[]));
        let first = batch.add(call(&function, &[object(1, 0)]));
        let second = batch.add(call(&function, &[object(7, 0), object(2, 5), object(1, 0)]));
        assert_eq!((first, second), (0, 1));
        let (spec, program, part) = batch.close();
        assert_eq!(spec.externals, [object(1, 0), object(2, 5)]);
        assert_eq!((spec.inputs.row(0), spec.inputs.row(1)), (&[2][..], &[0, 3, 2][..]));
        assert_eq!((spec.outputs, spec.position, spec.class), (vec![0, 1], vec![0, 1], vec![0, 0]));
        assert_eq!(program.code.row(0), [0, 0, 0, 9, 0, 2]);
        assert_eq!(program.code.row(1), [0, 1, 0, 9, 0, 0, 3, 2]);
        assert_eq!((part.functions.len(), part.batches.len(), program.templates.len()), (1, 2, 1));
    }

    #[test]
    fn what_differs_is_kept_apart() {
        let (one, other) = (Bytes::from(vec![1]), Bytes::from(vec![1]));
        let mut batch = Batch::new(id(7), &call(&one, &[]));
        batch.add(call(&one, &[]));
        let mut demanding = call(&other, &[]);
        demanding.shapes[0].demand = Some(Demand { cpu: 5, others: Vec::new() });
        demanding.shapes[0].retry = Some(None);
        batch.add(demanding);
        let (spec, program, part) = batch.close();
        assert_eq!((spec.class, spec.demands.len()), (vec![0, 1], 1));
        assert_eq!((spec.classes[0].demand, spec.classes[1].demand), (0, 1));
        assert_eq!((part.functions.len(), program.templates.len()), (2, 2));
        assert_eq!(program.retry_filters[0].classes, [1]);
    }

    #[test]
    fn calls_are_of_a_class_if_they_are_measured_and_called_alike() {
        let function = Bytes::from_static(b"f");
        let mut batch = Batch::new(id(7), &call(&function, &[]));
        for name in ["f", "g", "f", "g"] {
            let mut named = call(&function, &[]);
            named.shapes[0].name = name.into();
            batch.add(named);
        }
        let (spec, program, _) = batch.close();
        assert_eq!((spec.class, spec.classes.len()), (vec![0, 1, 0, 1], 2));
        assert_eq!(program.names, ["f".into(), "g".into()]);
    }

    #[test]
    fn calls_of_another_kind_are_another_graph() {
        let function = Bytes::from_static(b"f");
        let plain = call(&function, &[]);
        let batch = Batch::new(id(7), &plain);
        assert!(batch.takes(&plain));
        let other = |change: &dyn Fn(&mut Call)| {
            let mut call = plain.clone();
            change(&mut call);
            call
        };
        assert!(!batch.takes(&other(&|call| call.priority = 1)));
        assert!(!batch.takes(&other(&|call| call.surroundings = Some("s".into()))));
        assert!(!batch.takes(&other(&|call| call.kind = GraphKind::Calls)));
        let alone = other(&|call| call.alone = true);
        assert!(!batch.takes(&alone) && !Batch::new(id(9), &alone).takes(&plain));
        let naming = other(&|call| call.contained = vec![object(7, 0)]);
        assert!(!batch.takes(&naming), "its own result, which would be held for ever");
        assert!(Batch::new(id(8), &naming).takes(&naming));
        assert_eq!(Batch::new(id(8), &naming).close().0.contained, [object(7, 0)]);
        let of_actor = other(&|call| {
            call.kind = GraphKind::Calls;
            call.externals = vec![object(1, 0)];
        });
        let mut batch = Batch::new(id(8), &of_actor);
        batch.add(of_actor.clone());
        assert!(batch.takes(&of_actor));
        let of_another = Call { externals: vec![object(2, 0)], ..of_actor };
        assert!(!batch.takes(&of_another));
    }
}
