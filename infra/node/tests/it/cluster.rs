//! G1, G2, G3, G5 and G7 in a whole cluster of processes, whatever of it dies, freezes or refuses.

mod bed;

use std::time::Duration;

use bed::{can_cut, nothing_is_lost_after, nothing_is_lost_with, step};
use lab::fault::Habit;

/// Answers come within a second whatever is away; the rest is what a machine adds that is busy with all of this.
const SOON: Duration = Duration::from_millis(1_500);

/// Every process of a tier; two of the same kind are not neighbours.
const TIERS: [&str; 10] = [
    "ingest1",
    "dispatcher1",
    "access-point1",
    "filter1",
    "ingest2",
    "dispatcher2",
    "access-point2",
    "stats1",
    "filter2",
    "access-point3",
];

/// Every server that they need.
const SERVERS: [&str; 7] = ["rabbitmq1", "redis1", "rabbitmq2", "sentinel1", "rabbitmq3", "redis2", "routes"];

/// Writes into the file `leader` which node leads the first queue of unicasts.
const FIND_LEADER: &str = r"cluster ctl rabbitmq1 -q list_queues name leader >queues
    sed -n 's/^push\.unicast\.0\t\(.*\)@.*/\1/p' queues >leader; test -s leader";

/// How many messages are in queues or under way to a dispatcher.
const WAITING: &str = r"cluster ctl rabbitmq1 -q list_queues name messages >queues
    waiting=$(( $(sed -n 's/^push\..*\t//p' queues | paste -sd +) ))";

/// Notes how many tasks each process has, or sees that they are not many more by now.
const COUNT_TASKS: &str = "for n in ingest1 ingest2 dispatcher1 dispatcher2 access-point1 access-point2 access-point3;
    do echo $n $(cluster metric $n fanfare_tasks); done >tasks; cat tasks >&2";
const NO_PILE_UP: &str = "while read -r n before; do now=$(cluster metric $n fanfare_tasks);
    echo $n $before $now; test $now -le $((2 * before + 50)); done <tasks >&2";

/// Sees that devices have been let in that have no session yet.
const SOME_WAIT: &str = "for n in 1 2 3; do test $(cluster metric access-point$n fanfare_waiting) -gt 0; done";

fn to_dispatchers(signal: &str) -> String {
    format!("for n in 1 2; do cluster kill dispatcher$n {signal}; done")
}

/// Sets the share of memory from which on RabbitMQ blocks. Of one node: an alarm is one of the whole cluster.
fn memory_limit(share: &str) -> String {
    format!("cluster ctl rabbitmq1 -q set_vm_memory_high_watermark {share}")
}

/// Waits until nothing waits, as often as it takes a slow machine: what counts is that they drain while publishers are
/// blocked.
fn drained() -> String {
    format!("for try in $(seq 40); do {WAITING}; test $waiting -gt 0 || break; done; test $waiting = 0")
}

/// Ends the alarm, of which ingest knows until then.
fn alarm_is_over() -> String {
    let ready = |code| format!("for n in 1 2; do cluster ready ingest$n {code}; done");
    format!("{}; {}; {}", ready(503), memory_limit("0.6"), ready(200))
}

