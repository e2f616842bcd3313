//! Histories made to break each promise, and one that keeps them all: every count must rise on its own, and only then.

use model::{DeviceId, Funnel, GroupId, MessageId, Timestamp, UserId};

use super::*;
use crate::{Audience, Place};

/// Writes histories line by line; every line comes a millisecond after the one before.
#[derive(Default)]
struct Story {
    records: Vec<Record>,
    now: u64,
}

fn dev(n: u32) -> DeviceId {
    format!("dev-{n}").parse().unwrap()
}

fn id(msg: &str) -> MessageId {
    MessageId::new(Timestamp::from_millis(7), msg.bytes().fold(0, |sum, b| sum * 256 + u128::from(b)))
}

fn group() -> GroupId {
    GroupId::new(Timestamp::from_millis(7), 7)
}

const TTL_S: u64 = 60;

impl Story {
    fn tell(&mut self, kind: Kind, op: Op) -> &mut Self {
        self.now += 1;
        self.records.push(Record { t: Timestamp::from_millis(self.now), proc: 0, kind, op });
        self
    }

    fn both(&mut self, op: Op) -> &mut Self {
        self.tell(Kind::Invoke, op.clone()).tell(Kind::Ok, op)
    }

    /// Three devices: 0 and 1 of user `ann`, 1 tagged `vip`, 2 in the group.
    fn three_devices(&mut self) -> &mut Self {
        for n in 0..3 {
            self.both(registration(n));
        }
        self.both(Op::Join { group: group(), devs: vec![dev(2)] })
    }

    fn send(&mut self, kind: Kind, msg: &str, audience: Audience) -> &mut Self {
        let id = (kind == Kind::Ok).then(|| id(msg));
        self.tell(kind, Op::Send { msg: msg.into(), audience, ttl_s: TTL_S, id })
    }

    fn sent(&mut self, msg: &str, audience: Audience) -> &mut Self {
        self.send(Kind::Invoke, msg, audience.clone()).send(Kind::Ok, msg, audience)
    }

    /// A good first delivery on connection 1.
    fn got(&mut self, n: u32, msg: &str, seq: &str) -> &mut Self {
        self.got_so(n, 1, msg, seq, true)
    }

    /// The broadcast `all` comes to the first `count` devices.
    fn all_got(&mut self, count: u32) -> &mut Self {
        for n in 0..count {
            self.got(n, "all", "t1");
        }
        self
    }

    fn got_so(&mut self, n: u32, link: u32, msg: &str, seq: &str, app: bool) -> &mut Self {
        let seq: Place = seq.parse().unwrap();
        let (dup, acked) = (!app, true);
        self.tell(Kind::Ok, Op::Receive { dev: dev(n), link, msg: msg.into(), id: id(msg), seq, dup, app, acked })
    }

    fn synced(&mut self) -> &mut Self {
        for n in 0..3 {
            self.tell(Kind::Ok, Op::Synced { dev: dev(n) });
        }
        self
    }

    fn funnel(&mut self, msg: &str, targeted: u64, acked: u64, pending: u64) -> &mut Self {
        let funnel = Funnel { targeted, acked, pending, pending_offline: pending, sent: acked, ..Funnel::default() };
        self.tell(Kind::Ok, Op::Funnel { msg: msg.into(), funnel })
    }

    fn verdict(&self) -> Verdict {
        check(&self.records)
    }

    /// The verdict breaks on this count, and says which offence it was.
    fn breaks(&self, count: impl Fn(&Verdict) -> u64) {
        let verdict = self.verdict();
        assert!(!verdict.holds(), "{verdict}");
        assert_eq!(count(&verdict), 1, "{verdict}");
        assert_eq!(verdict.offences.len(), 1, "{verdict}");
        assert!(verdict.to_string().contains("BROKEN"));
    }
}

fn registration(n: u32) -> Op {
    let user = (n < 2).then(|| "ann".parse::<UserId>().unwrap());
    let tags = if n == 1 { ["vip".to_owned()].into() } else { [].into() };
    Op::Register { dev: dev(n), user, tags }
}

fn one() -> Audience {
    Audience::device(&dev(0))
}

fn story() -> Story {
    let mut story = Story::default();
    story.three_devices();
    story
}

