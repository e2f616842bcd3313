//! Asks products for the members of groups that they keep themselves. An answer counts for as long as the group says;
//! without one nothing is sent, for an empty audience would be a wrong answer.

mod address;
mod fetch;

use std::{collections::HashMap, sync::Arc, time::Duration};

use hyper::Uri;
use model::{AppId, DeviceId, Group, GroupId, Ordinals, UserId, group::Source};
use parking_lot::Mutex;
use serde::Deserialize;
use store::{PAGE_MAX, devices::ordinals};
use tokio::{
    sync::{Mutex as Turn, Semaphore},
    time::Instant,
};
use tracing::warn;

use crate::{
    Callbacks,
    api::Api,
    auth::Caller,
    places::Places,
    problem::{Code, Problem},
};
use fetch::{Failed, Fetch};

/// Longest URL, in bytes.
const URL_MAX_BYTES: usize = 2_048;

/// Groups whose answers are remembered; beyond it those that nobody asks about are forgotten.
const REMEMBERED_MAX: usize = 1_000;

/// Of the requests under way one in so many may wait for what products say. So a product that is slow leaves places to
/// other requests, those of its own app among them.
const WAITING_PART: usize = 4;

/// Hosts that are asked at a time, and how often one of them: a slow product holds up its own senders only.
const HOSTS_MAX: usize = 1_000;
const PER_HOST_MAX: usize = 4;

/// Devices or users that one answer may name: as many as fit its bytes.
const IDS_MAX: usize = 250_000;

/// Names in an answer that nobody has and that are repeated to the sender.
const UNKNOWN_MAX: usize = 1_000;

/// A URL that a product may be asked under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    uri: Uri,
    host: String,
    port: u16,
    tls: bool,
}

impl Asked {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read(url: &str) -> Result<Self, String> {
        const RULE: &str = "must be an https URL with a host";
        let uri: Uri = url.parse().map_err(|_| RULE)?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(RULE.into()),
        };
        let authority = uri.authority().ok_or(RULE)?.as_str();
        if url.len() > URL_MAX_BYTES || authority.contains('@') || url.contains(['#', '\\']) {
            return Err(format!("at most {URL_MAX_BYTES} bytes, without a user and without a fragment"));
        }
        let host = address::host(uri.host().ok_or(RULE)?).ok_or("the host must be a name or an address")?;
        let port = if authority.ends_with(':') { return Err(RULE.into()) } else { uri.port_u16() };
        Ok(Self { host, port: port.unwrap_or(if tls { 443 } else { 80 }), tls, uri })
    }

    /// Passes when it may be asked, as far as it says itself where it leads.
    ///
    /// # Errors
    /// Why it may not.
    pub(crate) fn check(&self, policy: &Callbacks) -> Result<(), String> {
        let is_host = |known: &String| match known.strip_prefix('.') {
            Some(parent) => self.host.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.')),
            None => self.host == *known,
        };
        if !policy.hosts.is_empty() && !policy.hosts.iter().any(is_host) {
            return Err(format!("{} is not among the hosts that this installation asks", self.host));
        }
        if policy.allow_private {
            return Ok(());
        }
        match self.host.parse() {
            Ok(address) if address::is_private(address) => Err(format!("{} is not a public address", self.host)),
            _ if !self.tls => Err("must be https".to_owned()),
            _ => Ok(()),
        }
    }
}

/// The members of a group, and names in the answer that nobody has.
type Members = (Ordinals, Vec<String>);

/// What came of asking a product.
struct Outcome {
    asked_at: Instant,
    over_at: Instant,
    said: Result<Members, Problem>,
}

impl Outcome {
    /// Whether it is one for a request that came then: an answer that was asked for since, or counts for so long; or a
    /// failure that the request has waited for, since to ask once more would take as long again.
    fn is_for(&self, came_at: Instant, counts: Duration) -> bool {
        match &self.said {
            Ok(_) => self.asked_at >= came_at || self.asked_at.elapsed() < counts,
            Err(_) => self.over_at >= came_at,
        }
    }
}

type Turns = HashMap<(AppId, GroupId), Arc<Turn<Option<Outcome>>>>;

