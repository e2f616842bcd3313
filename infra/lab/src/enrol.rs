//! Registering the devices of a run, minting their tokens and gathering them in groups, as a product's backend would.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use model::{DeviceId, GroupId};
use mqtt::Version;
use tokio::time::sleep;

use crate::{
    Api, Error, History, Kind, Op,
    api::{Profile, Token},
    device::Identity,
};

/// Devices being registered at a time: enough for the store to commit them in groups.
const UNDER_WAY: usize = 64;
/// How long the tokens last, in seconds: longer than any run.
const TOKEN_TTL_S: u64 = 86_400;
/// Tries of each request.
const TRIES: u32 = 5;
/// Pause before the second try; the n-th pause is n times as long.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A device to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its id.
    pub id: DeviceId,
    /// What is registered about it.
    pub profile: Profile,
    /// The version it will speak.
    pub version: Version,
    /// Whether it will state its position when it connects.
    pub states_after: bool,
}

/// Registers the planned devices, in any order, and gives them back ready to connect, in theirs. `history` hears of
/// every registration, `progress` how many are done.
///
/// # Errors
/// The first one that retries did not mend.
pub async fn enrol(
    api: &Api,
    plans: Vec<Plan>,
    history: Option<&History>,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Vec<Identity>, Error> {
    let numbered = (0_u32..).zip(plans);
    let enrolled = stream::iter(numbered).map(|(number, plan)| one(api, number, plan, history));
    let mut done = 0;
    let counted = enrolled.buffered(UNDER_WAY).inspect_ok(|_| {
        done += 1;
        progress(done);
    });
    counted.try_collect().await
}

/// Gives devices that are registered already the tokens to connect with, in their order.
///
/// # Errors
/// The first one that retries did not mend.
pub async fn mint(api: &Api, plans: Vec<Plan>, progress: &(dyn Fn(usize) + Sync)) -> Result<Vec<Identity>, Error> {
    let mut done = 0;
    let minted = stream::iter((0_u32..).zip(plans)).map(|(number, plan)| identify(api, number, plan));
    let counted = minted.buffered(UNDER_WAY).inspect_ok(|_| {
        done += 1;
        progress(done);
    });
    counted.try_collect().await
}

async fn one(api: &Api, number: u32, plan: Plan, history: Option<&History>) -> Result<Identity, Error> {
    let Plan { id, profile, .. } = &plan;
    let note = |kind| {
        if let Some(history) = history {
            let (user, tags) = (profile.user_id.clone(), profile.tags.clone());
            history.record(number, kind, Op::Register { dev: id.clone(), user, tags });
        }
    };
    note(Kind::Invoke);
    retried(|| api.register(id, profile)).await?;
    note(Kind::Ok);
    identify(api, number, plan).await
}

async fn identify(api: &Api, number: u32, plan: Plan) -> Result<Identity, Error> {
    let Plan { id, version, states_after, .. } = plan;
    let Token { token, app } = retried(|| api.token(&id, TOKEN_TTL_S)).await?;
    Ok(Identity { number, id, app, token, version, states_after })
}

/// Makes a static group of these devices, 5,000 at most, and writes down who is in it.
///
/// # Errors
/// The first request that retries did not mend.
pub async fn gather(api: &Api, name: &str, members: &[DeviceId], history: &History) -> Result<GroupId, Error> {
    let group = retried(|| api.create_group(name)).await?;
    let join = || Op::Join { group, devs: members.to_vec() };
    history.record(0, Kind::Invoke, join());
    retried(|| api.join(group, members)).await?;
    history.record(0, Kind::Ok, join());
    Ok(group)
}

/// All of this is safe to repeat: at worst an empty group stays behind.
async fn retried<T, F>(act: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    for n in 1..TRIES {
        match act().await {
            Err(Error::Unavailable(_)) => sleep(RETRY_PAUSE * n).await,
            known => return known,
        }
    }
    act().await
}