#[test]
fn a_good_history_of_every_audience_holds() {
    let mut story = story();
    story.sent("one", one()).got(0, "one", "i1").sent("all", Audience::All);
    story.got(0, "all", "t1").got(1, "all", "t1").got(2, "all", "t1");
    story.sent("list", Audience::Devices(vec![dev(1), dev(2)])).got(1, "list", "i1").got(2, "list", "i1");
    story.sent("user", Audience::Users(vec!["ann".parse().unwrap()])).got(0, "user", "i2").got(1, "user", "i2");
    story.sent("group", Audience::Group(group())).got(2, "group", "t2");
    story.sent("vip", Audience::Tag("vip".into())).got(1, "vip", "t3");
    story.synced().funnel("one", 1, 1, 0).funnel("all", 3, 3, 0).funnel("group", 1, 1, 0);
    let verdict = story.verdict();
    assert!(verdict.holds(), "{verdict}");
    assert_eq!((verdict.attempt, verdict.ok), (6, 6));
    assert_eq!((verdict.expected, verdict.delivered, verdict.wire_duplicates), (10, 10, 0));
    assert!(verdict.to_string().contains("holds"));
}

#[test]
fn an_accepted_message_that_never_comes_is_lost() {
    let mut story = story();
    story.sent("all", Audience::All).got(0, "all", "t1").got(2, "all", "t1").synced();
    story.breaks(|verdict| verdict.lost);
    assert_eq!(story.verdict().delivered, 2);
}

#[test]
fn a_message_that_the_application_never_saw_is_lost_though_it_came() {
    let mut story = story();
    story.sent("one", one()).got_so(0, 1, "one", "i1", false).synced();
    story.breaks(|verdict| verdict.lost);
}

#[test]
fn a_full_inbox_may_lose_its_oldest_and_nothing_else() {
    let full = |messages: u32, to: fn() -> Audience| {
        let mut story = story();
        story.sent("first", to());
        (0..messages).for_each(|n| story.sent(&format!("m{n}"), one()).now += 1);
        (0..messages).for_each(|n| story.got(0, &format!("m{n}"), &format!("i{}", n + 1)).now += 1);
        story.synced();
        story
    };
    let cut = full(200, one).verdict();
    assert!(cut.holds(), "{cut}");
    assert_eq!((cut.truncated, cut.expected, cut.delivered), (1, 201, 200));
    full(100, one).breaks(|verdict| verdict.lost);
    assert!(full(200, || Audience::Group(group())).verdict().lost == 1, "a timeline is no inbox");
    let mut online = story();
    online.sent("first", one());
    (0..200)
        .for_each(|n| online.sent(&format!("m{n}"), one()).got(0, &format!("m{n}"), &format!("i{}", n + 1)).now += 1);
    online.synced().breaks(|verdict| verdict.lost);
}

#[test]
fn a_device_that_does_not_sync_in_time_loses_nothing() {
    let mut never = story();
    never.sent("one", one());
    assert!(never.verdict().holds());
    let mut too_late = story();
    too_late.sent("one", one()).now += TTL_S * 1_000;
    too_late.synced();
    assert!(too_late.verdict().holds());
    assert_eq!(too_late.verdict().expected, 0);
}

#[test]
fn a_message_to_somebody_else_is_unexpected() {
    let mut list = story();
    list.sent("one", one()).got(0, "one", "i1").got(1, "one", "i1").synced();
    list.breaks(|verdict| verdict.unexpected);
    let mut group = story();
    group.sent("group", Audience::Group(self::group())).got(2, "group", "t1").got(0, "group", "t1").synced();
    group.breaks(|verdict| verdict.unexpected);
}

#[test]
fn a_refused_message_that_comes_is_unexpected() {
    let mut story = story();
    story.send(Kind::Invoke, "one", one()).send(Kind::Fail, "one", one()).got(0, "one", "i1").synced();
    story.breaks(|verdict| verdict.unexpected);
    assert_eq!(story.verdict().fail, 1);
}

#[test]
fn a_message_that_nobody_sent_is_unexpected() {
    let mut story = story();
    story.got(0, "ghost", "i1").synced();
    story.breaks(|verdict| verdict.unexpected);
}

#[test]
fn a_second_message_for_one_key_is_unexpected() {
    let mut story = story();
    let other = MessageId::new(Timestamp::from_millis(9), 9);
    story.sent("one", one());
    let seq = "i1".parse().unwrap();
    let (msg, dup, app, acked) = ("one".to_owned(), false, true, true);
    story.tell(Kind::Ok, Op::Receive { dev: dev(0), link: 1, msg, id: other, seq, dup, app, acked }).synced();
    story.breaks(|verdict| verdict.unexpected);
}

