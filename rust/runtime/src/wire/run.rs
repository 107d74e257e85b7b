//! A run, and what its worker must know first.

use bytes::Bytes;
use eagleray_core::ids::{GraphId, ObjectId, RunId, WorkerId};
use eagleray_core::message::Run;

use super::parts::{
    object_value_in, object_value_out, objects_in, objects_out, rows_in, rows_out, template_in, template_out,
};
use super::proto::intro;
use super::{Resolve, WireError, proto};
use crate::program::{Intro, RetryFilter, RunProgram, Value};

pub(super) fn filter_out(filter: &RetryFilter) -> proto::RetryFilter {
    proto::RetryFilter { classes: filter.classes.clone(), pickle: filter.exceptions.clone() }
}

pub(super) fn filter_in(filter: proto::RetryFilter) -> RetryFilter {
    RetryFilter { classes: filter.classes, exceptions: filter.pickle }
}

pub(super) fn intro_out(intro: &Intro) -> proto::Intro {
    let body = match intro {
        Intro::Graph { len, externals } => {
            intro::Body::Graph(proto::GraphIntro { len: *len, externals: objects_out(externals) })
        }
        Intro::Function { id, blob, bytes } => {
            intro::Body::Function(proto::FunctionIntro { id: *id, blob: *blob, pickle: bytes.clone() })
        }
        Intro::Template { id, template } => {
            intro::Body::Template(proto::TemplateIntro { id: *id, template: Some(template_out(template)) })
        }
        Intro::Batch { id, bytes } => intro::Body::Batch(proto::BatchIntro { id: *id, pickle: bytes.clone() }),
        Intro::Hooks(bytes) => intro::Body::Hooks(bytes.clone()),
        Intro::RetryFilter(filter) => intro::Body::RetryFilter(filter_out(filter)),
        Intro::Surroundings(bytes) => intro::Body::Surroundings(bytes.clone()),
    };
    proto::Intro { body: Some(body) }
}

pub(super) fn intro_in(intro: proto::Intro) -> Result<Intro, WireError> {
    Ok(match intro.body.ok_or(WireError::Missing("introduction"))? {
        intro::Body::Graph(graph) => Intro::Graph { len: graph.len, externals: objects_in(&graph.externals) },
        intro::Body::Function(f) => Intro::Function { id: f.id, blob: f.blob, bytes: f.pickle },
        intro::Body::Template(t) => {
            let template = t.template.ok_or(WireError::Missing("template"))?;
            Intro::Template { id: t.id, template: template_in(template) }
        }
        intro::Body::Batch(b) => Intro::Batch { id: b.id, bytes: b.pickle },
        intro::Body::Hooks(bytes) => Intro::Hooks(bytes),
        intro::Body::RetryFilter(filter) => Intro::RetryFilter(filter_in(filter)),
        intro::Body::Surroundings(bytes) => Intro::Surroundings(bytes),
    })
}

pub(super) fn run_out(program: &RunProgram) -> proto::Run {
    let run = &program.run;
    proto::Run {
        seq: run.id.seq,
        graph: run.graph.to_u64(),
        tasks: run.tasks.clone(),
        outputs: Bytes::copy_from_slice(&run.outputs),
        code: Some(rows_out(&program.code)),
        inputs: program.inputs.iter().map(|(object, value)| object_value_out(*object, value)).collect(),
        intros: program.intros.iter().map(intro_out).collect(),
        gpus: run.gpus.clone(),
    }
}

pub(super) fn run_in(worker: WorkerId, run: proto::Run, resolve: &mut Resolve<'_>) -> Result<RunProgram, WireError> {
    let code = rows_in(run.code)?;
    if code.len() != run.tasks.len() || run.outputs.len() != run.tasks.len() {
        return Err(WireError::Inconsistent("run"));
    }
    let inputs: Vec<(ObjectId, Value)> =
        run.inputs.into_iter().map(|value| object_value_in(value, resolve)).collect::<Result<_, _>>()?;
    Ok(RunProgram {
        run: Run {
            id: RunId { worker, seq: run.seq },
            graph: GraphId::from_u64(run.graph),
            tasks: run.tasks,
            outputs: run.outputs.to_vec(),
            inputs: inputs.iter().map(|(object, _)| *object).collect(),
            gpus: run.gpus,
        },
        code,
        intros: run.intros.into_iter().map(intro_in).collect::<Result<_, _>>()?,
        inputs,
    })
}
