//! A graph that is submitted.

use std::sync::Arc;

use eagleray_core::ids::GraphId;
use eagleray_core::message::{ClassSpec, Demand, GraphSpec};

use super::parts::{objects_in, objects_out, rows_in, rows_out, template_in, template_out};
use super::run::{filter_in, filter_out};
use super::{WireError, proto};
use crate::command::Command;
use crate::program::Program;

pub(super) fn demand_out(demand: &Demand) -> proto::Demand {
    let amount = |(name, amount): &(Arc<str>, u64)| proto::Amount { resource: name.to_string(), amount: *amount };
    proto::Demand { cpu: demand.cpu, others: demand.others.iter().map(amount).collect() }
}

pub(super) fn demand_in(demand: proto::Demand) -> Demand {
    let others = demand.others.into_iter().map(|amount| (amount.resource.into(), amount.amount));
    Demand { cpu: demand.cpu, others: others.collect() }
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
            })
            .collect(),
        demands: submit.demands.into_iter().map(demand_in).collect(),
        priority: submit.priority,
        outputs: submit.outputs,
    };
    let program = Program {
        templates: submit.templates.into_iter().map(template_in).collect(),
        code: rows_in(submit.code)?,
        hooks: submit.hooks,
        retry_filters: submit.retry_filters.into_iter().map(filter_in).collect(),
        surroundings: submit.surroundings,
    };
    Ok(Command::Submit(Box::new(spec), Box::new(program)))
}
