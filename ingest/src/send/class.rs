//! What a message is beyond its body, as its sender says it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use model::{Class, Reply, ReplyTo, class::CORRELATION_MAX_BYTES};

use super::{request::To, terms::Narrowing};
use crate::{
    fields::Fields,
    openapi::shape::{self, Shape},
};

/// Takes `class` and `reply`. A command is for one device: one execution, and one word on what came of it. So is an
/// answer: for the device that has asked.
pub(super) fn take(fields: &mut Fields<'_>, to: Option<&(To, Narrowing)>) -> Class {
    let named = fields.get::<String>("class", "a string");
    let reply = fields.object("reply").map(|mut inner| {
        let reply = reply(&mut inner);
        fields.absorb(inner);
        reply
    });
    let only = match to {
        Some((To::Devices(ids), narrowing)) if ids.len() == 1 && !narrowing.asks() => Some(ids[0].clone()),
        _ => None,
    };
    let class = match (named.as_deref(), reply) {
        (None | Some("message"), None) => return Class::Message,
        (Some("command"), None) => only.clone().map(|device| Class::Command { device }),
        (None, Some(reply)) => reply.map(Class::Answer),
        (Some(_), reply) => {
            match reply {
                Some(_) => fields.fault("class", "contradiction", "a message with `reply` is an answer"),
                None => fields.fault("class", "invalid_format", "must be `message` or `command`"),
            }
            return Class::Message;
        }
    };
    if to.is_some() && only.is_none() {
        fields.fault("to", "contradiction", "commands and answers are for one device: `{\"devices\": [\"…\"]}`");
    }
    class.unwrap_or_default()
}

/// The `reply` of the uplink that is answered.
pub(super) fn reply_shape() -> Shape {
    let correlation = shape::text(0..=CORRELATION_MAX_BYTES.div_ceil(3) * 4);
    shape::object(vec![("to", shape::of::<ReplyTo>())], vec![("correlation_base64", correlation)]).into()
}

/// Takes an uplink's `reply` apart again.
fn reply(inner: &mut Fields<'_>) -> Option<Reply> {
    if inner.lacks("to") {
        inner.fault("to", "missing", "the `reply` of the uplink says it");
    }
    let to = inner.parsed("to");
    let encoded: Option<String> = inner.get("correlation_base64", "a string");
    let decoded = encoded.as_ref().map(|encoded| STANDARD.decode(encoded));
    let fits = |bytes: &Vec<u8>| bytes.len() <= CORRELATION_MAX_BYTES;
    let correlation = decoded.and_then(Result::ok).filter(fits);
    if encoded.is_some() && correlation.is_none() {
        let rule = format!("must be base64 with padding, of at most {CORRELATION_MAX_BYTES} bytes");
        inner.fault("correlation_base64", "invalid_format", rule);
    }
    Some(Reply { to: to?, correlation: correlation.map(Into::into) })
}
