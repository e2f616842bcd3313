//! What requests hold, said beside the code that reads it and with the same constants.

use std::ops::RangeInclusive;

use serde_json::Value;
use utoipa::{
    ToSchema,
    openapi::{
        ArrayBuilder, ObjectBuilder, OneOfBuilder, Ref, RefOr, Required, Schema, Type,
        path::{Parameter, ParameterBuilder, ParameterIn},
        schema::{AdditionalProperties, SchemaType},
    },
};

/// What a value looks like.
pub(crate) type Shape = RefOr<Schema>;

/// Describes the body of a request: its fields, and an example that the API would take.
macro_rules! body {
    ($(#[doc = $doc:literal])+ $name:ident {
        required { $($field:literal: $shape:expr),* $(,)? }
        optional { $($other:literal: $its:expr),* $(,)? }
        example $example:tt
    }) => {
        $(#[doc = $doc])+
        pub(crate) enum $name {}

        impl utoipa::PartialSchema for $name {
            fn schema() -> $crate::openapi::shape::Shape {
                let object = $crate::openapi::shape::object(vec![$(($field, $shape)),*], vec![$(($other, $its)),*]);
                object.description(Some(concat!($($doc),+).trim())).examples([serde_json::json!($example)]).into()
            }
        }

        impl utoipa::ToSchema for $name {}
    };
}
pub(crate) use body;

/// An object with these fields and no others; `null` in an optional one counts as absent.
pub(crate) fn object(required: Vec<(&str, Shape)>, optional: Vec<(&str, Shape)>) -> ObjectBuilder {
    let mut object = ObjectBuilder::new().additional_properties(Some(AdditionalProperties::FreeForm(false)));
    for (name, shape) in required {
        object = object.property(name, shape).required(name);
    }
    for (name, shape) in optional {
        object = object.property(name, or_null(shape));
    }
    object
}

/// The same, or `null`.
pub(crate) fn or_null(shape: Shape) -> Shape {
    let with_null = |kind: &mut SchemaType| match kind {
        SchemaType::Type(one) => *kind = SchemaType::Array(vec![one.clone(), Type::Null]),
        SchemaType::Array(_) | SchemaType::AnyValue => {}
    };
    match shape {
        RefOr::T(Schema::Object(mut object)) if object.enum_values.is_none() => {
            with_null(&mut object.schema_type);
            RefOr::T(Schema::Object(object))
        }
        RefOr::T(Schema::Array(mut array)) => {
            with_null(&mut array.schema_type);
            RefOr::T(Schema::Array(array))
        }
        other => either([ObjectBuilder::new().schema_type(Type::Null).into(), other]),
    }
}

/// Exactly one of these.
pub(crate) fn either(shapes: impl IntoIterator<Item = Shape>) -> Shape {
    shapes.into_iter().fold(OneOfBuilder::new(), OneOfBuilder::item).into()
}

/// What this type is described as.
pub(crate) fn of<T: ToSchema>() -> Shape {
    Ref::from_schema_name(T::name()).into()
}

/// Any JSON at all.
pub(crate) fn any() -> Shape {
    ObjectBuilder::new().schema_type(SchemaType::AnyValue).into()
}

/// True or false.
pub(crate) fn flag() -> Shape {
    ObjectBuilder::new().schema_type(Type::Boolean).into()
}

/// Nothing but this.
pub(crate) fn only(value: impl Into<Value>) -> Shape {
    ObjectBuilder::new().schema_type(SchemaType::AnyValue).enum_values(Some([value])).into()
}

/// A whole number.
pub(crate) fn number(range: RangeInclusive<u64>) -> Shape {
    let (min, max) = (*range.start() as f64, *range.end() as f64);
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(min)).maximum(Some(max)).into()
}

/// A number.
pub(crate) fn any_number() -> Shape {
    ObjectBuilder::new().schema_type(Type::Number).into()
}

/// A part of a whole, and not nothing.
pub(crate) fn fraction() -> Shape {
    ObjectBuilder::new().schema_type(Type::Number).exclusive_minimum(Some(0.0)).maximum(Some(1.0)).into()
}

/// A text of so many bytes: a character has one at least.
pub(crate) fn text(bytes: RangeInclusive<usize>) -> Shape {
    let least = usize::from(*bytes.start() > 0);
    let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(least)).max_length(Some(*bytes.end()));
    text.description(Some(format!("{}..{} bytes of UTF-8", bytes.start(), bytes.end()))).into()
}

/// A text.
pub(crate) fn any_text() -> Shape {
    ObjectBuilder::new().schema_type(Type::String).into()
}

/// A text that matches.
pub(crate) fn pattern(pattern: impl Into<String>) -> Shape {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).into()
}

/// One of these texts.
pub(crate) fn one_of<const N: usize>(texts: [&str; N]) -> Shape {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(texts)).into()
}

/// A text of a kind that has a name.
pub(crate) fn format(name: &str) -> Shape {
    let format = utoipa::openapi::SchemaFormat::Custom(name.to_owned());
    ObjectBuilder::new().schema_type(Type::String).format(Some(format)).into()
}

/// A list of so many.
pub(crate) fn list(item: Shape, count: RangeInclusive<usize>) -> Shape {
    ArrayBuilder::new().items(item).min_items(Some(*count.start())).max_items(Some(*count.end())).into()
}

/// At most so many values by name.
pub(crate) fn map(names: Shape, values: Shape, max: usize) -> Shape {
    let names = if let RefOr::T(names) = names { Some(names) } else { None };
    let map = ObjectBuilder::new().property_names(names).max_properties(Some(max));
    map.additional_properties(Some(AdditionalProperties::RefOr(values))).into()
}

/// The same with a sentence for people.
pub(crate) fn described(mut shape: Shape, words: &str) -> Shape {
    match &mut shape {
        RefOr::T(Schema::Object(object)) => object.description = Some(words.to_owned()),
        RefOr::T(Schema::Array(array)) => array.description = Some(words.to_owned()),
        RefOr::T(Schema::OneOf(one_of)) => one_of.description = Some(words.to_owned()),
        RefOr::Ref(reference) => reference.description = words.to_owned(),
        RefOr::T(_) => {}
    }
    shape
}

/// The same with what it is when nobody says.
pub(crate) fn usually(mut shape: Shape, default: impl Into<Value>) -> Shape {
    match &mut shape {
        RefOr::T(Schema::Object(object)) => object.default = Some(default.into()),
        RefOr::Ref(reference) => reference.default = Some(default.into()),
        RefOr::T(_) => {}
    }
    shape
}

/// A parameter that may be left out.
pub(crate) fn parameter(place: ParameterIn, name: &str, shape: Shape, says: &str) -> Parameter {
    let parameter = ParameterBuilder::new().parameter_in(place).name(name).description(Some(says));
    parameter.required(Required::False).schema(Some(shape)).build()
}