#[test]
fn a_first_delivery_a_second_after_the_cancellation_is_unexpected() {
    let cancel = || Op::Cancel { msg: "all".into() };
    let mut soon = story();
    soon.sent("all", Audience::All).got(0, "all", "t1").both(cancel()).got(1, "all", "t1").now += 2_000;
    soon.got_so(0, 2, "all", "t1", false).synced();
    assert!(soon.verdict().holds(), "what was under way, what comes again, and what never comes are all fine");
    let mut late = story();
    late.sent("all", Audience::All).both(cancel()).now += 1_001;
    late.got(1, "all", "t1").synced();
    late.breaks(|verdict| verdict.unexpected);
    let mut refused = story();
    refused.sent("one", one()).tell(Kind::Invoke, Op::Cancel { msg: "one".into() });
    refused.tell(Kind::Fail, Op::Cancel { msg: "one".into() }).synced();
    refused.breaks(|verdict| verdict.lost);
}

#[test]
fn a_message_that_an_application_sees_again_is_a_duplicate_under_any_number() {
    let mut story = story();
    story.sent("one", one()).got(0, "one", "i1").got_so(0, 2, "one", "i2", true).synced();
    let verdict = story.verdict();
    assert!(!verdict.holds());
    assert_eq!((verdict.app_duplicates, verdict.wire_duplicates, verdict.renumbered), (1, 1, 1), "{verdict}");
    assert_eq!(verdict.out_of_order, 0);
}

#[test]
fn a_message_that_comes_again_under_its_number_is_allowed_and_counted() {
    let mut story = story();
    story.sent("one", one()).got(0, "one", "i1").got_so(0, 2, "one", "i1", false).synced();
    let verdict = story.verdict();
    assert!(verdict.holds(), "{verdict}");
    assert_eq!(verdict.wire_duplicates, 1);
}

#[test]
fn a_message_that_comes_again_under_another_number_is_renumbered() {
    let mut story = story();
    story.sent("one", one()).got(0, "one", "i1").got_so(0, 2, "one", "i2", false).synced();
    story.breaks(|verdict| verdict.renumbered);
}

#[test]
fn an_application_that_sees_a_smaller_number_is_out_of_order() {
    let mut story = story();
    story.sent("a", one()).sent("b", one()).got(0, "b", "i2").got_so(0, 2, "a", "i1", true).synced();
    story.breaks(|verdict| verdict.out_of_order);
}

#[test]
fn a_connection_that_carries_a_smaller_number_is_out_of_order() {
    let mut story = story();
    story.sent("a", one()).sent("b", one()).got(0, "a", "i1").got(0, "b", "i2").got_so(0, 1, "a", "i1", false).synced();
    story.breaks(|verdict| verdict.out_of_order);
}

#[test]
fn streams_have_no_order_between_them() {
    let mut story = story();
    story.sent("a", one()).sent("all", Audience::All).got(0, "all", "t9").got(0, "a", "i1");
    story.got(1, "all", "t9").got(2, "all", "t9").synced();
    assert!(story.verdict().holds());
}

#[test]
fn a_message_that_comes_a_second_after_it_expired_is_late() {
    let mut story = story();
    story.sent("one", one()).now += TTL_S * 1_000 + 1_000;
    story.got(0, "one", "i1");
    story.breaks(|verdict| verdict.late);
    let mut just = self::story();
    just.sent("one", one()).now += TTL_S * 1_000 + 900;
    assert!(just.got(0, "one", "i1").verdict().holds());
}

#[test]
fn an_unknown_outcome_may_come_or_not_and_is_counted_as_recovered_when_it_does() {
    let mut story = story();
    story.send(Kind::Invoke, "a", one()).send(Kind::Info, "a", one());
    story.send(Kind::Invoke, "b", one()).send(Kind::Info, "b", one());
    story.send(Kind::Invoke, "c", one());
    story.got(0, "a", "i1").synced();
    let verdict = story.verdict();
    assert!(verdict.holds(), "{verdict}");
    assert_eq!((verdict.info, verdict.recovered, verdict.expected), (3, 1, 0));
}

