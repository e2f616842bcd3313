//! Why a device did not get a message: the clause, the exclusion, the end of its time, or that it was away.

use audience::{Expr, Facts, Leaf, Saved, holds_among};
use model::{Aim, Device, Means, Members, SavedAudience, Stage};
use serde::Serialize;
use store::shelves;
use utoipa::ToSchema;

use super::Receipts;
use crate::{api::Api, gate::Call, problem::Problem, view};

/// Groups and saved lists that are looked into for one explanation.
const SAVED_MAX: usize = 20;

/// Why a message has come no farther.
#[derive(Serialize, ToSchema)]
pub(super) struct Why {
    /// What kind of reason, for programs.
    reason: &'static str,
    /// In words.
    detail: String,
    /// Which exclusion took the device out.
    #[serde(skip_serializing_if = "Option::is_none")]
    excluded_by: Option<&'static str>,
    /// The part of the audience's expression that the device does not satisfy, as it is known now.
    #[serde(skip_serializing_if = "Option::is_none")]
    clause: Option<String>,
}

impl Why {
    fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), excluded_by: None, clause: None }
    }
}

/// Why; nothing when the device has it.
pub(super) async fn explain(
    api: &Api,
    call: &Call,
    receipts: &Receipts,
    (device, stage): (&Device, Stage),
) -> Result<Option<Why>, Problem> {
    let entry = &receipts.known.entry;
    let was_sent = receipts.tally.sent.contains(device.ordinal);
    let why = match stage {
        Stage::Acked => return Ok(None),
        Stage::NotTargeted => not_targeted(api, call, receipts, device).await?,
        Stage::Rejected => Why::new("rejected", "the device refused it, or could not have taken it"),
        Stage::Truncated => Why::new("truncated", "newer messages pushed it off the stream before the device came"),
        Stage::Cancelled => {
            let at = entry.cancelled_at.map(view::time);
            Why::new(
                "cancelled",
                match at {
                    Some(at) => format!("it was called back at {at}, before the device had it"),
                    None => "a newer message with its collapse key took its place before the device had it".to_owned(),
                },
            )
        }
        Stage::Expired if was_sent => Why::new(
            "expired",
            format!("it was written to the device, which did not answer until {}", view::time(entry.expires_at)),
        ),
        Stage::Expired => {
            let from = view::time(entry.dispatched_at.unwrap_or(entry.created_at));
            Why::new(
                "offline",
                format!("the device did not come for it between {from} and {}", view::time(entry.expires_at)),
            )
        }
        Stage::Sent => Why::new("unanswered", "it was written to the device, which has not answered yet"),
        Stage::HeldOnWake => {
            let due = view::time(receipts.due_at().unwrap_or(entry.expires_at));
            Why::new(
                "held_on_wake",
                format!("the device is connected and rests; it goes with its next ping, or at {due}"),
            )
        }
        Stage::Queued | Stage::UnknownDevice => waiting(api, call, device).await?,
    };
    Ok(Some(why))
}

async fn waiting(api: &Api, call: &Call, device: &Device) -> Result<Why, Problem> {
    let routes = api.store.routes(call.caller.app(), &[device.ordinal]).await?;
    Ok(match routes.into_iter().flatten().next() {
        Some(route) => Why::new("waiting", format!("the device is connected to {}; it waits for its turn", route.node)),
        None => Why::new("offline", "the device is not connected, as far as is known; it waits for it"),
    })
}

async fn not_targeted(api: &Api, call: &Call, receipts: &Receipts, device: &Device) -> Result<Why, Problem> {
    let aim = receipts.known.aim(api, call).await?.unwrap_or_default();
    if let Some((why, _)) = aim.excluded.iter().find(|(_, devices)| devices.contains(device.ordinal)) {
        let excluded = format!("the device was taken out of the audience: {}", why.as_str());
        return Ok(Why { excluded_by: Some(why.as_str()), ..Why::new("excluded", excluded) });
    }
    let entry = &receipts.known.entry;
    if device.first_seen > entry.dispatched_at.unwrap_or(entry.created_at) {
        let detail =
            format!("the device was registered at {}, after the audience was frozen", view::time(device.first_seen));
        return Ok(Why::new("registered_later", detail));
    }
    clause(api, call, &aim, device).await
}

