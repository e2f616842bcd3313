//! What narrows an audience, as its sender says it, and as it travels with the message.

use audience::{Comparison, Expr, Field, Leaf, Literal, Quantity, Saved, Schema, field::BuiltIn};
use model::{AudienceId, DeviceId, Except, Excluded, Exclusion, GroupId, Ordinals, Terms, UserId};
use serde_json::{Value, json};

use super::request::RECIPIENTS_MAX;
use crate::{
    api::Api,
    auth::Caller,
    callback,
    fields::Fields,
    filter,
    filter::Written,
    openapi::shape::{self, Shape},
    problem::Problem,
};

/// Platforms, tags, groups or audiences that one message may name: what makes one expression each.
const NAMES_MAX: usize = 50;
/// Longest name of a platform or a tag, in bytes.
const NAME_MAX_BYTES: usize = 64;

/// What narrows an audience, as its sender says it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Narrowing {
    platforms: Vec<String>,
    sample: Option<Expr>,
    exclude: Exclude,
    /// Where `to` stands, as a JSON pointer.
    at: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Exclude {
    devices: Vec<DeviceId>,
    users: Vec<UserId>,
    tags: Vec<String>,
    groups: Vec<GroupId>,
    audiences: Vec<AudienceId>,
    filter: Option<Written>,
}

impl Narrowing {
    /// What stands in `to` beside whom it means.
    pub(crate) fn shapes() -> Vec<(&'static str, Shape)> {
        let names = || shape::list(shape::text(1..=NAME_MAX_BYTES), 0..=NAMES_MAX);
        let exclude = vec![
            ("devices", shape::list(shape::of::<DeviceId>(), 0..=RECIPIENTS_MAX)),
            ("users", shape::list(shape::of::<UserId>(), 0..=RECIPIENTS_MAX)),
            ("tags", names()),
            ("groups", shape::list(shape::of::<GroupId>(), 0..=NAMES_MAX)),
            ("audiences", shape::list(shape::of::<AudienceId>(), 0..=NAMES_MAX)),
            ("filter", shape::of::<Written>()),
        ];
        let sample = vec![("percent", shape::any_number()), ("salt", shape::any_text())];
        vec![
            ("platforms", names()),
            ("sample", shape::object(sample, Vec::new()).into()),
            ("exclude", shape::object(Vec::new(), exclude).into()),
        ]
    }

    /// Takes `platforms`, `sample` and `exclude` of `to`; mistakes stay in `fields`.
    pub(crate) fn take(fields: &mut Fields<'_>) -> Self {
        let at = fields.pointer("").trim_end_matches('/').to_owned();
        let platforms = names(fields, "platforms");
        let sample: Option<Value> = fields.get("sample", "an object with `percent` and `salt`");
        let sample = sample.and_then(|sample| {
            let expr = Expr::from_tree(&json!({ "sample": sample }), &Schema::open());
            expr.map_err(|invalid| fields.fault("sample", invalid.code, invalid.reason)).ok()
        });
        let exclude = fields.object("exclude").map(|mut inner| {
            let exclude = Exclude {
                devices: inner.list("devices", RECIPIENTS_MAX).unwrap_or_default(),
                users: inner.list("users", RECIPIENTS_MAX).unwrap_or_default(),
                tags: names(&mut inner, "tags"),
                groups: inner.list("groups", NAMES_MAX).unwrap_or_default(),
                audiences: inner.list("audiences", NAMES_MAX).unwrap_or_default(),
                filter: Written::take(&mut inner, "filter"),
            };
            fields.absorb(inner);
            exclude
        });
        Self { platforms, sample, exclude: exclude.unwrap_or_default(), at }
    }

    /// Whether it takes a filter tier to know what this means.
    pub(crate) fn asks(&self) -> bool {
        let Exclude { tags, groups, audiences, filter, .. } = &self.exclude;
        let named = tags.is_empty() && groups.is_empty() && audiences.is_empty() && filter.is_none();
        !(named && self.platforms.is_empty() && self.sample.is_none())
    }

