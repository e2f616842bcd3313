//! Expressions in requests: read as text or as a tree, checked against what the app has, and written down in one form.

use std::borrow::Cow;

use audience::{EXPRESSION_MAX_BYTES, Expr, Saved, Schema, field::Kind};
use model::{AppId, Attribute, AttributeType, Env, SavedAudience};
use serde_json::{Value, value::RawValue};
use store::{SharedStore, shelves};
use utoipa::{PartialSchema, ToSchema, openapi::ObjectBuilder};

use crate::{
    attributes,
    fields::Fields,
    openapi::shape::{self, Shape},
    problem::Problem,
};

/// An expression as it was written, and where.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Written {
    form: Form,
    /// The place in the body, as a JSON pointer.
    at: String,
}

impl PartialSchema for Written {
    fn schema() -> Shape {
        let tree = shape::described(ObjectBuilder::new().into(), "The same as a tree, as a preview shows it.");
        shape::either([shape::text(1..=EXPRESSION_MAX_BYTES), tree])
    }
}

impl ToSchema for Written {
    fn name() -> Cow<'static, str> {
        "Expression".into()
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Form {
    Text(String),
    Tree(Value),
}

impl Written {
    /// Takes the field `name`, where `null` counts as absent; what is neither text nor tree is a mistake.
    pub(crate) fn take(fields: &mut Fields<'_>, name: &str) -> Option<Self> {
        let raw: &RawValue = fields.take(name).filter(|raw| raw.get() != "null")?;
        let form = match serde_json::from_str(raw.get()) {
            Ok(Value::String(text)) => Form::Text(text),
            Ok(tree @ Value::Object(_)) => Form::Tree(tree),
            _ => {
                fields.fault(name, "invalid_type", "must be an expression or a tree");
                return None;
            }
        };
        Some(Self { form, at: fields.pointer(name) })
    }

    /// The parameter `filter`.
    pub(crate) fn in_query(text: String) -> Self {
        Self { form: Form::Text(text), at: "?filter".to_owned() }
    }

    /// What it means for devices whose attributes are these.
    ///
    /// # Errors
    /// `invalid_request` with the place in the body, and in a text the column.
    fn read(&self, schema: &Schema) -> Result<Expr, Problem> {
        let expr = match &self.form {
            Form::Text(text) => Expr::parse(text, schema)
                .map_err(|invalid| Problem::fault(&self.at, invalid.code, invalid.to_string()))?,
            Form::Tree(tree) => Expr::from_tree(tree, schema).map_err(|invalid| {
                Problem::fault(format!("{}{}", self.at, invalid.pointer), invalid.code, invalid.to_string())
            })?,
        };
        if expr.to_string().len() > EXPRESSION_MAX_BYTES {
            let detail = format!("as text it is longer than {EXPRESSION_MAX_BYTES} bytes");
            return Err(Problem::fault(&self.at, "filter_too_complex", detail));
        }
        Ok(expr)
    }

    /// The same, where the groups and audiences that it names must be there too.
    ///
    /// # Errors
    /// `invalid_request` with the place, or whatever the store says.
    pub(crate) async fn compile(&self, store: &SharedStore, app: &AppId, env: Env) -> Result<Expr, Problem> {
        let expr = self.read(&schema(store, app, env).await?)?;
        for saved in expr.saved() {
            if !exists(store, app, env, saved).await? {
                return Err(unknown(&self.at, saved));
            }
            if let Saved::Group(id) = saved
                && store.group(app, id).await?.is_some_and(|group| !group.source.is_static())
            {
                let detail = format!("the product keeps the members of {id}: send to it, or exclude it, by itself");
                return Err(Problem::fault(&self.at, "not_supported", detail));
            }
        }
        Ok(expr)
    }
}

/// A mistake at `pointer`: what is named there does not exist.
pub(crate) fn unknown(pointer: &str, saved: Saved) -> Problem {
    let (code, what) = match saved {
        Saved::Group(_) => ("unknown_group", "group"),
        Saved::Audience(_) => ("unknown_audience", "audience"),
    };
    Problem::fault(pointer, code, format!("there is no such {what}"))
}

/// Whether a group or audience is there, in this environment.
pub(crate) async fn exists(store: &SharedStore, app: &AppId, env: Env, saved: Saved) -> Result<bool, Problem> {
    Ok(match saved {
        Saved::Group(id) => store.group(app, id).await?.is_some_and(|group| group.env == env),
        Saved::Audience(id) => shelves::find::<SavedAudience>(&**store, app, env, &id.to_string()).await?.is_some(),
    })
}

/// The attributes that expressions may ask about.
pub(crate) async fn schema(store: &SharedStore, app: &AppId, env: Env) -> Result<Schema, Problem> {
    let known = attributes::all(store, app, env).await?;
    Ok(Schema::of(known.into_iter().map(|(name, attribute)| (name, kind(&attribute)))))
}

fn kind(attribute: &Attribute) -> Kind {
    match attribute.kind {
        AttributeType::String => Kind::Text,
        AttributeType::Number => Kind::Number,
        AttributeType::Bool => Kind::Bool,
        AttributeType::Time => Kind::Time,
        AttributeType::Version => Kind::Version,
        AttributeType::StringList => Kind::List,
    }
}
