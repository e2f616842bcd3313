//! What [`Devices`](crate::Devices) promises.

use model::{Cursor, Env, Epoch, Ordinal, Position, Profile, Seq};

use super::{NOW, Place, demo, demo_2, later, message, name, register, registration, set, to_inboxes, to_timeline};
use crate::{
    Amendment, CursorWrite, Error,
    devices::{self, Absent},
};

fn owned_by(user: &str) -> Profile {
    Profile { user_id: Some(name(user)), tags: ["vip".into()].into(), ..Profile::default() }
}

/// Ordinals are dense from zero, each app counts its own, and the count is the next one.
pub async fn a_new_device_gets_the_next_ordinal(place: &mut dyn Place) {
    let store = place.open().await;
    assert_eq!(store.count(&demo()).await.unwrap(), 0);
    let registrations = vec![registration("a", Env::Live, Some(owned_by("u"))), registration("b", Env::Test, None)];
    let devices = store.register(&demo(), registrations, NOW).await.unwrap();
    let (a, b) = (&devices[0].0, &devices[1].0);
    assert!(devices.iter().all(|(_, new)| *new));
    assert_eq!((a.ordinal, a.env, &a.profile, a.first_seen), (Ordinal(0), Env::Live, &owned_by("u"), NOW));
    assert_eq!((b.ordinal, b.env, &b.profile), (Ordinal(1), Env::Test, &Profile::default()));
    assert_eq!(store.count(&demo()).await.unwrap(), 2);
    let other = store.register(&demo_2(), vec![registration("a", Env::Live, None)], NOW).await.unwrap();
    assert_eq!(other[0].0.ordinal, Ordinal(0));
    let found = store.devices(&demo(), &[name("b"), name("x"), name("a")]).await.unwrap();
    assert_eq!(found, [Some(b.clone()), None, Some(a.clone())]);
    let names = store.names(&demo(), &[Ordinal(1), Ordinal(2), Ordinal(0)]).await.unwrap();
    assert_eq!(names, [Some(name("b")), None, Some(name("a"))]);
}

/// A profile replaces the one before, none leaves it; everything else stays.
pub async fn registering_again_updates_what_is_given(place: &mut dyn Place) {
    let store = place.open().await;
    let first = store.register(&demo(), vec![registration("a", Env::Live, Some(owned_by("u")))], NOW).await.unwrap();
    let again = store.register(&demo(), vec![registration("a", Env::Live, None)], later(5)).await.unwrap();
    assert_eq!(again, [(first[0].0.clone(), false)]);
    let changed = vec![registration("a", Env::Live, Some(owned_by("v")))];
    let changed = store.register(&demo(), changed, later(9)).await.unwrap();
    let expected = model::Device { profile: owned_by("v"), ..first[0].0.clone() };
    assert_eq!(changed, [(expected.clone(), false)]);
    assert_eq!(store.devices(&demo(), &[name("a")]).await.unwrap(), [Some(expected)]);
    assert_eq!(store.count(&demo()).await.unwrap(), 1);
}

