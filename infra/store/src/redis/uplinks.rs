//! What devices sent up, in the order it was kept.

use std::collections::BTreeMap;

use async_trait::async_trait;
use deadpool_redis::redis::{Cmd, Value, cmd};
use model::{AppId, Env, Uplink, UplinkId, record::Record as _};

use super::{
    BELT, Redis,
    key::{AppKeys, letter},
    link::Repeat,
    script::{Call, Step},
    take,
};
use crate::{Error, Uplinks, uplinks::UPLINK_KEPT};

/// Longest type: the same in every store.
const TYPE_MAX_BYTES: usize = 255;

/// Uplinks that one script keeps before others get their turn.
const UPLINKS_A_STEP: usize = 128;

#[async_trait]
impl Uplinks for Redis {
    async fn keep_uplinks(&self, uplinks: Vec<Uplink>) -> Result<(), Error> {
        let mut of_app = BTreeMap::<_, Vec<Uplink>>::new();
        for uplink in uplinks {
            check(&uplink.kind)?;
            of_app.entry((uplink.app.clone(), uplink.env)).or_default().push(uplink);
        }
        let mut steps = Vec::new();
        for ((app, env), uplinks) in of_app {
            self.see(&app).await?;
            steps.extend(uplinks.chunks(UPLINKS_A_STEP).map(|page| keep(&self.of(&app), env, page)));
        }
        self.write(steps, Repeat::Once).await.map(drop)
    }

    async fn uplinks_after(
        &self,
        app: &AppId,
        env: Env,
        kind: Option<&str>,
        after: Option<UplinkId>,
        limit: usize,
    ) -> Result<Vec<Uplink>, Error> {
        kind.map_or(Ok(()), check)?;
        let (of, mut list) = (self.of(app), Call::new(Step::UplinksAfter));
        list.key(of.uplinks(env)).key(kind.map_or_else(|| of.uplinks(env), |kind| of.uplinks_of_type(env, kind)));
        list.arg(after.map_or_else(Vec::new, |id| id.to_bytes().to_vec())).arg(limit);
        // Whoever is shown one goes on after it: it must be there when another server is the primary.
        let Some(ids) = self.find_settled(list.cmd()).await? else { return Ok(Vec::new()) };
        let mut get = cmd("MGET");
        for id in take::value::<Vec<Vec<u8>>>(ids)? {
            get.arg(of.uplink(env, uplink_id(&id)?));
        }
        let found: Vec<Value> = take::value(self.ask_one(get).await?)?;
        found.into_iter().filter_map(|answer| take::maybe(answer, "an uplink").transpose()).collect()
    }
}

fn check(kind: &str) -> Result<(), Error> {
    match kind.len() {
        0..=TYPE_MAX_BYTES => Ok(()),
        _ => Err(Error::Rejected(format!("a type takes at most {TYPE_MAX_BYTES} bytes"))),
    }
}

fn keep(of: &AppKeys, env: Env, uplinks: &[Uplink]) -> Cmd {
    let mut keep = Call::new(Step::KeepUplinks);
    keep.key(of.uplink_head(env)).key(of.uplinks(env)).key(of.due_uplink());
    keep.arg((UPLINK_KEPT + BELT).as_millis().to_string());
    for uplink in uplinks {
        keep.key(of.uplink(env, uplink.id)).key(of.uplinks_of_type(env, &uplink.kind));
        keep.arg(&uplink.id.to_bytes()[..]).arg(uplink.encode());
        keep.arg((uplink.received_at + UPLINK_KEPT).as_millis()).arg(due(uplink));
    }
    keep.cmd()
}

/// What the list of what is due says of an uplink: the letter of its environment, its id, its type.
fn due(uplink: &Uplink) -> Vec<u8> {
    [letter(uplink.env).as_bytes(), &uplink.id.to_bytes(), uplink.kind.as_bytes()].concat()
}

/// The step that forgets what is due.
pub(super) fn forget(of: &AppKeys, due: &[u8]) -> Result<Cmd, Error> {
    let parts = || {
        let (&env, rest) = due.split_first()?;
        let (id, kind) = rest.split_first_chunk::<16>()?;
        let env = if env == b'l' { Env::Live } else { Env::Test };
        Some((env, UplinkId::from_bytes(*id), str::from_utf8(kind).ok()?))
    };
    let (env, id, kind) = parts().ok_or_else(|| take::corrupt("what is due", &"not an uplink"))?;
    let mut forget = Call::new(Step::ForgetUplink);
    forget.key(of.due_uplink()).key(of.uplinks(env)).key(of.uplinks_of_type(env, kind)).key(of.uplink(env, id));
    Ok(forget.arg(due).arg(&id.to_bytes()[..]).cmd())
}

fn uplink_id(bytes: &[u8]) -> Result<UplinkId, Error> {
    bytes.try_into().map(UplinkId::from_bytes).map_err(|_| take::corrupt("the id of an uplink", &"not 16 bytes"))
}
