//! Keys sort as their parts do, survive a round trip, and no two tables share a number.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::embedded::table::Span;

fn name<T: std::str::FromStr<Err: Debug> + Debug>() -> impl Strategy<Value = T> {
    "[A-Za-z0-9_-]{1,64}".prop_map(|text| text.parse().unwrap())
}

fn text() -> impl Strategy<Value = Text> {
    "\\PC{0,60}".prop_map(|text| Text::new(&text, "a text").unwrap())
}

fn env() -> impl Strategy<Value = Env> {
    prop_oneof![Just(Env::Live), Just(Env::Test)]
}

fn at() -> impl Strategy<Value = Timestamp> {
    any::<u64>().prop_map(Timestamp::from_millis)
}

fn message() -> impl Strategy<Value = MessageId> {
    any::<[u8; 16]>().prop_map(MessageId::from_bytes)
}

fn survives<K: Key + PartialEq>(key: &K) -> Result<(), TestCaseError> {
    let bytes = key.encode();
    prop_assert_eq!(bytes[0], K::NUMBER);
    prop_assert!(K::decode(&bytes).is_some_and(|read| read == *key));
    prop_assert!(K::decode(&[&bytes[..], &[0]].concat()).is_none(), "nothing may follow");
    prop_assert!(K::decode(&bytes[..bytes.len() - 1]).is_none(), "nothing may be missing");
    Ok(())
}

proptest! {
    #[test]
    fn a_key_is_read_as_it_was_written(
        app in name::<AppId>(), device in name::<DeviceId>(), user in name::<UserId>(), text in text(), env in env(),
        at in at(), message in message(), (ordinal, seq, block) in any::<(u32, u64, u16)>(),
        (millis, random) in (0..1_u64 << 48, any::<u128>()),
    ) {
        let (ordinal, seq) = (Ordinal(ordinal), Seq(seq));
        let id = KeyId::new(env, Timestamp::from_millis(millis), random);
        let group = GroupId::from_bytes(message.to_bytes());
        let app = || app.clone();
        survives(&App { app: app() })?;
        survives(&ApiKey { id })?;
        survives(&KeyOfApp { app: app(), id })?;
        survives(&Device { app: app(), device })?;
        survives(&Name { app: app(), device: ordinal })?;
        survives(&Live { app: app(), env, block })?;
        survives(&DevicesOf { app: app(), env, user })?;
        survives(&Members { app: app(), group })?;
        survives(&Entry { app: app(), message })?;
        survives(&Once { app: app(), key: text.clone() })?;
        survives(&Inbox { app: app(), device: ordinal })?;
        survives(&Timeline { app: app(), seq })?;
        survives(&UplinkById { app: app(), env, id: UplinkId::from_bytes(message.to_bytes()) })?;
        survives(&UplinkOfType { app: app(), env, kind: text.clone(), seq })?;
        survives(&Shelved { app: app(), env, shelf: 7, name: text.clone() })?;
        survives(&Note { app: app(), env, shelf: 7, name: text.clone() })?;
        survives(&ExpiryDue { at, app: app(), message })?;
        survives(&OnceDue { at, app: app(), key: text })?;
    }

    #[test]
    fn keys_of_an_app_order_as_their_numbers_do(app in name::<AppId>(), a in any::<u64>(), b in any::<u64>()) {
        let key = |seq| Timeline { app: app.clone(), seq: Seq(seq) }.encode();
        prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
    }

    #[test]
    fn what_is_due_orders_by_time_before_all(one in name::<AppId>(), other in name::<AppId>(), a in at(), b in at()) {
        let key = |at, app: &AppId| EntryDue { at, app: app.clone(), message: MessageId::from_bytes([7; 16]) }.encode();
        if a != b {
            prop_assert_eq!(key(a, &one).cmp(&key(b, &other)), a.cmp(&b));
        }
    }

    #[test]
    fn a_span_holds_its_own_app_and_no_other(one in name::<AppId>(), other in name::<AppId>(), seq in any::<u64>()) {
        let span = Span::<Timeline>::of(&[&one]);
        let key = |app: &AppId| Timeline { app: app.clone(), seq: Seq(seq) };
        prop_assert!(span.contains(&key(&one)));
        prop_assert_eq!(span.contains(&key(&other)), one == other);
    }
}

#[test]
fn no_number_is_used_twice() {
    assert_eq!(NUMBERS.iter().collect::<BTreeSet<_>>().len(), NUMBERS.len());
    assert!(NUMBERS.iter().all(|number| *number < u8::MAX), "the end of a table is the next number");
}

#[test]
fn layouts_stay_as_they_are_on_disk() {
    let app: AppId = "demo".parse().unwrap();
    let layouts = [
        (Timeline { app: app.clone(), seq: Seq(258) }.encode(), b"\x2b\x04demo\0\0\0\0\0\0\x01\x02".as_slice()),
        (Inbox { app: app.clone(), device: Ordinal(7) }.encode(), b"\x28\x04demo\0\0\0\x07"),
        (Live { app, env: Env::Test, block: 3 }.encode(), b"\x0d\x04demo\x01\0\x03"),
    ];
    for (written, expected) in layouts {
        assert_eq!(written, expected);
    }
}

#[test]
fn a_text_that_does_not_fit_is_rejected() {
    assert!(Text::new(&"x".repeat(255), "a key").is_ok());
    assert!(matches!(Text::new(&"x".repeat(256), "a key"), Err(Error::Rejected(_))));
}
