//! Every key in Redis, in one place: what it is called, what lies behind it, and which keys lie together.
//!
//! A key is `<prefix>{<tag>}<kind>[<fields>]`. Only the tag chooses the slot of a cluster, and a script touches keys of
//! one tag only. Names are short because a million devices repeat them; fields are raw big-endian bytes. No two kinds
//! are confused: one that stands alone is one letter, one with fields has other letters.
//!
//! # Tag `*`: what belongs to no app
//! | key | type | holds |
//! |---|---|---|
//! | `apps` | hash | an app's name → its record |
//! | `keys` | hash | an API key's id → its record |
//! | `of:<app>` | set | the ids of an app's API keys |
//! | `seen` | set | apps under whose tag anything may be due |
//! | `canary` | hash | a node's name → how often it wrote here |
//! | `fence` | string | written before `WAIT`, so that there is something to wait for |
//!
//! # Tag `<app>`: one app, so that an append is one step
//! | key | type | holds |
//! |---|---|---|
//! | `C` | string | how many ordinals were given |
//! | `n<block:2>` | hash | device names of this hash → ordinal, of test devices -1 - ordinal |
//! | `d<block:4>` | hash | `<ordinal % 32>` → a device, or the name of a removed one |
//! | `l<env><block:2>` | string | bitmap of 65,536 ordinals: who is registered |
//! | `u<env><user>` | set | ordinals of a user's devices |
//! | `K` | stream | ordinals of devices that changed, in that order |
//! | `G` | sorted set | ids of groups, in their order |
//! | `g<id:16>`, `e<id:16>` | string | a group; its version and members |
//! | `m<id:16>` | string | a message's head (see `messages`) and its entry |
//! | `f<id:16>` | string | why it could not be dispatched |
//! | `b<id:16>` | string | its body, until it expires |
//! | `t<id:16>` | string | its tally, as a log (see `log`) |
//! | `M` | sorted set | ids of messages, in their order, which is that in which they are forgotten |
//! | `o<key>` | string | what an idempotency key was used for |
//! | `i<ordinal:4>` | sorted set | an inbox: seq → id, expiry, collapse key |
//! | `p<block:4>` | hash | `h<ordinal % 32>` → the inbox's head (see `append_inbox`), `c<ordinal % 32>` → the cursor |
//! | `w<ordinal:4>` | string | what a cursor has acked beyond its prefixes |
//! | `T`, `H` | sorted set, string | the timeline: seq → id, expiry, mark, size of the audience; its head |
//! | `S<env>`, `Q<env>` | string, sorted set | the last number of an uplink; uplinks: number → id |
//! | `q<env><type>` | sorted set | the uplinks of one type |
//! | `U<env><id:16>` | string | an uplink |
//! | `k<env><shelf:1><name>` | string | a record of a shelf, or a note, which expires |
//! | `a<env><shelf:1>`, `v<env><shelf:1>` | sorted set, string | names of a shelf's records; its edition |
//! | `W` | string | written before `WAIT` in a cluster, as `fence` is elsewhere |
//! | `X`, `Y`, `Z` | sorted set | what is due and when: messages that expire, idempotency keys, uplinks |
//!
//! # Tag `<app>/<shard>`: routes, in the volatile instance; an app's devices spread over 16 slots
//! | key | type | holds |
//! |---|---|---|
//! | `r<block:4>` | hash | `<ordinal % 64>` → epoch and node |
//! | `E` | string | the last epoch given |
//!
//! # Tag `*` in the volatile instance
//! | key | type | holds |
//! |---|---|---|
//! | `generation` | string | made when there is none: another one means that routes were lost |
//! | `nodes` | hash | a node's name → its boot, when it was seen, its record |
//! | `heard` | string | since when nodes are heard without a pause, and when one last was |
//! | `duties` | hash | a duty → the end of its lease, its holder |

use model::{AppId, DeviceId, Env, GroupId, MessageId, Ordinal, UplinkId, UserId, shelved::Shelf};

/// Devices that share a hash of records or positions: so few that it stays one short list in memory, so many that
/// the key costs next to nothing.
const DEVICES_A_BLOCK: u32 = 32;

/// The same for routes, whose values are shorter.
const ROUTES_A_BLOCK: u32 = 64;

/// Slots over which the routes of an app spread; a power of two. Stays what it is, or routes are looked for elsewhere.
pub(super) const ROUTE_SHARDS: u32 = 16;

/// Ordinals in one bitmap.
pub(super) const ORDINALS_A_BITMAP: u32 = 1 << 16;

/// A key.
pub(super) type Key = Vec<u8>;

fn key(base: &[u8], kind: &str, fields: &[&[u8]]) -> Key {
    let len = base.len() + kind.len() + fields.iter().map(|field| field.len()).sum::<usize>();
    let mut key = Vec::with_capacity(len);
    key.extend_from_slice(base);
    key.extend_from_slice(kind.as_bytes());
    fields.iter().for_each(|field| key.extend_from_slice(field));
    key
}

/// The letter of an environment.
pub(super) const fn letter(env: Env) -> &'static str {
    match env {
        Env::Live => "l",
        Env::Test => "t",
    }
}

/// Keys that belong to no app.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
    base: Key,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident $kind:literal ($($field:ident: $type:ty => $bytes:expr),*);)+) => {
        $($(#[$doc])*
        pub(super) fn $name(&self, $($field: $type),*) -> Key {
            key(&self.base, $kind, &[$($bytes),*])
        })+
    };
}