/// Half a minute, from its kind and not from clients.
async fn nothing_is_lost_while_cut_off(cut: &str) {
    if can_cut() {
        nothing_is_lost_after([step(cut, 30), step("cluster heal", 20)]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_process_dies_in_turn_and_nothing_is_lost() {
    let die = |name| [step(format!("cluster kill {name}"), 1), step(format!("cluster start {name}"), 1)];
    nothing_is_lost_after(TIERS.into_iter().flat_map(die)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; infra/test -p node cluster -- --ignored"]
async fn every_server_dies_in_turn_and_nothing_is_lost() {
    let die = |name| [step(format!("cluster kill {name}"), 8), step(format!("cluster start {name}"), 4)];
    nothing_is_lost_after(SERVERS.into_iter().flat_map(die)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; infra/test -p node cluster -- --ignored"]
async fn the_leader_of_a_queue_dies_and_nothing_is_lost() {
    nothing_is_lost_after([
        step(FIND_LEADER, 0),
        step("cluster kill $(cat leader)", 15),
        step("cluster start $(cat leader)", 10),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; infra/test -p node cluster -- --ignored"]
async fn the_leader_of_a_queue_freezes_for_a_while_and_nothing_is_lost() {
    nothing_is_lost_after([
        step(FIND_LEADER, 0),
        step("cluster kill $(cat leader) STOP", 15),
        step("cluster kill $(cat leader) CONT", 10),
    ])
    .await;
}

/// It runs and serves clients, and the others do not hear it: the side without a majority must not confirm anything.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; infra/test -p node cluster -- --ignored"]
async fn the_leader_of_a_queue_is_cut_off_for_a_while_and_nothing_is_lost() {
    nothing_is_lost_while_cut_off(&format!("{FIND_LEADER}; cluster cut $(cat leader)")).await;
}

/// It goes on as a leader and does not hear who follows: what it does not know to be kept it must not confirm.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; infra/test -p node cluster -- --ignored"]
async fn the_leader_of_a_queue_hears_nothing_for_a_while_and_nothing_is_lost() {
    nothing_is_lost_while_cut_off(&format!("{FIND_LEADER}; cluster cut $(cat leader) in")).await;
}

/// The others choose another leader, and it hears that.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; infra/test -p node cluster -- --ignored"]
async fn the_leader_of_a_queue_is_not_heard_for_a_while_and_nothing_is_lost() {
    nothing_is_lost_while_cut_off(&format!("{FIND_LEADER}; cluster cut $(cat leader) out")).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; infra/test -p node cluster -- --ignored"]
async fn all_of_rabbitmq_dies_for_a_while_and_nothing_is_lost() {
    nothing_is_lost_after([
        step("for n in 1 2 3; do cluster kill rabbitmq$n; done", 20),
        step("cluster start rabbitmq1 rabbitmq2 rabbitmq3", 10),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; infra/test -p node cluster -- --ignored"]
async fn rabbitmq_runs_out_of_memory_for_a_while_and_nothing_is_lost() {
    // Not for so long that RabbitMQ misses their heartbeats.
    nothing_is_lost_after([
        step(to_dispatchers("STOP"), 2),
        step(memory_limit("0.00001"), 3).answered_within(SOON),
        step(format!("{WAITING}; test $waiting -gt 0"), 0).named("something waits"),
        step(format!("{}; {}", to_dispatchers("CONT"), drained()), 15)
            .named("the queues are empty")
            .answered_within(SOON),
        step(alarm_is_over(), 10).named("the alarm is over"),
    ])
    .await;
}

/// What it held goes to the other, which can set nothing aside for later.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; infra/test -p node cluster -- --ignored"]
async fn a_dispatcher_dies_while_rabbitmq_is_out_of_memory_and_nothing_is_lost() {
    nothing_is_lost_after([
        step(to_dispatchers("STOP"), 2),
        step(memory_limit("0.00001"), 2),
        step(format!("{WAITING}; test $waiting -gt 0"), 0).named("something waits"),
        step(format!("cluster kill dispatcher1; cluster kill dispatcher2 CONT; {}", drained()), 5)
            .named("the queues are empty"),
        step(alarm_is_over(), 2).named("the alarm is over"),
        step("cluster start dispatcher1; cluster kill dispatcher2", 2),
        step("cluster start dispatcher2", 5),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; infra/test -p node cluster -- --ignored"]
async fn routes_are_flushed_and_their_redis_dies_and_nothing_is_lost() {
    nothing_is_lost_after([
        step("cluster ctl routes flushall", 10),
        step("cluster kill routes", 15),
        step("cluster start routes", 10),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; infra/test -p node cluster -- --ignored"]
async fn the_durable_redis_fails_over_and_nothing_is_lost() {
    nothing_is_lost_after([step("cluster kill redis1", 20), step("cluster start redis1", 10)]).await;
}

/// It runs and serves clients, and neither its replicas nor Sentinel hear it: another is the primary meanwhile.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; infra/test -p node cluster -- --ignored"]
async fn the_durable_redis_is_cut_off_for_a_while_and_nothing_is_lost() {
    nothing_is_lost_while_cut_off("cluster cut redis1").await;
}

/// What it writes goes to its replicas, and it does not hear that they have it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; infra/test -p node cluster -- --ignored"]
async fn the_durable_redis_hears_nothing_for_a_while_and_nothing_is_lost() {
    nothing_is_lost_while_cut_off("cluster cut redis1 in").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; infra/test -p node cluster -- --ignored"]
async fn the_durable_redis_is_not_heard_for_a_while_and_nothing_is_lost() {
    nothing_is_lost_while_cut_off("cluster cut redis1 out").await;
}

/// Sentinels are told to be patient: else a replica would take over, which is another test.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; infra/test -p node cluster -- --ignored"]
async fn the_durable_redis_freezes_for_a_while_and_nothing_is_lost() {
    let patient = "sentinel set fanfare down-after-milliseconds 60000";
    nothing_is_lost_after([
        step(format!("for n in 1 2 3; do cluster ctl sentinel$n {patient}; done"), 0),
        step(COUNT_TASKS, 0),
        step("cluster kill redis1 STOP", 30).answered_within(SOON),
        step(NO_PILE_UP, 0).named("nothing piles up"),
        step(SOME_WAIT, 0).named("devices were let in, and wait"),
        step("cluster kill redis1 CONT", 10),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; infra/test -p node cluster -- --ignored"]
async fn an_access_point_freezes_and_wakes_up_and_nothing_is_lost() {
    nothing_is_lost_after([step("cluster kill access-point1 STOP", 10), step("cluster kill access-point1 CONT", 10)])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; infra/test -p node cluster -- --ignored"]
async fn every_process_is_replaced_in_turn_and_nothing_is_lost() {
    let replace = |name| [step(format!("cluster stop {name}"), 0), step(format!("cluster start {name}"), 1)];
    nothing_is_lost_after(TIERS.into_iter().flat_map(replace)).await;
}

/// The same device comes to one access point after the other, and each of them believes that it is there.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; infra/test -p node cluster -- --ignored"]
async fn devices_are_connected_at_two_access_points_in_turn_and_nothing_is_lost() {
    nothing_is_lost_with(Habit::Moving(Duration::from_millis(500)), [step("true", 20)]).await;
}

/// Nor when nobody can say which of the two is the later: routes are gone as well.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; infra/test -p node cluster -- --ignored"]
async fn devices_move_while_routes_are_gone_and_nothing_is_lost() {
    let steps = [step("cluster kill routes", 15), step("cluster start routes", 10)];
    nothing_is_lost_with(Habit::Moving(Duration::from_millis(500)), steps).await;
}

/// Devices that come meanwhile are let in, and the later connection of each is the one that counts.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; infra/test -p node cluster -- --ignored"]
async fn devices_move_while_the_durable_redis_fails_over_and_nothing_is_lost() {
    let steps = [step("cluster kill redis1", 20), step("cluster start redis1", 10)];
    nothing_is_lost_with(Habit::Moving(Duration::from_millis(500)), steps).await;
}

/// Filtered messages wait meanwhile, with what is behind them in their lane; they are accepted all the same.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; infra/test -p node cluster -- --ignored"]
async fn every_filter_node_dies_for_a_while_and_nothing_is_lost() {
    nothing_is_lost_after([
        step("cluster kill filter1; cluster kill filter2", 15).answered_within(SOON),
        step("cluster start filter2", 10),
        step("cluster start filter1; cluster kill filter2", 10),
        step("cluster start filter2", 0),
    ])
    .await;
}

/// Whoever asks it takes it for dead after a while, and asks the other.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes; infra/test -p node cluster -- --ignored"]
async fn a_filter_node_freezes_for_a_while_and_nothing_is_lost() {
    nothing_is_lost_after([
        step("cluster kill filter1 STOP", 15),
        step("cluster kill filter1 CONT; cluster kill filter2 STOP", 15),
        step("cluster kill filter2 CONT", 5),
    ])
    .await;
}
