//! What [`Groups`](crate::Groups) promises.

use model::{Env, Group, GroupId, group::Source};

use super::{NOW, Place, demo, demo_2, later, set};

fn group(n: u32) -> Group {
    let id = GroupId::new(later(n.into()), n.into());
    Group { id, name: format!("group {n}"), env: Env::Live, created_at: NOW, source: Source::Static }
}

/// Replacing a group leaves its members. Of one that is not there nothing is made, and of two who change what they both
/// have read the second changes nothing.
pub async fn a_group_is_put_and_replaced(place: &mut dyn Place) {
    let store = place.open().await;
    let id = group(1).id;
    let renamed = Group { name: "renamed".into(), ..group(1) };
    assert!(!store.replace_group(&demo(), &group(1), renamed.clone()).await.unwrap());
    assert_eq!(store.group(&demo(), id).await.unwrap(), None);
    store.put_group(&demo(), group(1)).await.unwrap();
    assert_eq!(store.members(&demo(), id).await.unwrap(), Some(set([])));
    store.change_members(&demo(), id, set([1, 2]), set([])).await.unwrap();
    store.put_group(&demo(), group(1)).await.unwrap();
    assert!(store.replace_group(&demo(), &group(1), renamed.clone()).await.unwrap());
    let second = Group { name: "second".into(), ..group(1) };
    assert!(!store.replace_group(&demo(), &group(1), second).await.unwrap());
    assert_eq!(store.group(&demo(), id).await.unwrap(), Some(renamed));
    assert_eq!(store.members(&demo(), id).await.unwrap(), Some(set([1, 2])));
    assert_eq!(store.group(&demo_2(), id).await.unwrap(), None);
}

/// Pages begin with the oldest, and follow the last one seen, also when it is gone.
pub async fn groups_come_oldest_first_in_pages(place: &mut dyn Place) {
    let store = place.open().await;
    for n in [3, 1, 2] {
        store.put_group(&demo(), group(n)).await.unwrap();
    }
    store.put_group(&demo_2(), group(9)).await.unwrap();
    assert_eq!(store.groups(&demo(), None, 2).await.unwrap(), [group(1), group(2)]);
    store.remove_group(&demo(), group(2).id).await.unwrap();
    assert_eq!(store.groups(&demo(), Some(group(2).id), 2).await.unwrap(), [group(3)]);
    assert_eq!(store.groups(&demo(), Some(group(3).id), 2).await.unwrap(), []);
}

/// Adding and removing happen together; the count is what is left; it is durable.
pub async fn members_change_in_one_step(place: &mut dyn Place) {
    let store = place.open().await;
    let id = group(1).id;
    assert_eq!(store.change_members(&demo(), id, set([1]), set([])).await.unwrap(), None);
    assert_eq!(store.members(&demo(), id).await.unwrap(), None, "no group comes into being by its members");
    store.put_group(&demo(), group(1)).await.unwrap();
    assert_eq!(store.change_members(&demo(), id, set([1, 2, 3]), set([])).await.unwrap(), Some(3));
    assert_eq!(store.change_members(&demo(), id, set([3, 4]), set([1, 9])).await.unwrap(), Some(3));
    drop(store);
    let store = place.open().await;
    assert_eq!(store.members(&demo(), id).await.unwrap(), Some(set([2, 3, 4])));
}

/// A removed group is gone with its members, and comes back empty.
pub async fn a_removed_group_has_no_members(place: &mut dyn Place) {
    let store = place.open().await;
    let id = group(1).id;
    store.put_group(&demo(), group(1)).await.unwrap();
    store.change_members(&demo(), id, set([1]), set([])).await.unwrap();
    assert!(store.remove_group(&demo(), id).await.unwrap());
    assert!(!store.remove_group(&demo(), id).await.unwrap());
    assert_eq!(store.members(&demo(), id).await.unwrap(), None);
    store.put_group(&demo(), group(1)).await.unwrap();
    assert_eq!(store.members(&demo(), id).await.unwrap(), Some(set([])));
}
