//! The fixed topics: `push/{app}/…`, the same for every device of an app, so that one encoded packet serves them all.

use model::AppId;

/// Longest business type, in bytes.
pub const KIND_MAX_BYTES: usize = 32;

/// The first level of every topic.
const ROOT: &str = "push";

/// What a device publishes to, besides its app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Up<'a> {
    /// `up/{type}`: business data.
    Uplink(&'a str),
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
        let up = match rest {
            "sync" => Self::Sync,
            "attr" => Self::Attributes,
            "event" => Self::Event,
            "hb" => Self::Heartbeat,
            "bind" => Self::Bind,
            _ => Self::Uplink(rest.strip_prefix("up/").filter(|kind| is_kind(kind))?),
        };
        Some((app.parse().ok()?, up))
    }
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

/// Where a device sends business data of a type.
pub fn uplink(app: &AppId, kind: &str) -> String {
    format!("{ROOT}/{app}/up/{kind}")
}

/// Where the platform tells a device that there is something to fetch.
pub fn notice(app: &AppId) -> String {
    format!("{ROOT}/{app}/notify")
}

/// Where a device finds the answer to what it has asked under this name.
pub fn answer(app: &AppId, request: &str) -> String {
    format!("{ROOT}/{app}/res/{request}")
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
        assert_eq!(Up::parse("push/demo/up/order-2"), Some((demo.clone(), Up::Uplink("order-2"))));
        assert_eq!(Up::parse("push/demo/sync"), Some((demo.clone(), Up::Sync)));
        assert_eq!(Up::parse("push/demo/hb"), Some((demo, Up::Heartbeat)));
        let long = format!("push/demo/up/{}", "k".repeat(KIND_MAX_BYTES + 1));
        for bad in ["", "push", "push/demo", "push/demo/up/", "push/demo/up/A", "push/demo/up/a/b", "push/demo/msg/a"] {
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
