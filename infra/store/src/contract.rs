//! The promises of the store as a test suite, for whoever implements it.
//!
//! Every function in the modules below is one promise; [`contract_suite!`](crate::contract_suite) makes each a test.
#![expect(clippy::unwrap_used, reason = "a suite of tests")]

pub mod apps;
pub mod changes;
pub mod cursors;
pub mod devices;
pub mod funnel;
pub mod groups;
pub mod inbox;
pub mod messages;
pub mod nodes;
pub mod private;
pub mod receipts;
pub mod retention;
pub mod routes;
pub mod shelves;
pub mod timeline;
pub mod uplinks;

use std::{fmt::Debug, str::FromStr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use model::{
    AppId, Class, Device, Env, Funnel, Lane, Message, MessageId, Ordinal, Ordinals, Priority, Profile, Timestamp,
    TraceParent,
};

use crate::{Entry, InboxAppend, Registration, SharedStore, Store, TimelineAppend};

/// Where a store keeps what it is told: empty when the test begins.
#[async_trait]
pub trait Place: Send {
    /// Opens the store here, with all it was told before. Whoever opens it again has dropped the one before.
    async fn open(&mut self) -> SharedStore;
}

/// Makes every promise a test: takes an expression that gives a fresh [`Place`].
#[macro_export]
macro_rules! contract_suite {
    ($place:expr) => {
        $crate::contract_suite! { @each $place;
            apps: an_app_is_created_once, an_app_is_replaced_where_it_is, a_key_needs_its_app, keys_are_listed_by_app_until_removed,
                apps_and_keys_outlive_a_restart;
            changes: whoever_follows_sees_every_change, what_changes_nothing_is_no_change,
                pages_follow_each_other, an_unknown_change_is_told, changes_outlive_a_restart;
            cursors: a_cursor_starts_at_the_beginning, a_saved_cursor_outlives_a_restart,
                an_older_session_is_refused, a_prefix_never_goes_back, what_is_acked_leaves_the_inbox;
            devices: a_new_device_gets_the_next_ordinal, registering_again_updates_what_is_given,
                a_profile_is_amended_only_as_it_was_read, whoever_amends_at_the_same_time_loses_nothing,
                the_other_environment_is_rejected_and_nothing_is_written, one_name_twice_is_one_device,
                a_removed_device_comes_back_as_a_new_one, a_removed_device_leaves_its_name_only,
                an_ordinal_leads_to_the_device_that_has_it,
                environments_are_kept_apart, pages_of_the_list_follow_each_other, users_have_the_devices_they_own_now,
                revoking_raises_the_generation, a_new_device_starts_at_the_head_of_the_timeline,
                the_registry_outlives_a_restart;
            funnel: it_balances_under_random_interleavings;
            groups: a_group_is_put_and_replaced, groups_come_oldest_first_in_pages, members_change_in_one_step,
                a_removed_group_has_no_members;
            inbox: numbers_grow_by_the_rule, a_number_is_never_given_again, the_same_message_again_changes_nothing,
                an_append_dispatches_the_message, what_is_over_or_called_back_is_not_appended,
                the_oldest_fall_off_and_are_counted, a_newer_message_replaces_those_with_its_collapse_key,
                who_acked_is_not_counted_as_collapsed, pages_follow_each_other, inboxes_are_kept_apart,
                readers_see_concurrent_appends_without_gaps, what_was_appended_outlives_a_restart;
            messages: an_accepted_message_has_an_entry, a_command_is_known_as_one, the_same_key_gives_the_first_answer,
                the_same_key_with_another_meaning_is_refused, a_key_is_forgotten_after_a_day, apps_do_not_share_keys,
                a_used_key_tells_what_it_was_used_for,
                accepting_after_the_append_keeps_what_happened, a_message_for_nobody_stays_dispatched,
                an_entry_tells_until_when_its_message_can_wait,
                entries_come_newest_first_in_pages,
                a_cancel_before_the_append_prevents_it, a_cancel_stops_whoever_was_not_sent_it,
                a_cancel_marks_the_timeline, cancelling_again_changes_nothing, what_is_over_is_not_cancelled,
                a_failure_is_noted_until_the_message_is_dispatched, promises_to_senders_outlive_a_restart;
            nodes: a_node_runs_until_its_lease_ends, the_later_run_of_a_name_counts,
                a_node_that_departs_is_gone_at_once, runs_are_unknown_until_every_node_has_had_time_to_be_heard,
                a_duty_has_one_holder;
            receipts: telling_again_changes_nothing, sets_of_many_access_points_add_up,
                what_is_not_dispatched_has_no_tally, apps_do_not_share_tallies;
            retention: entries_of_streams_go_when_they_expire, a_message_is_kept_for_its_time,
                a_used_key_goes_after_its_time, uplinks_go_after_their_time, nothing_goes_early,
                more_than_a_page_goes_in_several_calls, numbers_go_on_after_everything_expired;
            routes: a_later_session_gets_a_greater_epoch, a_claim_says_who_was_there_before,
                a_release_leaves_a_later_session_alone, unknown_devices_have_no_route, epochs_outgrow_kept_cursors,
                routes_are_told_again;
            shelves: a_record_is_what_was_put_last, records_come_in_the_order_of_their_names,
                a_change_that_came_second_writes_nothing, a_note_is_kept_for_its_time, the_first_note_stays,
                a_name_that_is_too_long_is_rejected;
            timeline: numbers_grow_by_the_rule, the_same_message_again_changes_nothing,
                an_append_dispatches_the_message, what_is_over_or_called_back_is_not_appended,
                the_oldest_fall_off_and_are_counted, pages_follow_each_other, an_audience_never_changes,
                timelines_are_kept_apart, readers_see_concurrent_appends_without_gaps,
                what_was_appended_outlives_a_restart;
            uplinks: an_uplink_is_kept_once, they_come_in_the_order_they_were_kept, one_type_can_be_had_alone,
                environments_do_not_share_uplinks, an_unknown_last_one_means_from_the_oldest, uplinks_outlive_a_restart;
        }
    };
    (@each $place:expr; $($concern:ident: $($promise:ident),+;)+) => {
        $(mod $concern {
            use super::*;

            $(#[tokio::test]
            async fn $promise() {
                $crate::contract::$concern::$promise(&mut $place).await;
            })+
        })+
    };
}

/// When the tests take place.
const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// How long the messages of [`message`] last.
const TTL: Duration = Duration::from_hours(1);

fn name<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn demo() -> AppId {
    name("demo")
}

/// The app whose name the other's begins with.
fn demo_2() -> AppId {
    name("demo-2")
}

fn later(millis: u64) -> Timestamp {
    NOW + Duration::from_millis(millis)
}

fn set(ordinals: impl IntoIterator<Item = u32>) -> Ordinals {
    ordinals.into_iter().map(Ordinal).collect()
}

/// The `n`-th message of the app `demo`.
fn message(n: u32) -> Message {
    Message {
        id: MessageId::new(later(n.into()), n.into()),
        app: demo(),
        env: Env::Live,
        lane: Lane::Multicast,
        kind: "news".into(),
        class: Class::Message,
        payload: Bytes::from(format!("body {n}")),
        content_type: "text/plain".into(),
        created_at: NOW,
        expires_at: NOW + TTL,
        due_at: None,
        priority: Priority::Normal,
        collapse_key: None,
        metadata: [("order".into(), n.to_string())].into(),
        trace: TraceParent::start(u128::from(n) + 1, 1),
    }
}

fn to_inboxes(message: &Message, devices: Ordinals) -> InboxAppend {
    InboxAppend { message: Arc::new(message.clone()), devices }
}

fn to_timeline(message: &Message, audience: Ordinals) -> TimelineAppend {
    TimelineAppend { message: Arc::new(message.clone()), audience }
}

fn registration(id: &str, env: Env, profile: Option<Profile>) -> Registration {
    Registration { id: name(id), env, profile }
}

/// Registers live devices by these names.
async fn register(store: &dyn Store, ids: &[&str]) -> Vec<Device> {
    let devices = ids.iter().map(|id| registration(id, Env::Live, None)).collect();
    store.register(&demo(), devices, NOW).await.unwrap().into_iter().map(|(device, _)| device).collect()
}

async fn funnel(store: &dyn Store, message: &Message, now: Timestamp) -> Funnel {
    let tally = store.tally(&message.app, message.id).await.unwrap().unwrap();
    tally.funnel(message.expires_at, now)
}

async fn accept(store: &dyn Store, message: &Message) {
    store.accept(&message.app, Entry::from(message), None).await.unwrap();
}