    /// The terms as they travel: names of devices and users looked up, the rest as expressions.
    ///
    /// # Errors
    /// `invalid_request` for what does not exist; whatever the store says.
    pub(crate) async fn resolve(&self, api: &Api, caller: &Caller) -> Result<Terms, Problem> {
        let (app, env, store) = (caller.app(), caller.env(), &api.store);
        let Exclude { devices, users, tags, groups, audiences, filter } = &self.exclude;
        let mut except = Vec::new();
        if !devices.is_empty() {
            let found = store.devices(app, devices).await?.into_iter().flatten();
            let listed = found.filter(|device| device.env == env).map(|device| device.ordinal).collect();
            except.push(Except { why: Exclusion::Devices, who: Excluded::Listed(listed) });
        }
        if !users.is_empty() {
            let mut listed = Ordinals::new();
            store.devices_of(app, env, users).await?.iter().for_each(|devices| listed |= devices);
            except.push(Except { why: Exclusion::Users, who: Excluded::Listed(listed) });
        }
        if !tags.is_empty() {
            let leaf = Leaf::Tags { quantity: Quantity::Any, tags: tags.clone() };
            except.push(selected(Exclusion::Tags, &leaf.into()));
        }
        let (groups, fetched) = self.groups(api, caller, groups).await?;
        if !fetched.is_empty() {
            except.push(Except { why: Exclusion::Groups, who: Excluded::Listed(fetched) });
        }
        for (why, name, saved) in [
            (Exclusion::Groups, "groups", groups.into_iter().map(Saved::Group).collect::<Vec<_>>()),
            (Exclusion::Audiences, "audiences", audiences.iter().copied().map(Saved::Audience).collect()),
        ] {
            for (index, saved) in saved.iter().enumerate() {
                if !filter::exists(store, app, env, *saved).await? {
                    return Err(filter::unknown(&format!("{}/exclude/{name}/{index}", self.at), *saved));
                }
            }
            let any = saved.into_iter().map(|saved| Expr::from(Leaf::Saved(saved))).reduce(|one, other| one | other);
            except.extend(any.map(|any| selected(why, &any)));
        }
        if let Some(filter) = filter {
            except.push(selected(Exclusion::Filter, &filter.compile(store, app, env).await?));
        }
        Ok(Terms { only: self.only().map(|only| only.to_string()), except })
    }

    /// Those groups that are kept here, and the members of the others, which the product is asked for now.
    async fn groups(&self, api: &Api, caller: &Caller, ids: &[GroupId]) -> Result<(Vec<GroupId>, Ordinals), Problem> {
        let (mut kept, mut fetched) = (Vec::new(), Ordinals::new());
        for (index, id) in ids.iter().enumerate() {
            let unknown = || filter::unknown(&format!("{}/exclude/groups/{index}", self.at), Saved::Group(*id));
            let found = api.store.group(caller.app(), *id).await?;
            let group = found.filter(|group| group.env == caller.env()).ok_or_else(unknown)?;
            if group.source.is_static() {
                kept.push(*id);
            } else {
                fetched |= &callback::members(api, caller, &group).await?.0;
            }
        }
        Ok((kept, fetched))
    }

    fn only(&self) -> Option<Expr> {
        let field = Field::BuiltIn(BuiltIn::Platform);
        let mut values: Vec<_> = self.platforms.iter().cloned().map(Literal::Text).collect();
        let platforms = match values.len() {
            0 => None,
            1 => values.pop().map(|with| Leaf::Compare { field, comparison: Comparison::Equal, with }),
            _ => Some(Leaf::In { field, negated: false, values }),
        };
        platforms.map(Expr::from).into_iter().chain(self.sample.clone()).reduce(|one, other| one & other)
    }
}

fn names(fields: &mut Fields<'_>, name: &str) -> Vec<String> {
    let names: Vec<String> = fields.list(name, NAMES_MAX).unwrap_or_default();
    if !names.iter().all(|text| (1..=NAME_MAX_BYTES).contains(&text.len())) {
        fields.fault(name, "out_of_range", format!("names of 1..{NAME_MAX_BYTES} bytes"));
    }
    names
}

fn selected(why: Exclusion, expr: &Expr) -> Except {
    Except { why, who: Excluded::Filter(expr.to_string()) }
}
