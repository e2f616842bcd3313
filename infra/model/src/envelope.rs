//! What travels on the broker's lane queues: a message and whom it is for.
//!
//! Golden files of every version lie in `infra/model/golden/`; the test below reads them all.

use serde::{Deserialize, Serialize};

use crate::{Audience, Message, Terms, record::Record};

/// A message on its way from ingest to a dispatcher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// The message.
    pub message: Message,
    /// Whom it is for.
    pub audience: Audience,
    /// What narrows that.
    #[serde(default, skip_serializing_if = "Terms::are_none")]
    pub terms: Terms,
}

impl Record for Envelope {
    const VERSION: u8 = 2;

    /// The second version has terms. Who does not know them would deliver to those whom they leave out, and sets such an
    /// envelope aside instead.
    fn version(&self) -> u8 {
        if Terms::are_none(&self.terms) { 1 } else { 2 }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        Class, Env, Except, Excluded, Exclusion, GroupId, Lane, MessageId, Ordinal, Priority, Timestamp, TraceParent,
        record::Unreadable,
    };

    /// One envelope for each kind of audience, all fields set.
    fn samples() -> Vec<(&'static str, Envelope)> {
        let at = Timestamp::from_millis(1_795_249_800_123);
        let audiences = [
            ("one", Lane::Unicast, Audience::One(Ordinal(7))),
            ("devices", Lane::Multicast, Audience::Devices([1, 2, 70_000].map(Ordinal).into_iter().collect())),
            ("group", Lane::Multicast, Audience::Group(GroupId::new(at, 5))),
            ("filter", Lane::Broadcast, Audience::Filter("tag(\"vip\")".into())),
            ("all", Lane::Broadcast, Audience::All { below: 1_000 }),
        ];
        let envelope = |lane, audience| Envelope {
            message: Message {
                id: MessageId::new(at, 42),
                app: "demo".parse().unwrap(),
                env: Env::Live,
                lane,
                kind: "order".into(),
                class: Class::Message,
                payload: r#"{"title":"Shipped"}"#.into(),
                content_type: "application/json".into(),
                created_at: at,
                expires_at: Timestamp::from_millis(1_795_336_200_123),
                due_at: None,
                priority: Priority::High,
                collapse_key: Some("order-8812".into()),
                metadata: BTreeMap::from([("campaign".into(), "ops".into())]),
                trace: TraceParent::start(0x4bf9_2f35, 0xf067),
            },
            audience,
            terms: Terms::default(),
        };
        audiences.map(|(name, lane, audience)| (name, envelope(lane, audience))).to_vec()
    }

    fn with_terms() -> (&'static str, Envelope) {
        let (_, envelope) = samples().remove(4);
        let who = Excluded::Filter("tag(\"staff\")".into());
        let except = vec![Except { why: Exclusion::Tags, who }];
        let terms = Terms { only: Some("platform in [\"ios\"]".into()), except };
        ("terms", Envelope { terms, ..envelope })
    }

    fn hex(bytes: &[u8]) -> String {
        hex::encode(bytes)
    }

    #[test]
    fn envelopes_of_every_version_are_read_and_this_version_is_written_as_ever() {
        let golden = [include_str!("../golden/envelope-v1.txt"), include_str!("../golden/envelope-v2.txt")];
        let lines = golden.iter().flat_map(|golden| golden.lines());
        let golden: BTreeMap<&str, &str> = lines.filter_map(|line| line.split_once(' ')).collect();
        for (name, envelope) in samples().into_iter().chain([with_terms()]) {
            let bytes = hex::decode(golden.get(name).copied().unwrap_or_default()).unwrap();
            assert_eq!(hex(&envelope.encode()), hex(&bytes), "the layout changed: raise VERSION and add a golden file");
            assert_eq!(Envelope::decode(&bytes).unwrap(), envelope);
        }
    }

    #[test]
    fn only_what_has_terms_needs_a_reader_of_the_second_version() {
        assert!(samples().iter().all(|(_, envelope)| envelope.encode()[0] == 1));
        assert_eq!(with_terms().1.encode()[0], 2);
    }

    #[test]
    fn other_versions_and_damage_are_told_apart() {
        let (_, envelope) = samples().remove(0);
        let bytes = envelope.encode();
        let newer = [&[Envelope::VERSION + 1], &bytes[1..]].concat();
        assert!(matches!(Envelope::decode(&newer), Err(Unreadable::Version(v)) if v == Envelope::VERSION + 1));
        for damaged in [&[][..], &bytes[..bytes.len() - 3], &[Envelope::VERSION, 0xc1]] {
            assert!(matches!(Envelope::decode(damaged), Err(Unreadable::Malformed(_))));
        }
    }
}
