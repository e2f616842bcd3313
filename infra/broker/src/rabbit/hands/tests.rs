//! Who holds what, step by step, and after any sequence of steps.

use std::mem;

use async_trait::async_trait;
use proptest::prelude::*;
use tokio::sync::mpsc;

use super::*;

struct Nobody;

#[async_trait]
impl Settle for Nobody {
    fn ack(&self, _: Tag) {}
    fn give_back(&self, _: Tag) {}
    async fn dead_letter(&self, _: Tag, _: String) -> Result<(), Error> {
        Ok(())
    }
}

fn chunk(parts: usize) -> Chunk {
    Chunk { attempts: 0, at: Timestamp::default(), parts: vec![Bytes::new(); parts] }
}

fn hand_out(hands: &mut Hands, suspects_first: bool) {
    let nobody: Weak<dyn Settle> = Weak::<Nobody>::new();
    hands.hand_out(&nobody, suspects_first);
}

fn hands() -> (Hands, ConsumerId, mpsc::Receiver<Delivery>) {
    let mut hands = Hands::default();
    let (sender, taken) = mpsc::channel(100);
    let id = hands.consumers.join(100, sender);
    (hands, id, taken)
}

fn tag(seq: u64) -> Tag {
    Tag { seq, attempt: 1 }
}

#[test]
fn a_parcel_is_done_when_each_of_its_messages_is() {
    let (mut hands, _, _taken) = hands();
    hands.arrived(1, chunk(2));
    hands.arrived(2, chunk(1));
    hands.arrived(3, chunk(1));
    hand_out(&mut hands, false);
    assert!(hands.ack(tag(2)) && hands.ack(tag(4)));
    assert!(!hands.ack(tag(2)), "once is enough");
    assert_eq!(hands.verdicts(), Verdicts { done: vec![3], ..Verdicts::default() });
    assert!(hands.ack(tag(1)) && hands.ack(tag(3)));
    assert_eq!(hands.verdicts(), Verdicts { up_to: Some(2), ..Verdicts::default() });
    assert_eq!(hands.verdicts(), Verdicts::default());
}

#[test]
fn what_is_given_back_moves_to_the_retry_queue_and_from_there_returns_counted() {
    let (mut hands, id, _taken) = hands();
    hands.arrived(1, chunk(3));
    hand_out(&mut hands, false);
    hands.ack(tag(2));
    hands.give_back_all(id);
    let moves = hands.take_moves();
    assert!(moves.iter().map(|message| message.tag.seq).eq([1, 3]));
    moves.iter().for_each(|message| hands.moved(message));
    assert_eq!(hands.verdicts().up_to, Some(1));

    hands.suspect(2, Chunk { attempts: 1, ..chunk(1) }, 4);
    hands.arrived(3, chunk(1));
    hand_out(&mut hands, true);
    assert_eq!(hands.counts(), (1, 1), "the suspect alone is out");
    assert!(hands.give_back(Tag { seq: 4, attempt: 6 }));
    assert_eq!(hands.verdicts().back, [2]);
}

#[test]
fn suspects_that_cannot_be_moved_are_tried_in_place_one_at_a_time() {
    let (mut hands, _, mut taken) = hands();
    hands.came_back(1, chunk(2), 1);
    for seq in [1, 2] {
        hands.try_in_place();
        hand_out(&mut hands, true);
        hands.try_in_place();
        hand_out(&mut hands, true);
        assert_eq!(taken.try_recv().unwrap().attempt(), 2);
        assert!(taken.try_recv().is_err(), "one at a time");
        assert!(hands.ack(Tag { seq, attempt: 2 }));
    }
    assert_eq!(hands.verdicts().up_to, Some(1));
    hands.came_back(2, chunk(2), 1);
    hands.try_in_place();
    hand_out(&mut hands, true);
    assert!(hands.give_back(Tag { seq: 3, attempt: 2 }));
    assert!(hands.take_moves().iter().map(|message| (message.tag.seq, message.tag.attempt)).eq([(4, 1), (3, 2)]));
}

#[test]
fn what_was_to_be_tried_in_place_waits_for_a_suspect_from_the_retry_queue_and_is_not_forgotten() {
    let (mut hands, _, mut taken) = hands();
    hands.came_back(1, chunk(1), 1);
    hands.try_in_place();
    hands.suspect(2, Chunk { attempts: 1, ..chunk(1) }, 0);
    hand_out(&mut hands, true);
    assert_eq!(taken.try_recv().unwrap().attempt(), 2);
    assert!(hands.ack(Tag { seq: 2, attempt: 2 }));
    assert!(taken.try_recv().is_err(), "one at a time");
    assert_eq!(hands.verdicts().done, [2]);
    assert!(hands.take_moves().iter().map(|message| (message.tag.seq, message.tag.attempt)).eq([(1, 1)]));
}

#[test]
fn a_queue_that_keeps_order_hands_out_what_came_back_by_when_it_was_published() {
    let (mut hands, id, mut taken) = hands();
    hands.in_order = true;
    let of = |at, parts| Chunk { at: Timestamp::from_millis(at), ..chunk(parts) };
    hands.came_back(1, of(30, 1), 1);
    hands.came_back(2, of(10, 2), 2);
    hands.arrived(3, of(40, 1));
    hands.came_back(4, of(20, 1), 1);
    hand_out(&mut hands, false);
    let mut attempts = || std::iter::from_fn(|| taken.try_recv().ok().map(|it| it.attempt())).collect::<Vec<_>>();
    assert_eq!(attempts(), [3, 3, 2, 2, 1]);
    assert!(hands.ack(Tag { seq: 2, attempt: 3 }));
    hands.give_back_all(id);
    assert!(!hands.has_moves());
    hand_out(&mut hands, false);
    assert_eq!(attempts(), [4, 3, 3, 2]);
}