/// What products said lately.
pub(crate) struct Fetched {
    fetch: Fetch,
    policy: Callbacks,
    /// One asks for a group at a time, and all who wait meanwhile share what comes of it, or of the next time.
    turns: Mutex<Turns>,
    /// Places of those who ask or wait.
    waiting: Places,
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Fetched {
    /// For a node that has so many requests under way.
    pub(crate) fn new(policy: Callbacks, requests_max: usize) -> Self {
        Self {
            fetch: Fetch::new(policy.allow_private),
            policy,
            turns: Mutex::default(),
            waiting: Places::new(requests_max.div_ceil(WAITING_PART)),
            hosts: Mutex::default(),
        }
    }

    fn turn(&self, app: &AppId, group: GroupId) -> Arc<Turn<Option<Outcome>>> {
        let mut turns = self.turns.lock();
        if turns.len() >= REMEMBERED_MAX {
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        turns.entry((app.clone(), group)).or_default().clone()
    }

    fn host(&self, host: &str) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock();
        if hosts.len() >= HOSTS_MAX {
            hosts.retain(|_, places| Arc::strong_count(places) > 1);
        }
        hosts.entry(host.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(PER_HOST_MAX))).clone()
    }
}

/// Whom an answer names, in one field or both. Any other is a mistake: who misspells these would send to nobody.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    device_ids: Option<Vec<String>>,
    user_ids: Option<Vec<String>>,
}

/// The members of a group that its product keeps: devices of the caller's app and environment only; and names that nobody
/// has there.
///
/// # Errors
/// `group_unavailable` while the product does not say, or too many wait for that; `invalid_request` when it must not be
/// asked.
pub(crate) async fn members(api: &Api, caller: &Caller, group: &Group) -> Result<Members, Problem> {
    let Source::Callback { url, cache_s } = &group.source else { return Ok(Default::default()) };
    let came_at = Instant::now();
    let full = || Problem::new(Code::GroupUnavailable, "too many requests wait already for what products say");
    let place = api.fetched.waiting.enter().and_then(|place| place.held_by(caller.app()));
    let _waiting = place.ok_or_else(full)?;
    let turn = api.fetched.turn(caller.app(), group.id);
    let mut last = turn.lock().await;
    if let Some(outcome) = last.as_ref().filter(|last| last.is_for(came_at, Duration::from_secs(*cache_s))) {
        return outcome.said.clone();
    }
    let asked_at = Instant::now();
    let said = told(api, caller, group, url).await;
    *last = Some(Outcome { asked_at, over_at: Instant::now(), said: said.clone() });
    said
}

/// What the product tells now.
async fn told(api: &Api, caller: &Caller, group: &Group, url: &str) -> Result<Members, Problem> {
    let named = ask(api, caller, group, url).await.map_err(|failed| problem(group.id, failed))?;
    known(api, caller, named).await
}

async fn ask(api: &Api, caller: &Caller, group: &Group, url: &str) -> Result<Named, Failed> {
    let asked = Asked::read(url).map_err(Failed::Refused)?;
    asked.check(&api.fetched.policy).map_err(Failed::Refused)?;
    let places = api.fetched.host(&asked.host);
    let _place = places.try_acquire().map_err(|_| Failed::NotNow("it is being asked too often".to_owned()))?;
    let body = api.fetched.fetch.get(&asked, caller.app(), group.id).await?;
    let named: Named =
        serde_json::from_slice(&body).map_err(|error| Failed::NotNow(format!("its answer cannot be read: {error}")))?;
    let lists = [&named.device_ids, &named.user_ids];
    match lists.iter().filter_map(|ids| ids.as_ref()).map(Vec::len).reduce(|one, other| one + other) {
        Some(0..=IDS_MAX) => Ok(named),
        Some(many) => Err(Failed::NotNow(format!("it named {many} devices and users, more than {IDS_MAX}"))),
        None => Err(Failed::NotNow("it has neither device_ids nor user_ids".to_owned())),
    }
}

