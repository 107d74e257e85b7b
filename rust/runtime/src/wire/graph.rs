//! A graph that is submitted.

use std::sync::Arc;

use eagleray_core::ids::GraphId;
use eagleray_core::message::{ActorName, ActorSpec, ClassSpec, Demand, GraphKind, GraphSpec};

use super::parts::{objects_in, objects_out, rows_in, rows_out, template_in, template_out};
use super::proto::submit;
use super::run::{filter_in, filter_out};
use super::{WireError, proto};
use crate::command::Command;
use crate::program::Program;

pub(super) fn amounts_out(amounts: &[(Arc<str>, u64)]) -> Vec<proto::Amount> {
    let amount = |(name, amount): &(Arc<str>, u64)| proto::Amount { resource: name.to_string(), amount: *amount };
    amounts.iter().map(amount).collect()
}

pub(super) fn amounts_in(amounts: Vec<proto::Amount>) -> Vec<(Arc<str>, u64)> {
    amounts.into_iter().map(|amount| (amount.resource.into(), amount.amount)).collect()
}

fn demand_out(demand: &Demand) -> proto::Demand {
    proto::Demand { cpu: demand.cpu, others: amounts_out(&demand.others) }
}

fn demand_in(demand: proto::Demand) -> Demand {
    Demand { cpu: demand.cpu, others: amounts_in(demand.others) }
}

pub(super) fn name_out(name: &ActorName) -> proto::ActorName {
    proto::ActorName { namespace: name.namespace.to_string(), name: name.name.to_string() }
}

pub(super) fn name_in(name: proto::ActorName) -> ActorName {
    ActorName { namespace: name.namespace.into(), name: name.name.into() }
}

fn kind_out(kind: &GraphKind) -> Option<submit::Kind> {
    Some(match kind {
        GraphKind::Computation => return None,
        GraphKind::Independent => submit::Kind::Independent(true),
        GraphKind::Calls => submit::Kind::Calls(true),
        GraphKind::Actor(actor) => submit::Kind::Actor(proto::Actor {
            name: actor.name.as_ref().map(name_out),
            detached: actor.detached,
            max_restarts: actor.max_restarts,
            cpu: actor.cpu,
        }),
    })
}

fn kind_in(kind: Option<submit::Kind>) -> GraphKind {
    match kind {
        None => GraphKind::Computation,
        Some(submit::Kind::Independent(_)) => GraphKind::Independent,
        Some(submit::Kind::Calls(_)) => GraphKind::Calls,
        Some(submit::Kind::Actor(actor)) => GraphKind::Actor(Box::new(ActorSpec {
            name: actor.name.map(name_in),
            detached: actor.detached,
            max_restarts: actor.max_restarts,
            cpu: actor.cpu,
        })),
    }
}

pub(super) fn submit_out(spec: &GraphSpec, program: &Program) -> proto::Submit {
    proto::Submit {
        graph: spec.id.to_u64(),
        inputs: Some(rows_out(&spec.inputs)),
        externals: objects_out(&spec.externals),
        position: spec.position.clone(),
        class: spec.class.clone(),
        classes: spec
            .classes
            .iter()
            .map(|c| proto::Class {
                fingerprint: c.fingerprint,
                max_retries: u32::from(c.max_retries),
                retries: u32::from(c.retries),
                demand: c.demand,
                part: c.part,
            })
            .collect(),
        demands: spec.demands.iter().map(demand_out).collect(),
        priority: spec.priority,
        retry_filters: program.retry_filters.iter().map(filter_out).collect(),
        outputs: spec.outputs.clone(),
        templates: program.templates.iter().map(template_out).collect(),
        code: Some(rows_out(&program.code)),
        hooks: program.hooks.clone(),
        surroundings: program.surroundings.clone(),
        kind: kind_out(&spec.kind),
        contained: objects_out(&spec.contained),
        actor_meta: program.actor_meta.clone(),
        names: program.names.iter().map(ToString::to_string).collect(),
    }
}

pub(super) fn submit_in(submit: proto::Submit) -> Result<Command, WireError> {
    let spec = GraphSpec {
        id: GraphId::from_u64(submit.graph),
        inputs: rows_in(submit.inputs)?,
        externals: objects_in(&submit.externals),
        position: submit.position,
        class: submit.class,
        classes: submit
            .classes
            .iter()
            .map(|c| ClassSpec {
                fingerprint: c.fingerprint,
                max_retries: u8::try_from(c.max_retries).unwrap_or(u8::MAX),
                retries: u16::try_from(c.retries).unwrap_or(u16::MAX),
                demand: c.demand,
                part: c.part,
            })
            .collect(),
        demands: submit.demands.into_iter().map(demand_in).collect(),
        priority: submit.priority,
        outputs: submit.outputs,
        kind: kind_in(submit.kind),
        contained: objects_in(&submit.contained),
    };
    let program = Program {
        templates: submit.templates.into_iter().map(template_in).collect(),
        code: rows_in(submit.code)?,
        hooks: submit.hooks,
        retry_filters: submit.retry_filters.into_iter().map(filter_in).collect(),
        surroundings: submit.surroundings,
        actor_meta: submit.actor_meta,
        names: submit.names.into_iter().map(Into::into).collect(),
    };
    Ok(Command::Submit(Box::new(spec), Box::new(program)))
}