impl Keys {
    /// The keys of a store whose names begin with `prefix`.
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), base: format!("{prefix}{{*}}").into_bytes() }
    }

    /// The keys of one app.
    pub(super) fn of(&self, app: &AppId) -> AppKeys {
        AppKeys { base: format!("{}{{{app}}}", self.prefix).into_bytes() }
    }

    /// The keys of the routes of an app that lie in the shard of this device.
    pub(super) fn route(&self, app: &AppId, device: Ordinal) -> RouteKeys {
        self.route_shard(app, route_shard(device))
    }

    /// The keys of one shard of the routes of an app.
    pub(super) fn route_shard(&self, app: &AppId, shard: u32) -> RouteKeys {
        RouteKeys { base: format!("{}{{{app}/{shard}}}", self.prefix).into_bytes() }
    }

    kinds! {
        apps "apps" ();
        keys "keys" ();
        keys_of "of:" (app: &AppId => app.as_str().as_bytes());
        seen "seen" ();
        canary "canary" ();
        fence "fence" ();
        generation "generation" ();
        nodes "nodes" ();
        heard "heard" ();
        duties "duties" ();
    }
}

/// Keys of one app.
#[derive(Clone, Debug)]
pub(super) struct AppKeys {
    base: Key,
}

impl AppKeys {
    kinds! {
        count "C" ();
        names "n" (device: &DeviceId => &name_block(device).to_be_bytes());
        devices "d" (device: Ordinal => &block(device));
        live "l" (env: Env => letter(env).as_bytes(), block: u16 => &block.to_be_bytes());
        devices_of "u" (env: Env => letter(env).as_bytes(), user: &UserId => user.as_str().as_bytes());
        changes "K" ();
        groups "G" ();
        group "g" (id: GroupId => &id.to_bytes());
        members "e" (id: GroupId => &id.to_bytes());
        message "m" (id: MessageId => &id.to_bytes());
        failed "f" (id: MessageId => &id.to_bytes());
        body "b" (id: MessageId => &id.to_bytes());
        tally "t" (id: MessageId => &id.to_bytes());
        messages "M" ();
        once "o" (text: &[u8] => text);
        inbox "i" (device: Ordinal => &device.0.to_be_bytes());
        places "p" (device: Ordinal => &block(device));
        beyond "w" (device: Ordinal => &device.0.to_be_bytes());
        timeline "T" ();
        timeline_head "H" ();
        uplink_head "S" (env: Env => letter(env).as_bytes());
        uplinks "Q" (env: Env => letter(env).as_bytes());
        uplinks_of_type "q" (env: Env => letter(env).as_bytes(), kind: &str => kind.as_bytes());
        uplink "U" (env: Env => letter(env).as_bytes(), id: UplinkId => &id.to_bytes());
        record "k" (env: Env => letter(env).as_bytes(), shelf: Shelf => &[shelf as u8], name: &str => name.as_bytes());
        record_names "a" (env: Env => letter(env).as_bytes(), shelf: Shelf => &[shelf as u8]);
        edition "v" (env: Env => letter(env).as_bytes(), shelf: Shelf => &[shelf as u8]);
        due_expiry "X" ();
        due_once "Y" ();
        due_uplink "Z" ();
    }
}

/// Keys of one shard of the routes of an app.
#[derive(Clone, Debug)]
pub(super) struct RouteKeys {
    base: Key,
}

impl RouteKeys {
    kinds! {
        routes "r" (device: Ordinal => &(device.0 / ROUTES_A_BLOCK).to_be_bytes());
        last_epoch "E" ();
    }
}

/// The field of a device in a hash of its block.
pub(super) fn slot(device: Ordinal) -> u32 {
    device.0 % DEVICES_A_BLOCK
}

/// The shard of a device's route.
pub(super) fn route_shard(device: Ordinal) -> u32 {
    device.0 / ROUTES_A_BLOCK % ROUTE_SHARDS
}

/// The field of a route in the hash of its block.
pub(super) fn route_slot(device: Ordinal) -> u32 {
    device.0 % ROUTES_A_BLOCK
}

fn block(device: Ordinal) -> [u8; 4] {
    (device.0 / DEVICES_A_BLOCK).to_be_bytes()
}

/// FNV-1a, folded: it is part of the keys, so it never changes. Up to 30 million devices of an app a hash of names
/// stays one short list.
fn name_block(device: &DeviceId) -> u16 {
    let hash =
        device.as_str().bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash >> 16) as u16 ^ hash as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(key: &[u8]) -> &[u8] {
        let open = key.iter().position(|byte| *byte == b'{').unwrap();
        let close = key.iter().position(|byte| *byte == b'}').unwrap();
        &key[open + 1..close]
    }

    #[test]
    fn keys_of_an_app_lie_in_one_slot_and_routes_spread() {
        let keys = Keys::new("ff");
        let app: AppId = "demo".parse().unwrap();
        let of = keys.of(&app);
        let id = MessageId::from_bytes([b'}'; 16]);
        for key in [of.count(), of.message(id), of.inbox(Ordinal(7)), of.live(Env::Live, 3), of.timeline()] {
            assert_eq!(tag(&key), b"demo", "whatever bytes follow");
        }
        assert_eq!(tag(&keys.apps()), b"*");
        let shards: std::collections::BTreeSet<_> =
            (0..10_000).map(|n| tag(&keys.route(&app, Ordinal(n)).last_epoch()).to_vec()).collect();
        assert_eq!(shards.len(), ROUTE_SHARDS as usize);
    }

    #[test]
    fn names_spread_evenly() {
        let mut blocks = std::collections::HashMap::<_, u32>::new();
        for n in 0..200_000 {
            *blocks.entry(name_block(&format!("device-{n:08}").parse().unwrap())).or_default() += 1;
        }
        assert!(blocks.values().max().unwrap() < &20, "three a block on average");
    }
}
