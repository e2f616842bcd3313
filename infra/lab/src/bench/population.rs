//! Devices as a large app has them, generated: 20 attributes and 5 tags each, the same for the same number at all times.

use std::collections::{BTreeMap, BTreeSet};

use model::{Device, Env, Ordinal, Profile, Timestamp};

/// The moment at which the population is asked about.
pub const NOW: Timestamp = Timestamp::from_millis(1_795_249_800_000);

/// Tags a device has, each from a range of its own.
const TAGS: u64 = 5;
/// Tags in each of these ranges; the first ones are the frequent ones.
const TAGS_EACH: u64 = 200;
/// How long ago the oldest device was registered, in milliseconds: about two years.
const OLDEST_MS: u64 = 1 << 36;

/// What is asked of the population, in every language.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// What kind of question it is.
    pub name: &'static str,
    /// As a filter.
    pub filter: &'static str,
    /// As the condition of a `SELECT` over the tables of [`sqlite`](super::sqlite).
    pub sql: &'static str,
    /// As the condition of a `SELECT` over the table of [`postgres`](super::postgres), whose tags are an array.
    pub postgres: &'static str,
}

/// Three clauses and an exclusion: about a hundredth of all satisfy them.
pub const THREE: Question = Question {
    name: "three clauses, an exclusion",
    filter: r#"platform == "android" && attr.city == "city-3" && app_version >= "2.10" && !tag("tag-210")"#,
    sql: "platform = 'android' AND city = 'city-3' AND app_version >= 2010000 AND NOT EXISTS \
          (SELECT 1 FROM tags WHERE tags.device = devices.device AND tag = 'tag-210')",
    postgres: "platform = 'android' AND city = 'city-3' AND app_version >= 2010000 AND NOT tags @> '{tag-210}'",
};

/// Three clauses that most satisfy, and an exclusion.
pub const WIDE: Question = Question {
    name: "three wide clauses, an exclusion",
    filter: r#"platform == "android" && attr.level >= 10 && app_version >= "2.10" && !tag("tag-200")"#,
    sql: "platform = 'android' AND level >= 10 AND app_version >= 2010000 AND NOT EXISTS \
          (SELECT 1 FROM tags WHERE tags.device = devices.device AND tag = 'tag-200')",
    postgres: "platform = 'android' AND level >= 10 AND app_version >= 2010000 AND NOT tags @> '{tag-200}'",
};

/// Ten clauses, most of them ranges.
pub const TEN: Question = Question {
    name: "ten clauses with ranges",
    filter: r#"platform == "android" && app_version >= "1.5" && os_version < "14" && between(attr.level, 10, 90)
        && between(attr.age, 18, 60) && attr.score > 100000 && attr.sessions < 8000 && attr.balance >= 99.5
        && lang in ["lang-0", "lang-1", "lang-2", "lang-5"] && !tag_any("tag-0", "tag-210")"#,
    sql: "platform = 'android' AND app_version >= 1005000 AND os_version < 14 AND level BETWEEN 10 AND 90 \
          AND age BETWEEN 18 AND 60 AND score > 100000 AND sessions < 8000 AND balance >= 99.5 \
          AND lang IN ('lang-0', 'lang-1', 'lang-2', 'lang-5') AND NOT EXISTS \
          (SELECT 1 FROM tags WHERE tags.device = devices.device AND tag IN ('tag-0', 'tag-210'))",
    postgres: "platform = 'android' AND app_version >= 1005000 AND os_version < 14 AND level BETWEEN 10 AND 90 \
               AND age BETWEEN 18 AND 60 AND score > 100000 AND sessions < 8000 AND balance >= 99.5 \
               AND lang IN ('lang-0', 'lang-1', 'lang-2', 'lang-5') AND NOT tags && '{tag-0,tag-210}'",
};

/// Whoever was registered in the last week.
pub const RECENT: Question = Question {
    name: "registered in the last week",
    filter: "first_seen > -7d",
    sql: "first_seen > 1794645000000",
    postgres: "first_seen > 1794645000000",
};

