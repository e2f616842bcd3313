//! A server's session and a device over a link that delays, loses, reorders acks and breaks, in virtual time.

mod pair;

use std::time::Duration;

use model::{Cursor, Position, Progress, Seq, Stream};
use proptest::{collection::vec, prelude::*};

use super::*;
use pair::{ACK_TIMEOUT, KEEP_ALIVE, Pair, Step};

const STREAMS: [Stream; 2] = [Stream::Inbox, Stream::Timeline];

fn step() -> impl Strategy<Value = Step> {
    let stream = || prop::sample::select(STREAMS.to_vec());
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => (stream(), any::<bool>()).prop_map(|(stream, wanted)| Step::Append { stream, wanted }),
        4 => (stream(), 1..40usize).prop_map(|(stream, most)| Step::Pull { stream, most }),
        6 => (1..40usize).prop_map(|most| Step::Arrive { most }),
        6 => index().prop_map(|which| Step::Ack { which }),
        1 => index().prop_map(|which| Step::LoseAck { which }),
        1 => index().prop_map(|which| Step::Refuse { which }),
        1 => Just(Step::Save),
        1 => Just(Step::Sync),
        1 => any::<bool>().prop_map(|states| Step::Break { states }),
        1 => any::<bool>().prop_map(|states| Step::Crash { states }),
        2 => (0..30_000u64).prop_map(|millis| Step::Wait { millis }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    /// The pair itself checks at each step that the cursor never passes what the device has not, that holes stay
    /// within the window, and that nothing goes out twice on a link.
    #[test]
    fn each_entry_is_seen_once_and_in_order_whatever_the_link_does(
        window in 1..=WINDOW_MAX,
        steps in vec(step(), 0..300),
    ) {
        let mut pair = Pair::new(window);
        for step in steps {
            pair.step(step);
        }
        pair.settle();
        for stream in STREAMS {
            prop_assert_eq!(pair.seen(stream), pair.wanted(stream), "{:?}", stream);
        }
    }
}

#[test]
fn one_lost_puback_of_twenty_repeats_exactly_that_message_with_dup_and_the_same_seq() {
    let mut pair = Pair::new(WINDOW_MAX);
    for _ in 0..20 {
        pair.step(Step::Append { stream: Stream::Inbox, wanted: true });
    }
    pair.step(Step::Pull { stream: Stream::Inbox, most: 20 });
    pair.step(Step::Arrive { most: 20 });
    let lost = pair.acks_under_way()[6];
    pair.lose_ack(6);
    pair.ack_all();
    pair.step(Step::Save);
    pair.step(Step::Break { states: false });
    let before = pair.arrivals().len();
    pair.settle();
    let repeated = &pair.arrivals()[before..];
    assert_eq!(repeated.len(), 1);
    assert!(repeated[0].dup);
    assert_eq!(repeated[0].seq, pair.seq_of(lost));
    assert_eq!(pair.seen(Stream::Inbox), pair.wanted(Stream::Inbox));
}

fn session(window: u16) -> (Session<u64>, Instant) {
    let now = Instant::now();
    let limits = Limits { window, ack_timeout: ACK_TIMEOUT, keep_alive: KEEP_ALIVE };
    (Session::new(Cursor::default(), Position::default(), limits, now), now)
}

#[test]
fn a_full_timeline_leaves_a_quarter_of_the_window_to_the_inbox() {
    let (mut session, now) = session(32);
    assert_eq!(session.room(Stream::Timeline), 24);
    for seq in 1..=24 {
        assert!(matches!(session.offer(Stream::Timeline, Seq(seq), seq, now), Offer::Send { .. }));
    }
    assert_eq!(session.offer(Stream::Timeline, Seq(25), 25, now), Offer::Full);
    assert_eq!(session.room(Stream::Inbox), 8);
    for seq in 1..=8 {
        assert!(matches!(session.offer(Stream::Inbox, Seq(seq), seq, now), Offer::Send { .. }));
    }
    assert_eq!(session.offer(Stream::Inbox, Seq(9), 9, now), Offer::Full);
}

#[test]
fn a_device_that_takes_one_at_a_time_gets_one_at_a_time() {
    let (mut session, now) = session(Limits::window(Version::V5, 1));
    let Offer::Send { packet_id, .. } = session.offer(Stream::Inbox, Seq(1), 1, now) else { panic!() };
    assert_eq!(session.offer(Stream::Inbox, Seq(2), 2, now), Offer::Full);
    assert_eq!(session.offer(Stream::Timeline, Seq(2), 2, now), Offer::Full);
    assert_eq!(session.ack(packet_id, Reason::SUCCESS).map(|answered| answered.tag), Some(1));
    assert!(matches!(session.offer(Stream::Timeline, Seq(2), 2, now), Offer::Send { .. }));
}

#[test]
fn acks_match_packet_ids_and_strangers_are_counted() {
    let (mut session, now) = session(8);
    let Offer::Send { packet_id, dup: false } = session.offer(Stream::Inbox, Seq(7), 70, now) else { panic!() };
    assert_eq!(session.ack(packet_id + 1, Reason::SUCCESS), None);
    assert_eq!(session.strays(), 1);
    let answered = session.ack(packet_id, Reason::QUOTA_EXCEEDED).unwrap();
    assert_eq!((answered.tag, answered.seq, answered.rejected), (70, Seq(7), true));
    assert_eq!(session.ack(packet_id, Reason::SUCCESS), None);
    assert_eq!(session.strays(), 2);
    assert_eq!(session.cursor().inbox, Progress { prefix: Seq(7), beyond: vec![], sent: Seq(7) });
}

#[test]
fn a_refused_entry_is_done_with_and_passed_ones_leave_no_hole() {
    let (mut session, now) = session(8);
    session.pass(Stream::Timeline, Seq(4));
    assert_eq!(session.change(), Change::Passed);
    let Offer::Send { packet_id: first, .. } = session.offer(Stream::Timeline, Seq(5), 5, now) else { panic!() };
    session.pass(Stream::Timeline, Seq(6));
    let Offer::Send { packet_id: second, .. } = session.offer(Stream::Timeline, Seq(8), 8, now) else { panic!() };
    session.ack(second, Reason::SUCCESS);
    assert_eq!(session.cursor().timeline, Progress { prefix: Seq(4), beyond: vec![Seq(8)], sent: Seq(8) });
    session.ack(first, Reason::UNSPECIFIED);
    assert_eq!(session.cursor().timeline, Progress { prefix: Seq(8), beyond: vec![], sent: Seq(8) });
}

#[test]
fn a_resumed_session_skips_what_lies_beyond_the_hole_and_flags_what_was_sent() {
    let inbox = Progress { prefix: Seq(2), beyond: vec![Seq(5)], sent: Seq(6) };
    let limits = Limits { window: 8, ack_timeout: ACK_TIMEOUT, keep_alive: KEEP_ALIVE };
    let now = Instant::now();
    let mut session = Session::new(Cursor { inbox, ..Cursor::default() }, Position::default(), limits, now);
    assert_eq!(session.mark(Stream::Inbox), Seq(2));
    let Offer::Send { packet_id, dup: true } = session.offer(Stream::Inbox, Seq(3), 3, now) else { panic!() };
    assert_eq!(session.offer(Stream::Inbox, Seq(5), 5, now), Offer::Received(5));
    assert_eq!(session.offer(Stream::Inbox, Seq(5), 5, now), Offer::Past);
    assert!(matches!(session.offer(Stream::Inbox, Seq(6), 6, now), Offer::Send { dup: true, .. }));
    assert!(matches!(session.offer(Stream::Inbox, Seq(7), 7, now), Offer::Send { dup: false, .. }));
    assert_eq!(session.cursor().inbox, Progress { prefix: Seq(2), beyond: vec![Seq(5)], sent: Seq(7) });
    session.ack(packet_id, Reason::SUCCESS);
    assert_eq!(session.cursor().inbox.prefix, Seq(5));
}

#[test]
fn a_stated_position_answers_what_is_on_the_wire_and_still_awaits_its_acks() {
    let (mut session, now) = session(4);
    let Offer::Send { packet_id, .. } = session.offer(Stream::Inbox, Seq(1), 1, now) else { panic!() };
    let answered = session.state(Position { inbox: Seq(3), timeline: Seq(0) });
    assert_eq!(answered.iter().map(|answered| answered.tag).collect::<Vec<_>>(), [1]);
    assert_eq!(session.cursor().inbox.prefix, Seq(1));
    assert_eq!(session.in_flight(), 1);
    assert_eq!(session.offer(Stream::Inbox, Seq(3), 3, now), Offer::Received(3));
    assert!(matches!(session.offer(Stream::Inbox, Seq(4), 4, now), Offer::Send { .. }));
    assert_eq!(session.ack(packet_id, Reason::SUCCESS), None);
    assert_eq!((session.in_flight(), session.strays()), (1, 0));
}

#[test]
fn silence_and_missing_acks_close_the_link() {
    let (mut session, now) = session(8);
    assert_eq!(session.deadline(), now + KEEP_ALIVE * 3 / 2);
    assert!(matches!(session.offer(Stream::Inbox, Seq(1), 1, now), Offer::Send { .. }));
    assert_eq!(session.deadline(), now + ACK_TIMEOUT);
    assert_eq!(session.overdue(now + ACK_TIMEOUT - Duration::from_millis(1)), None);
    assert_eq!(session.overdue(now + ACK_TIMEOUT), Some(Overdue::Ack));
    assert_eq!(session.overdue(now + KEEP_ALIVE * 2), Some(Overdue::KeepAlive));
    session.ack(1, Reason::SUCCESS);
    session.touched(now + KEEP_ALIVE);
    assert_eq!(session.overdue(now + KEEP_ALIVE * 2), None);
}

#[test]
fn one_ack_settles_all_entries_of_a_packet_in_both_streams() {
    let (mut session, now) = session(WINDOW_FETCHED);
    let mut packet_id = None;
    for (n, stream) in (1..=60).flat_map(|n| STREAMS.map(|stream| (n, stream))) {
        let Offer::Send { packet_id: id, .. } = session.offer_in(packet_id, (stream, Seq(n)), n, now) else {
            panic!("no room for {n}")
        };
        assert_eq!(*packet_id.get_or_insert(id), id);
    }
    let Offer::Send { packet_id: next, .. } = session.offer(Stream::Inbox, Seq(61), 61, now) else { panic!() };
    assert_ne!(Some(next), packet_id);
    let stated = Position { inbox: Seq(2), timeline: Seq::ZERO };
    assert_eq!(session.state(stated).len(), 2);
    let answered = session.ack_all(packet_id.unwrap(), Reason::SUCCESS);
    assert_eq!(answered.len(), 118, "what was stated is not answered twice");
    assert_eq!(session.cursor().inbox.prefix, Seq(60));
    assert_eq!((session.in_flight(), session.strays()), (1, 0));
    assert!(session.ack_all(packet_id.unwrap(), Reason::SUCCESS).is_empty());
    assert_eq!(session.strays(), 1);
}
