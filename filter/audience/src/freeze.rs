//! From whom a message could be for to whom it is for: narrowing first, exclusions last.

use model::{AppId, Env, Except, Excluded, Exclusion, Ordinals, Terms, Timestamp};

use crate::{Select, SelectError};

/// An audience that does not change any more.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frozen {
    /// Who gets the message.
    pub targets: Ordinals,
    /// Who does not, and why: each device once, by the first reason that met it.
    pub excluded: Vec<(Exclusion, Ordinals)>,
}

impl Frozen {
    /// Everybody in `audience`.
    pub fn of(audience: Ordinals) -> Self {
        Self { targets: audience, excluded: Vec::new() }
    }

    /// Takes devices out, for this reason.
    pub fn take_out(&mut self, why: Exclusion, who: &Ordinals) {
        let mut met = self.targets.clone();
        met &= who;
        if met.is_empty() {
            return;
        }
        self.targets -= &met;
        match self.excluded.iter_mut().find(|(known, _)| *known == why) {
            Some((_, devices)) => *devices |= &met,
            None => self.excluded.push((why, met.compact())),
        }
    }
}

/// Narrows `audience` by the sender's terms, as of now.
///
/// # Errors
/// Whatever [`Select`] says: nothing was decided.
pub async fn freeze(
    select: &dyn Select,
    (app, env): (&AppId, Env),
    audience: Ordinals,
    terms: &Terms,
    now: Timestamp,
) -> Result<Frozen, SelectError> {
    let mut frozen = Frozen::of(audience);
    if let Some(only) = &terms.only {
        frozen.targets &= &select.select(app, env, only, now).await?;
    }
    for Except { why, who } in &terms.except {
        match who {
            Excluded::Listed(devices) => frozen.take_out(*why, devices),
            Excluded::Filter(expression) => {
                frozen.take_out(*why, &select.select(app, env, expression, now).await?);
            }
        }
    }
    Ok(frozen)
}

#[cfg(test)]
mod tests {
    use model::Ordinal;

    use super::*;

    fn set(ordinals: &[u32]) -> Ordinals {
        ordinals.iter().copied().map(Ordinal).collect()
    }

    #[test]
    fn each_device_is_taken_out_once_by_the_first_reason() {
        let mut frozen = Frozen::of(set(&[1, 2, 3, 4]));
        frozen.take_out(Exclusion::Tags, &set(&[2, 9]));
        frozen.take_out(Exclusion::Suppressions, &set(&[2, 3]));
        frozen.take_out(Exclusion::Tags, &set(&[4]));
        frozen.take_out(Exclusion::OptOuts, &set(&[7]));
        assert_eq!(frozen.targets, set(&[1]));
        assert_eq!(frozen.excluded, [(Exclusion::Tags, set(&[2, 4])), (Exclusion::Suppressions, set(&[3]))]);
    }
}