/// One that was changed since it was read, is gone, or came back as another is left as it is; the others are amended.
pub async fn a_profile_is_amended_only_as_it_was_read(place: &mut dyn Place) {
    let store = place.open().await;
    let [a, b, c] = <[_; 3]>::try_from(register(&*store, &["a", "b", "c"]).await).unwrap();
    store.register(&demo(), vec![registration("b", Env::Live, Some(owned_by("u")))], NOW).await.unwrap();
    store.remove(&demo(), &c.id).await.unwrap();
    let head = store.change_head(&demo()).await.unwrap();
    let amend = |device: &model::Device, profile| Amendment { before: device.clone(), profile };
    let amendments = vec![amend(&a, owned_by("v")), amend(&b, owned_by("v")), amend(&c, owned_by("v"))];
    assert_eq!(store.amend(&demo(), amendments.clone(), later(5)).await.unwrap(), [true, false, false]);
    let amended = model::Device { profile: owned_by("v"), ..a.clone() };
    let changed = model::Device { profile: owned_by("u"), ..b };
    let ids = [a.id.clone(), name("b"), c.id.clone()];
    assert_eq!(store.devices(&demo(), &ids).await.unwrap(), [Some(amended.clone()), Some(changed), None]);
    assert_eq!(store.devices_of(&demo(), Env::Live, &[name("v")]).await.unwrap(), [set([a.ordinal.0])]);
    let changes = store.changes_after(&demo(), head, 9).await.unwrap().unwrap();
    assert_eq!(changes.into_iter().map(|(_, device)| device).collect::<Vec<_>>(), [a.ordinal]);
    register(&*store, &["c"]).await;
    assert_eq!(store.amend(&demo(), amendments, later(6)).await.unwrap(), [false, false, false]);
    let head = store.change_head(&demo()).await.unwrap();
    assert_eq!(store.amend(&demo(), vec![amend(&amended, owned_by("v"))], later(7)).await.unwrap(), [true]);
    assert_eq!(store.change_head(&demo()).await.unwrap(), head, "what changes nothing is no change");
}

/// Many who each change what they read, and read again when told to, undo nothing of each other.
pub async fn whoever_amends_at_the_same_time_loses_nothing(place: &mut dyn Place) {
    const WRITERS: usize = 8;
    const EACH: usize = 10;
    let store = place.open().await;
    let device = register(&*store, &["a"]).await.remove(0);
    let write = |writer: usize| {
        let (store, id) = (store.clone(), device.id.clone());
        tokio::spawn(async move {
            for at in 0..EACH {
                loop {
                    let before = store.devices(&demo(), std::slice::from_ref(&id)).await.unwrap().remove(0).unwrap();
                    let mut profile = before.profile.clone();
                    profile.attributes.insert(format!("w{writer}_{at}"), at.to_string());
                    let amended = store.amend(&demo(), vec![Amendment { before, profile }], NOW).await.unwrap();
                    if amended == [true] {
                        break;
                    }
                }
            }
        })
    };
    for writer in (0..WRITERS).map(write).collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let known = store.devices(&demo(), &[device.id]).await.unwrap().remove(0).unwrap();
    assert_eq!(known.profile.attributes.len(), WRITERS * EACH);
}

/// A device of one environment cannot be registered in the other, nor can those beside it in that call.
pub async fn the_other_environment_is_rejected_and_nothing_is_written(place: &mut dyn Place) {
    let store = place.open().await;
    register(&*store, &["a"]).await;
    let mixed = vec![registration("b", Env::Test, Some(owned_by("u"))), registration("a", Env::Test, None)];
    assert!(matches!(store.register(&demo(), mixed, NOW).await, Err(Error::Rejected(_))));
    assert_eq!(store.count(&demo()).await.unwrap(), 1);
    assert_eq!(store.devices(&demo(), &[name("b")]).await.unwrap(), [None]);
    assert!(store.registered(&demo(), Env::Test).await.unwrap().is_empty());
    assert!(store.devices_of(&demo(), Env::Test, &[name("u")]).await.unwrap()[0].is_empty());
}

/// The same name twice in one call is one device, new the first time only.
pub async fn one_name_twice_is_one_device(place: &mut dyn Place) {
    let store = place.open().await;
    let twice = vec![registration("a", Env::Live, None), registration("a", Env::Live, Some(owned_by("u")))];
    let devices = store.register(&demo(), twice, NOW).await.unwrap();
    assert_eq!(
        devices.iter().map(|(device, new)| (device.ordinal.0, *new)).collect::<Vec<_>>(),
        [(0, true), (0, false)]
    );
    assert_eq!(store.registered(&demo(), Env::Live).await.unwrap(), set([0]));
    assert_eq!(store.count(&demo()).await.unwrap(), 1);
}