/// The part of what was wanted that the device does not satisfy.
async fn clause(api: &Api, call: &Call, aim: &Aim, device: &Device) -> Result<Why, Problem> {
    let Some(Ok(expr)) = aim.wanted.as_ref().map(|wanted| wanted.parse::<Expr>()) else {
        return Ok(Why::new("not_named", "the message was for others"));
    };
    let expr = spelled_out(api, call, expr).await?;
    let mut among = Vec::new();
    for saved in expr.saved().into_iter().take(SAVED_MAX) {
        if contains(api, call, saved, device).await? {
            among.push(saved);
        }
    }
    let facts = Facts { device, now: aim.at, online: is_connected(api, call, device).await? };
    let holds = |part: &Expr| holds_among(part, &facts, &|saved| among.contains(&saved));
    let parts = if let Expr::All(parts) = &expr { parts.iter().collect() } else { vec![&expr] };
    Ok(match parts.into_iter().find(|part| !holds(part)) {
        Some(part) => {
            let detail = format!("as the device is known now, this does not hold for it: {part}");
            Why { clause: Some(part.to_string()), ..Why::new("clause", detail) }
        }
        None => Why::new("changed_since", "the device satisfies the filter now, but did not when it was frozen"),
    })
}

/// Whether a device is connected, as far as is known.
async fn is_connected(api: &Api, call: &Call, device: &Device) -> Result<bool, Problem> {
    Ok(api.store.routes(call.caller.app(), &[device.ordinal]).await?.iter().any(Option::is_some))
}

/// The same with saved filters that must hold in place of their names: a name explains nothing.
async fn spelled_out(api: &Api, call: &Call, expr: Expr) -> Result<Expr, Problem> {
    let (app, env, store) = (call.caller.app(), call.caller.env(), &*api.store);
    let mut whole = None;
    for part in if let Expr::All(parts) = expr { parts } else { vec![expr] } {
        let mut spelled = None;
        if let Expr::Leaf(Leaf::Saved(Saved::Audience(id))) = &part {
            let saved = shelves::find::<SavedAudience>(store, app, env, &id.to_string()).await?;
            if let Some(Means::Filter(text)) = saved.map(|saved| saved.means) {
                spelled = text.parse::<Expr>().ok();
            }
        }
        let part = spelled.unwrap_or(part);
        whole = Some(match whole {
            Some(whole) => whole & part,
            None => part,
        });
    }
    Ok(whole.unwrap_or(Expr::All(Vec::new())))
}

/// Whether a device is in a group or audience now. What a saved filter names in turn is taken not to hold it.
async fn contains(api: &Api, call: &Call, saved: Saved, device: &Device) -> Result<bool, Problem> {
    let (app, env, store) = (call.caller.app(), call.caller.env(), &*api.store);
    Ok(match saved {
        Saved::Group(id) => store.members(app, id).await?.is_some_and(|members| members.contains(device.ordinal)),
        Saved::Audience(id) => {
            let name = id.to_string();
            match shelves::find::<SavedAudience>(store, app, env, &name).await?.map(|audience| audience.means) {
                Some(Means::List(_)) => {
                    let members = shelves::find::<Members>(store, app, env, &name).await?;
                    members.is_some_and(|Members(members)| members.contains(device.ordinal))
                }
                Some(Means::Filter(text)) => {
                    let own = Leaf::Saved(saved);
                    let online = is_connected(api, call, device).await?;
                    let facts = Facts { device, now: api.clock.now(), online };
                    text.parse::<Expr>()
                        .is_ok_and(|expr| !expr.leaves().contains(&&own) && holds_among(&expr, &facts, &|_| false))
                }
                None => false,
            }
        }
    })
}
