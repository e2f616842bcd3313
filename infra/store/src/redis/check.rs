//! Whether a server is set up to keep what it is told.

use std::collections::HashMap;

use deadpool_redis::redis::{Cmd, cmd};

use super::{
    link::{Link, Repeat},
    take,
};
use crate::Error;

/// What is weaker than it should be.
///
/// # Errors
/// Rejected when the server keeps no log of writes, or may evict what it was told; unavailable when it does not answer.
pub(super) async fn durability(link: &Link, replicas: u32) -> Result<Vec<String>, Error> {
    let settings = ["appendonly", "appendfsync", "maxmemory-policy", "min-replicas-to-write"];
    let asked = settings.map(|setting| {
        let mut get: Cmd = cmd("CONFIG");
        get.arg("GET").arg(setting);
        get
    });
    let answers = link.ask(asked.into(), Repeat::Once).await;
    let answers = match answers {
        // Hosted servers forbid the question.
        Err(Error::Unavailable(why)) if why.contains("NOPERM") || why.contains("unknown command") => {
            return Ok(vec![format!("the settings of Redis cannot be checked ({why})")]);
        }
        answers => answers?,
    };
    let mut found = HashMap::new();
    for answer in answers {
        found.extend(take::value::<HashMap<String, String>>(answer)?);
    }
    let is = |setting: &str, wanted: &str| found.get(setting).is_none_or(|value| value == wanted);
    if !is("appendonly", "yes") {
        return Err(Error::Rejected("Redis keeps no log of writes: set `appendonly yes`".into()));
    }
    if !is("maxmemory-policy", "noeviction") {
        return Err(Error::Rejected("Redis may evict what it was told: set `maxmemory-policy noeviction`".into()));
    }
    let mut warnings = Vec::new();
    if !is("appendfsync", "always") {
        warnings.push("a power cut loses the last second of Redis: `appendfsync` is not `always`".into());
    }
    if replicas > 0 && is("min-replicas-to-write", "0") {
        warnings.push("a master cut off from its replicas goes on taking writes: `min-replicas-to-write` is 0".into());
    }
    Ok(warnings)
}
