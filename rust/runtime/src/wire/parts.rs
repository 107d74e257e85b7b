//! What several messages are made of: objects, values, rows.

use eagleray_core::graph::Csr;
use eagleray_core::ids::{GraphId, ObjectId};
use eagleray_core::message::Place;
use eagleray_store::Location;

use super::{Resolve, WireError, proto};
use crate::program::{Template, Value};

pub(super) fn object_out(object: ObjectId) -> proto::ObjectId {
    proto::ObjectId { graph: object.graph.to_u64(), index: object.index }
}

pub(super) fn object_in(object: &proto::ObjectId) -> ObjectId {
    ObjectId { graph: GraphId::from_u64(object.graph), index: object.index }
}

pub(super) fn some_object(object: Option<&proto::ObjectId>) -> Result<ObjectId, WireError> {
    object.map(object_in).ok_or(WireError::Missing("object"))
}

pub(super) fn objects_out(objects: &[ObjectId]) -> Vec<proto::ObjectId> {
    objects.iter().copied().map(object_out).collect()
}

pub(super) fn objects_in(objects: &[proto::ObjectId]) -> Vec<ObjectId> {
    objects.iter().map(object_in).collect()
}

pub(super) fn location_out(location: Location) -> proto::Location {
    let Location { segment, offset, len, generation } = location;
    proto::Location { segment, offset, len, generation }
}

pub(super) fn location_in(location: &proto::Location) -> Location {
    let &proto::Location { segment, offset, len, generation } = location;
    Location { segment, offset, len, generation }
}

pub(super) fn value_out(value: &Value) -> proto::Value {
    let form = match value {
        Value::Inline(bytes) => proto::value::Form::Inline(bytes.clone()),
        Value::Sealed(block) => proto::value::Form::Sealed(location_out(block.location())),
    };
    proto::Value { form: Some(form) }
}

pub(super) fn value_in(value: Option<proto::Value>, resolve: &mut Resolve<'_>) -> Result<Value, WireError> {
    match value.and_then(|value| value.form) {
        Some(proto::value::Form::Inline(bytes)) => Ok(Value::Inline(bytes)),
        Some(proto::value::Form::Sealed(location)) => resolve(location_in(&location)).map(Value::Sealed),
        None => Err(WireError::Missing("value")),
    }
}

pub(super) fn object_value_in(
    value: proto::ObjectValue,
    resolve: &mut Resolve<'_>,
) -> Result<(ObjectId, Value), WireError> {
    Ok((some_object(value.object.as_ref())?, value_in(value.value, resolve)?))
}

pub(super) fn object_value_out(object: ObjectId, value: &Value) -> proto::ObjectValue {
    proto::ObjectValue { object: Some(object_out(object)), value: Some(value_out(value)) }
}

pub(super) fn stored_out(value: &Value, contained: &[ObjectId]) -> proto::Stored {
    proto::Stored { value: Some(value_out(value)), contained: objects_out(contained) }
}

/// What a process has stored. Nobody names more objects in a value than it has bytes.
pub(super) fn stored_in(
    stored: Option<proto::Stored>,
    resolve: &mut Resolve<'_>,
) -> Result<(Value, Vec<ObjectId>), WireError> {
    let stored = stored.ok_or(WireError::Missing("value"))?;
    let value = value_in(stored.value, resolve)?;
    if stored.contained.len() as u64 > place_of(&value).len() {
        return Err(WireError::Inconsistent("a value that names more objects than it has bytes"));
    }
    Ok((value, objects_in(&stored.contained)))
}

pub(super) fn object_stored_out(object: ObjectId, value: &Value, contained: &[ObjectId]) -> proto::ObjectStored {
    proto::ObjectStored { object: Some(object_out(object)), stored: Some(stored_out(value, contained)) }
}

pub(super) fn object_stored_in(
    stored: proto::ObjectStored,
    resolve: &mut Resolve<'_>,
) -> Result<(ObjectId, Value, Vec<ObjectId>), WireError> {
    let object = some_object(stored.object.as_ref())?;
    let (value, contained) = stored_in(stored.stored, resolve)?;
    Ok((object, value, contained))
}

pub(super) fn rows_out(rows: &Csr) -> proto::Rows {
    proto::Rows { offsets: rows.offsets().to_vec(), items: rows.items().to_vec() }
}

pub(super) fn rows_in(rows: Option<proto::Rows>) -> Result<Csr, WireError> {
    let rows = rows.ok_or(WireError::Missing("rows"))?;
    Csr::from_parts(rows.offsets, rows.items).ok_or(WireError::Inconsistent("rows"))
}

pub(super) fn template_out(template: &Template) -> proto::Template {
    proto::Template { code: template.code.clone(), functions: template.functions.clone() }
}

pub(super) fn template_in(template: proto::Template) -> Template {
    Template { code: template.code, functions: template.functions }
}

pub(super) fn locations_out(locations: &[Location]) -> proto::Locations {
    proto::Locations { locations: locations.iter().copied().map(location_out).collect() }
}

pub(super) fn locations_in(locations: &proto::Locations) -> Vec<Location> {
    locations.locations.iter().map(location_in).collect()
}

/// Where a value's bytes are, as the head is told.
pub(crate) fn place_of(value: &Value) -> Place {
    match value {
        Value::Inline(bytes) => Place::Inline { len: bytes.len() as u64 },
        Value::Sealed(block) => Place::Sealed { len: block.location().len },
    }
}