#[test]
fn what_is_said_of_an_earlier_handing_out_counts_for_nothing() {
    let (mut hands, id, _taken) = hands();
    hands.in_order = true;
    hands.arrived(1, chunk(1));
    hand_out(&mut hands, false);
    hands.give_back_all(id);
    hand_out(&mut hands, false);
    assert!(hands.held(tag(1)).is_none());
    assert!(!hands.ack(tag(1)) && !hands.give_back(tag(1)));
    assert_eq!((hands.counts(), hands.verdicts()), ((0, 1), Verdicts::default()), "it is out, for the second time");
    let again = Tag { seq: 1, attempt: 2 };
    assert!(hands.held(again).is_some() && hands.ack(again));
    assert_eq!(hands.verdicts().up_to, Some(1));
}

#[test]
fn the_window_is_wide_only_while_consumers_could_take_more() {
    let (mut hands, _, _taken) = hands();
    (1..=16).for_each(|parcel| hands.arrived(parcel, chunk(1)));
    assert_eq!(hands.window(PARCELS_MIN), PARCELS_MIN, "there is something to take");
    hand_out(&mut hands, false);
    assert_eq!(hands.window(PARCELS_MIN), PARCELS_MAX);
    (17..=25).for_each(|parcel| hands.arrived(parcel, chunk(64)));
    assert_eq!(hands.window(PARCELS_MAX), PARCELS_MIN);
}

#[test]
fn what_was_out_when_the_connection_was_lost_only_counts_for_its_holder() {
    let (mut hands, _, _taken) = hands();
    hands.arrived(1, chunk(2));
    hand_out(&mut hands, false);
    hands.lost();
    assert!(hands.held(tag(1)).is_none());
    assert_eq!(hands.counts(), (0, 2));
    assert!(hands.ack(tag(1)) && hands.give_back(tag(2)));
    assert_eq!((hands.verdicts(), hands.has_moves(), hands.counts()), (Verdicts::default(), false, (0, 0)));
}

/// What may happen to a queue that does not keep order, in any sequence that the pump allows.
#[derive(Clone, Copy, Debug)]
enum Event {
    Arrived(usize),
    CameBack(usize),
    Suspect,
    TriedInPlace,
    HandedOut { suspects_first: bool },
    Acked(usize),
    GivenBack(usize),
    Moving,
    Moved { how_many: usize },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (1..4_usize).prop_map(Event::Arrived),
        (1..4_usize).prop_map(Event::CameBack),
        Just(Event::Suspect),
        Just(Event::TriedInPlace),
        any::<bool>().prop_map(|suspects_first| Event::HandedOut { suspects_first }),
        any::<usize>().prop_map(Event::Acked),
        any::<usize>().prop_map(Event::GivenBack),
        Just(Event::Moving),
        (0..4_usize).prop_map(|how_many| Event::Moved { how_many }),
    ]
}

fn out(hands: &Hands, nth: usize) -> Option<Tag> {
    let held: Vec<_> = hands.out.values().map(|out| out.message.tag).collect();
    held.get(nth.checked_rem(held.len())?).copied()
}

fn happens(hands: &mut Hands, moving: &mut VecDeque<Message>, parcel: u64, event: Event) {
    match event {
        Event::Arrived(parts) => hands.arrived(parcel, chunk(parts)),
        Event::CameBack(parts) => hands.came_back(parcel, chunk(parts), 1),
        // The broker hands out the next when this one is settled.
        Event::Suspect if hands.parcels.values().any(|parcel| parcel.suspect) => {}
        Event::Suspect => hands.suspect(parcel, chunk(1), 0),
        Event::TriedInPlace => hands.try_in_place(),
        Event::HandedOut { suspects_first } => hand_out(hands, suspects_first),
        Event::Acked(nth) => _ = out(hands, nth).map(|tag| hands.ack(tag)),
        Event::GivenBack(nth) => _ = out(hands, nth).map(|tag| hands.give_back(tag)),
        Event::Moving if moving.is_empty() => *moving = hands.take_moves(),
        Event::Moving => {}
        Event::Moved { how_many } => {
            moving.drain(..how_many.min(moving.len())).for_each(|message| hands.moved(&message));
            hands.not_moved(mem::take(moving));
        }
    }
}

proptest! {
    #[test]
    fn every_message_that_is_not_settled_is_in_one_place(events in prop::collection::vec(event(), 1..60)) {
        let (mut hands, _, _taken) = hands();
        let mut moving = VecDeque::new();
        for (parcel, event) in (1..).zip(events) {
            happens(&mut hands, &mut moving, parcel, event);
            let out = hands.out.values().map(|out| &out.message);
            let all = out.chain(&hands.trial).chain(&hands.fresh).chain(&hands.moves).chain(&moving);
            let mut placed: Vec<_> = all.map(|message| message.parcel).collect();
            placed.sort_unstable();
            let parcels = hands.parcels.iter();
            let unsettled: Vec<_> = parcels.flat_map(|(id, parcel)| vec![*id; parcel.unsettled]).collect();
            prop_assert_eq!(placed, unsettled, "after {:?}", event);
        }
    }
}