/// Cities by what they begin with.
pub const PREFIX: Question = Question {
    name: "a prefix, a list",
    filter: r#"starts_with(attr.city, "city-1") && contains_any(attr.interests, "interest-1", "interest-7")"#,
    sql: "city GLOB 'city-1*' AND EXISTS (SELECT 1 FROM interests WHERE interests.device = devices.device \
          AND interest IN ('interest-1', 'interest-7'))",
    postgres: "city LIKE 'city-1%' AND interests && '{interest-1,interest-7}'",
};

/// All of them.
pub const QUESTIONS: [Question; 5] = [THREE, WIDE, TEN, RECENT, PREFIX];

/// Numbers that look like chance, the same for the same device.
struct Dice(u64);

impl Dice {
    /// A number below `sides`.
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(mixed ^ mixed >> 31) * u128::from(sides)) >> u64::BITS) as u64
    }

    /// A number below `sides`, small ones more often: a quarter of all are below a sixteenth.
    fn lean(&mut self, sides: u64) -> u64 {
        let first = self.roll(1 << 20);
        ((u128::from(first * first) * u128::from(sides)) >> 40) as u64
    }
}

/// The device of this ordinal. Another `round` is the same device when it has reported something else since.
pub fn device(ordinal: u32, round: u32) -> Option<Device> {
    let mut dice = Dice(u64::from(ordinal) << 1 ^ 0x5eed);
    let android = dice.roll(10) < 7;
    let built_in = [
        ("platform", if android { "android" } else { "ios" }.to_owned()),
        ("app_version", format!("{}.{}.{}", dice.roll(3) + 1, dice.roll(20), dice.lean(4))),
        ("os_version", (8 + dice.roll(10)).to_string()),
        ("sdk", format!("sdk-{}", dice.lean(5))),
        ("lang", format!("lang-{}", dice.lean(40))),
        ("tz", format!("Zone/{}", dice.lean(60))),
        ("country", format!("c{}", dice.lean(60))),
    ];
    let first_seen = Timestamp::from_millis(NOW.as_millis() - dice.roll(OLDEST_MS));
    let tags: BTreeSet<String> =
        (0..TAGS).map(|range| format!("tag-{}", range * TAGS_EACH + dice.lean(TAGS_EACH))).collect();
    let mut of_round = Dice(u64::from(ordinal) << 32 ^ u64::from(round));
    let interests = [0, 10, 20].map(|from| format!("interest-{}", from + dice.lean(10)));
    let text = |text: String| format!("\"{text}\"");
    let attributes = [
        ("city", text(format!("city-{}", dice.lean(340)))),
        ("plan", text(format!("plan-{}", dice.lean(4)))),
        ("gender", text(["f", "m", "x"][dice.roll(3) as usize].to_owned())),
        ("channel", text(format!("channel-{}", dice.lean(50)))),
        ("age", (14 + dice.roll(70)).to_string()),
        ("level", of_round.roll(100).to_string()),
        ("score", of_round.roll(1_000_000).to_string()),
        ("sessions", of_round.lean(10_000).to_string()),
        ("balance", format!("{}.{:02}", dice.lean(5_000), dice.roll(100))),
        ("last_order", (1_795_000_000 - dice.lean(60_000_000)).to_string()),
        ("paid", (dice.roll(10) == 0).to_string()),
        ("interests", format!("[{}]", interests.map(text).join(","))),
    ];
    let owned = |pairs: &[(&str, String)]| {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect::<BTreeMap<_, _>>()
    };
    Some(Device {
        id: format!("device-{ordinal:08x}").parse().ok()?,
        ordinal: Ordinal(ordinal),
        env: Env::Live,
        generation: 0,
        first_seen,
        profile: Profile { built_in: owned(&built_in), tags, attributes: owned(&attributes), ..Profile::default() },
    })
}