fn problem(group: GroupId, failed: Failed) -> Problem {
    match failed {
        Failed::Refused(why) => {
            warn!(%group, why, "the members of a group are where nobody may be asked");
            Problem::fault("#", "group_source_refused", format!("the members of {group} cannot be asked for: {why}"))
        }
        Failed::NotNow(why) => {
            warn!(%group, why, "a product does not tell the members of a group");
            Problem::new(Code::GroupUnavailable, format!("asking for the members of {group}: {why}"))
        }
    }
}

/// Those of the caller's devices that are named, and some of the names that nobody has.
async fn known(api: &Api, caller: &Caller, named: Named) -> Result<Members, Problem> {
    let (app, env, store) = (caller.app(), caller.env(), &*api.store);
    let (mut devices, mut users, mut unknown) = (Vec::<DeviceId>::new(), Vec::<UserId>::new(), Vec::new());
    for id in named.device_ids.into_iter().flatten() {
        match id.parse() {
            Ok(device) => devices.push(device),
            Err(_) => unknown.push(id),
        }
    }
    for id in named.user_ids.into_iter().flatten() {
        match id.parse() {
            Ok(user) => users.push(user),
            Err(_) => unknown.push(id),
        }
    }
    let (mut members, missing) = ordinals(store, app, env, &devices).await?;
    unknown.extend(missing.into_iter().map(ToString::to_string));
    for ids in users.chunks(PAGE_MAX) {
        for (id, of_user) in ids.iter().zip(store.devices_of(app, env, ids).await?) {
            unknown.extend(of_user.is_empty().then(|| id.to_string()));
            members |= &of_user;
        }
    }
    unknown.truncate(UNKNOWN_MAX);
    Ok((members, unknown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_form_of_a_url_leads_inside() {
        let policy = Callbacks::default();
        let inside = [
            "https://127.0.0.1/",
            "https://127.1/",
            "https://0177.0.0.1/",
            "https://0x7f.0.0.1/",
            "https://0x7f000001/",
            "https://2130706433/",
            "https://017700000001/",
            "https://127.0.0.1.:443/",
            "https://0.0.0.0/",
            "https://0/",
            "https://10.1.2.3/",
            "https://172.16.0.1/",
            "https://192.168.1.1/",
            "https://100.64.0.1/",
            "https://169.254.169.254/latest/meta-data/",
            "https://224.0.0.1/",
            "https://255.255.255.255/",
            "https://[::1]/",
            "https://[::]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:7f00:1]/",
            "https://[::127.0.0.1]/",
            "https://[2002:7f00:1::]/",
            "https://[64:ff9b::7f00:1]/",
            "https://[2001:0:7f00:1::]/",
            "https://[fe80::1]/",
            "https://[fe80::1%25eth0]/",
            "https://[fc00::1]/",
            "https://[ff02::1]/",
            "https://user@203.0.114.7/",
            "https://example.com@127.0.0.1/",
            "https://127.0.0.1\\@example.com/",
            "https://127%2e0%2e0%2e1/",
            "https://１２７.0.0.1/",
            "http://example.com/",
            "ftp://example.com/",
            "file:///etc/passwd",
            "//example.com/",
            "https:///",
            "https://example.com:/",
            "https://example.com/#members",
        ];
        for url in inside {
            let checked = Asked::read(url).and_then(|asked| asked.check(&policy));
            assert!(checked.is_err(), "{url}");
        }
        for url in ["https://example.com/members?app=a", "https://203.0.114.7:8443/", "https://[2606:4700::1]/"] {
            assert_eq!(Asked::read(url).and_then(|asked| asked.check(&policy)), Ok(()), "{url}");
        }
    }

    #[test]
    fn only_hosts_on_the_list_are_asked_if_there_is_one() {
        let policy = Callbacks {
            hosts: vec!["members.example.com".to_owned(), ".example.org".to_owned()],
            allow_private: false,
        };
        let may = |url: &str| Asked::read(url).unwrap().check(&policy).is_ok();
        assert!(
            may("https://MEMBERS.example.com/") && may("https://a.b.example.org/") && may("https://a.example.org./")
        );
        for url in [
            "https://example.com/",
            "https://example.org/",
            "https://badexample.org/",
            "https://members.example.com.evil.net/",
        ] {
            assert!(!may(url), "{url}");
        }
    }
}
