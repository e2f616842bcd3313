//! The fixed topics: `push/{app}/…`, the same for every device of an app, so that one encoded packet serves them all.

use std::fmt::Display;

use model::{AppId, DeviceId, MessageId, ReplyTo};

/// Longest business type, in bytes.
pub const KIND_MAX_BYTES: usize = 32;

/// The first level of every topic.
const ROOT: &str = "push";

/// What a device publishes to, besides its app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Up<'a> {
    /// `up/{type}`: business data; `up/{type}/{request}` when it is to be answered.
    Uplink(&'a str, Option<ReplyTo>),
    /// `peer/{device}/{type}`: for another device.
    Peer(DeviceId, &'a str),
    /// `result/{id}`: what came of a command.
    Outcome(MessageId),
    /// `sync`: what the device has received.
    Sync,
    /// `attr`: attributes it reports.
    Attributes,
    /// `event`: what its user did with messages.
    Event,
    /// `hb`: how often it will be heard.
    Heartbeat,
    /// `bind`: another app on the same link.
    Bind,
}

impl<'a> Up<'a> {
    /// Takes the topic of a device's message apart; `None` when no device may publish to it, whatever its app.
    pub fn parse(topic: &'a str) -> Option<(AppId, Self)> {
        let (app, rest) = topic.strip_prefix(ROOT)?.strip_prefix('/')?.split_once('/')?;
        Some((app.parse().ok()?, Self::within_app(rest)?))
    }

    /// The same for what stands behind the app.
    pub fn within_app(rest: &'a str) -> Option<Self> {
        Some(match rest {
            "sync" => Self::Sync,
            "attr" => Self::Attributes,
            "event" => Self::Event,
            "hb" => Self::Heartbeat,
            "bind" => Self::Bind,
            _ => match rest.split_once('/')? {
                ("up", kind) => match kind.split_once('/') {
                    Some((kind, request)) => Self::Uplink(known(kind)?, Some(request.parse().ok()?)),
                    None => Self::Uplink(known(kind)?, None),
                },
                ("peer", rest) => {
                    let (device, kind) = rest.split_once('/')?;
                    Self::Peer(device.parse().ok()?, known(kind)?)
                }
                ("result", id) => Self::Outcome(id.parse().ok()?),
                _ => return None,
            },
        })
    }
}

fn known(kind: &str) -> Option<&str> {
    Some(kind).filter(|kind| is_kind(kind))
}

/// Whether a text is a business type: `[a-z0-9_-]{1,32}`.
pub fn is_kind(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    (1..=KIND_MAX_BYTES).contains(&text.len()) && text.bytes().all(legal)
}

/// Whether a subscription stays inside an app: `push/{app}/` and then anything.
pub fn is_inside(filter: &str, app: &AppId) -> bool {
    let inside = filter.strip_prefix(ROOT).and_then(|rest| rest.strip_prefix('/'));
    inside.and_then(|rest| rest.strip_prefix(app.as_str())).is_some_and(|rest| rest.starts_with('/'))
}

/// Where messages of a business type go.
pub fn message(app: &AppId, kind: &str) -> String {
    format!("{ROOT}/{app}/msg/{kind}")
}

/// The topic that ends like this behind its app.
pub fn within(app: &AppId, rest: &str) -> String {
    format!("{ROOT}/{app}/{rest}")
}

/// Where the answer to a device's request goes, by the name that the device gave it.
pub fn answer(app: &AppId, request: impl Display) -> String {
    format!("{ROOT}/{app}/res/{request}")
}

/// The request whose answer goes to this topic of an app.
pub fn request(topic: &str, app: &AppId) -> Option<ReplyTo> {
    let inside = topic.strip_prefix(ROOT)?.strip_prefix('/')?.strip_prefix(app.as_str())?;
    inside.strip_prefix("/res/")?.parse().ok()
}

/// Where a device says what came of a command.
pub fn outcome(app: &AppId, command: MessageId) -> String {
    format!("{ROOT}/{app}/result/{command}")
}

/// Where the platform tells a device that there is something to fetch.
pub fn notice(app: &AppId) -> String {
    format!("{ROOT}/{app}/notify")
}

/// Where the platform tells a device about its link.
pub fn control(app: &AppId) -> String {
    format!("{ROOT}/{app}/ctl")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_of_devices_are_told_apart_and_nothing_else_is_one() {
        let demo: AppId = "demo".parse().unwrap();
        assert_eq!(Up::parse("push/demo/up/order-2"), Some((demo.clone(), Up::Uplink("order-2", None))));
        assert_eq!(Up::parse("push/demo/sync"), Some((demo.clone(), Up::Sync)));
        assert_eq!(Up::parse("push/demo/hb"), Some((demo.clone(), Up::Heartbeat)));
        let request: ReplyTo = "r-1".parse().unwrap();
        let asked = Up::Uplink("order", Some(request.clone()));
        assert_eq!(Up::parse("push/demo/up/order/r-1"), Some((demo.clone(), asked)));
        assert_eq!(super::request(&answer(&demo, &request), &demo), Some(request));
        assert_eq!(super::request("push/demos/res/r-1", &demo), None);
        let peer = Up::Peer("dev-2".parse().unwrap(), "chat");
        assert_eq!(Up::parse("push/demo/peer/dev-2/chat"), Some((demo.clone(), peer)));
        let command = MessageId::from_bytes([7; 16]);
        assert_eq!(Up::parse(&outcome(&demo, command)), Some((demo, Up::Outcome(command))));
        let long = format!("push/demo/up/{}", "k".repeat(KIND_MAX_BYTES + 1));
        for bad in [
            "",
            "push",
            "push/demo",
            "push/demo/up/",
            "push/demo/up/A",
            "push/demo/up/a/b/c",
            "push/demo/peer/dev-2",
            "push/demo/result/7",
            "push/demo/msg/a",
        ] {
            assert_eq!(Up::parse(bad), None, "{bad:?}");
        }
        for bad in [long.as_str(), "push//sync", "pushy/demo/sync", "/push/demo/sync", "push/a.b/sync", "$SYS/x"] {
            assert_eq!(Up::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_subscription_stays_inside_its_app() {
        let demo: AppId = "demo".parse().unwrap();
        for good in ["push/demo/#", "push/demo/msg/+", "push/demo/ctl"] {
            assert!(is_inside(good, &demo), "{good}");
        }
        for bad in ["#", "push/#", "push/+/msg/a", "push/demo", "push/demos/#", "$share/g/push/demo/#", "push/other/#"]
        {
            assert!(!is_inside(bad, &demo), "{bad}");
        }
    }
}