/// Its ordinal is never given again, also not after a restart.
pub async fn a_removed_device_comes_back_as_a_new_one(place: &mut dyn Place) {
    let mut store = place.open().await;
    for round in 0..3 {
        let devices = register(&*store, &["a"]).await;
        assert_eq!(devices[0].ordinal, Ordinal(round));
        assert_eq!(store.remove(&demo(), &name("a")).await.unwrap(), Some(devices[0].clone()));
        assert_eq!(store.remove(&demo(), &name("a")).await.unwrap(), None);
        drop(store);
        store = place.open().await;
        assert_eq!(store.count(&demo()).await.unwrap(), round + 1);
    }
    let back = store.register(&demo(), vec![registration("a", Env::Test, None)], NOW).await.unwrap();
    assert!(back[0].1, "it is new, so it may come back in the other environment");
}

/// The name behind its ordinal stays; inbox, cursor, and its places in sets go.
pub async fn a_removed_device_leaves_its_name_only(place: &mut dyn Place) {
    let store = place.open().await;
    let mine = vec![registration("a", Env::Live, Some(owned_by("u")))];
    let device = store.register(&demo(), mine, NOW).await.unwrap()[0].0.clone();
    store.append_inbox(vec![to_inboxes(&message(1), set([0]))], NOW).await.unwrap();
    let cursor = Cursor::at(Position { inbox: Seq(3), timeline: Seq(4) });
    let write = CursorWrite { app: demo(), device: device.ordinal, epoch: Epoch(1), cursor };
    store.save_cursors(vec![write]).await.unwrap();
    store.remove(&demo(), &device.id).await.unwrap().unwrap();
    assert_eq!(store.names(&demo(), &[device.ordinal]).await.unwrap(), [Some(device.id.clone())]);
    assert_eq!(store.devices(&demo(), &[device.id]).await.unwrap(), [None]);
    assert_eq!(store.inbox_after(&demo(), device.ordinal, Seq::ZERO, 9).await.unwrap(), []);
    assert_eq!(store.cursor(&demo(), device.ordinal).await.unwrap(), Cursor::default());
    assert!(store.registered(&demo(), Env::Live).await.unwrap().is_empty());
    assert!(store.devices_of(&demo(), Env::Live, &[name("u")]).await.unwrap()[0].is_empty());
    assert_eq!(store.list(&demo(), Env::Live, None, 9).await.unwrap(), []);
}

/// One that came back under another ordinal has left its first one; the store tells who was removed from whom it never had.
pub async fn an_ordinal_leads_to_the_device_that_has_it(place: &mut dyn Place) {
    let store = place.open().await;
    let [a, _, c] = <[_; 3]>::try_from(register(&*store, &["a", "b", "c"]).await).unwrap();
    for gone in ["a", "b"] {
        store.remove(&demo(), &name(gone)).await.unwrap();
    }
    let again = register(&*store, &["a"]).await.remove(0);
    let ordinals = [Ordinal(9), again.ordinal, Ordinal(1), c.ordinal, a.ordinal];
    let behind = devices::behind(&*store, &demo(), &ordinals).await.unwrap();
    let expected = [Err(Absent::Unknown), Ok(again), Err(Absent::Removed), Ok(c), Err(Absent::Removed)];
    assert_eq!(behind, expected);
}

/// Registered devices, lists and users' devices are those of one environment and app.
pub async fn environments_are_kept_apart(place: &mut dyn Place) {
    let store = place.open().await;
    let pick = |n: u32| if n.is_multiple_of(3) { Env::Test } else { Env::Live };
    let all = (0..9).map(|n| registration(&format!("d{n}"), pick(n), Some(owned_by("u")))).collect();
    store.register(&demo(), all, NOW).await.unwrap();
    store.register(&demo_2(), vec![registration("x", Env::Live, Some(owned_by("u")))], NOW).await.unwrap();
    for (env, ordinals) in [(Env::Test, vec![0, 3, 6]), (Env::Live, vec![1, 2, 4, 5, 7, 8])] {
        let expected = set(ordinals);
        assert_eq!(store.registered(&demo(), env).await.unwrap(), expected);
        assert_eq!(store.devices_of(&demo(), env, &[name("u")]).await.unwrap()[0], expected);
        let listed = store.list(&demo(), env, None, 99).await.unwrap();
        assert!(listed.iter().all(|device| device.env == env));
        assert_eq!(listed.into_iter().map(|device| device.ordinal).collect::<model::Ordinals>(), expected);
    }
}