#[test]
fn a_device_that_registers_meanwhile_may_have_a_broadcast_and_need_not() {
    let during = |arrives: bool| {
        let mut story = story();
        story.send(Kind::Invoke, "all", Audience::All).both(registration(3)).send(Kind::Ok, "all", Audience::All);
        story.all_got(3);
        if arrives {
            story.got(3, "all", "t1");
        }
        story.synced().tell(Kind::Ok, Op::Synced { dev: dev(3) });
        story.verdict().holds()
    };
    assert!(during(true) && during(false));
    let mut after = story();
    after.sent("all", Audience::All).both(registration(3));
    after.all_got(4);
    after.synced().breaks(|verdict| verdict.unexpected);
}

#[test]
fn a_device_taken_out_of_the_registry_need_not_have_anything() {
    let mut story = story();
    story.sent("one", one()).both(Op::Unregister { dev: dev(0) }).synced();
    assert!(story.verdict().holds());
}

#[test]
fn a_profile_changed_meanwhile_leaves_both_open() {
    let mut story = story();
    let plain = Op::Register { dev: dev(1), user: None, tags: [].into() };
    story.send(Kind::Invoke, "vip", Audience::Tag("vip".into())).both(plain);
    story.send(Kind::Ok, "vip", Audience::Tag("vip".into())).synced();
    assert!(story.verdict().holds(), "it need not come");
    assert!(story.got(1, "vip", "t1").verdict().holds(), "it may come");
}

#[test]
fn a_funnel_that_says_something_else_than_the_devices_does_not_match() {
    let told = |targeted, acked, pending| {
        let mut story = story();
        story.sent("all", Audience::All);
        story.all_got(3);
        story.synced().funnel("all", targeted, acked, pending);
        story
    };
    assert!(told(3, 3, 0).verdict().holds());
    told(4, 3, 1).breaks(|verdict| verdict.funnel_mismatch);
    told(3, 2, 1).breaks(|verdict| verdict.funnel_mismatch);
    told(3, 3, 1).breaks(|verdict| verdict.funnel_mismatch);
    told(2, 2, 0).breaks(|verdict| verdict.funnel_mismatch);
}

#[test]
fn a_message_called_back_may_have_no_targets_and_miss_acks_but_not_invent_them() {
    let told = |targeted, acked, cancelled| {
        let mut story = story();
        story.sent("all", Audience::All).got(0, "all", "t1").both(Op::Cancel { msg: "all".into() }).synced();
        let funnel = Funnel { targeted, acked, cancelled, ..Funnel::default() };
        story.tell(Kind::Ok, Op::Funnel { msg: "all".into(), funnel });
        story
    };
    assert!(told(3, 1, 2).verdict().holds() && told(3, 0, 3).verdict().holds() && told(0, 0, 0).verdict().holds());
    told(3, 2, 1).breaks(|verdict| verdict.funnel_mismatch);
    told(2, 1, 1).breaks(|verdict| verdict.funnel_mismatch);
    told(3, 1, 1).breaks(|verdict| verdict.funnel_mismatch);
}

#[test]
fn what_was_neither_acked_nor_stated_is_not_acked() {
    let told = |after: Option<&str>| {
        let mut story = story();
        let (msg, id, seq) = ("one".to_owned(), id("one"), "i5".parse().unwrap());
        let (dup, app, acked) = (false, true, false);
        story.sent("one", one()).tell(Kind::Ok, Op::Receive { dev: dev(0), link: 1, msg, id, seq, dup, app, acked });
        if let Some(after) = after {
            story.tell(Kind::Ok, Op::State { dev: dev(0), after: after.parse().unwrap() });
        }
        story.synced().funnel("one", 1, 1, 0);
        story
    };
    told(None).breaks(|verdict| verdict.funnel_mismatch);
    told(Some("i4.t9")).breaks(|verdict| verdict.funnel_mismatch);
    assert!(told(Some("i5.t0")).verdict().holds());
}

#[test]
fn only_devices_that_stay_away_may_be_pending() {
    let mut away = story();
    away.sent("one", one()).funnel("one", 1, 0, 1);
    assert!(away.verdict().holds());
    let mut back = story();
    back.sent("one", one()).synced().funnel("one", 1, 0, 1);
    let verdict = back.verdict();
    assert_eq!((verdict.funnel_mismatch, verdict.lost), (1, 1), "{verdict}");
}