/// Pages are in order of ordinals, never longer than asked, and together they are everything.
pub async fn pages_of_the_list_follow_each_other(place: &mut dyn Place) {
    let store = place.open().await;
    let ids: Vec<_> = (0..7).map(|n| format!("d{n}")).collect();
    register(&*store, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    store.remove(&demo(), &name("d4")).await.unwrap();
    let mut pages = Vec::new();
    let mut after = None;
    loop {
        let page = store.list(&demo(), Env::Live, after, 3).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.ordinal);
        pages.push(page.iter().map(|device| device.ordinal.0).collect::<Vec<_>>());
    }
    assert_eq!(pages, [vec![0, 1, 2], vec![3, 5, 6]]);
}

/// A device moves with its profile from one user to another.
pub async fn users_have_the_devices_they_own_now(place: &mut dyn Place) {
    let store = place.open().await;
    let of = |id, user: Option<&str>| registration(id, Env::Live, user.map(owned_by));
    let register = async |registration| store.register(&demo(), vec![registration], NOW).await;
    let users = [name("u"), name("v"), name("w")];
    for (id, user) in [("a", Some("u")), ("b", Some("u")), ("c", Some("v")), ("a", None), ("b", Some("v"))] {
        register(of(id, user)).await.unwrap();
    }
    let devices = store.devices_of(&demo(), Env::Live, &users).await.unwrap();
    assert_eq!(devices, [set([0]), set([1, 2]), set([])]);
    register(registration("c", Env::Live, Some(Profile::default()))).await.unwrap();
    assert_eq!(store.devices_of(&demo(), Env::Live, &users[1..2]).await.unwrap(), [set([1])]);
}

/// Each revocation gives a generation greater than the one before, and the device has it.
pub async fn revoking_raises_the_generation(place: &mut dyn Place) {
    let store = place.open().await;
    let device = register(&*store, &["a"]).await.remove(0);
    let first = store.revoke(&demo(), &device.id).await.unwrap().unwrap();
    let second = store.revoke(&demo(), &device.id).await.unwrap().unwrap();
    assert!(device.generation < first && first < second);
    let kept = store.devices(&demo(), &[device.id]).await.unwrap().remove(0).unwrap();
    assert_eq!(kept.generation, second);
    assert_eq!(store.revoke(&demo(), &name("nobody")).await.unwrap(), None);
}

/// It begins after what was in the timeline before it came; registering again does not move it.
pub async fn a_new_device_starts_at_the_head_of_the_timeline(place: &mut dyn Place) {
    let store = place.open().await;
    store.append_timeline(vec![to_timeline(&message(1), set([]))], NOW).await.unwrap();
    let head = store.timeline_head(&demo()).await.unwrap();
    let ordinal = register(&*store, &["a"]).await[0].ordinal;
    let start = Cursor::at(Position { inbox: Seq::ZERO, timeline: head });
    assert_eq!(store.cursor(&demo(), ordinal).await.unwrap(), start);
    store.append_timeline(vec![to_timeline(&message(2), set([0]))], NOW).await.unwrap();
    register(&*store, &["a"]).await;
    assert_eq!(store.cursor(&demo(), ordinal).await.unwrap(), start);
}

/// It is durable when the call returns.
pub async fn the_registry_outlives_a_restart(place: &mut dyn Place) {
    let store = place.open().await;
    let devices = register(&*store, &["a", "b", "c"]).await;
    store.remove(&demo(), &name("b")).await.unwrap();
    drop(store);
    let store = place.open().await;
    assert_eq!(store.registered(&demo(), Env::Live).await.unwrap(), set([0, 2]));
    assert_eq!(store.list(&demo(), Env::Live, None, 9).await.unwrap(), [devices[0].clone(), devices[2].clone()]);
    assert_eq!(store.count(&demo()).await.unwrap(), 3);
}
