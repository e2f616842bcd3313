//! Expressions and devices, at random but from few values, so that they often meet.

use std::mem;

use audience::{BuiltIn, Comparison, Expr, Field, Leaf, Literal, Quantity, Saved};
use model::{AudienceId, Device, Env, Epoch, GroupId, Ordinal, Profile, Run, Seen, Timestamp};
use proptest::{collection, prelude::*, sample::select};

/// The moment at which everything is evaluated.
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_795_249_800_123);

const WORDS: [&str; 5] = ["a", "b", "ab", "北京", "quote \" back \\ line \n"];
const VERSIONS: [&str; 4] = ["2.9", "2.10", "2.10.0-rc.1", "not a version"];
/// Moments as attributes have them.
const MOMENTS: [&str; 3] = ["2026-11-20T00:00:00.5Z", "2026-11-20", "2026-11-14T08:30:00+08:00"];
const NUMBERS: [f64; 5] = [-1.5, 0.0, 5.0, 1e-9, 1e300];
/// Names of attributes; each device gives them values of whatever type.
const ATTRIBUTES: [&str; 3] = ["one", "two", "born"];
const TIMES: [&str; 3] = ["-7d", "0s", "\"2026-11-20T00:00:00.5Z\""];

fn words() -> impl Strategy<Value = Vec<String>> {
    collection::vec(select(&WORDS[..]).prop_map(str::to_owned), 1..4)
}

fn attribute() -> impl Strategy<Value = Field> {
    select(&ATTRIBUTES[..]).prop_map(|name| Field::Attribute(name.to_owned()))
}

/// Any but `online`, which has neither order nor lists.
fn field() -> impl Strategy<Value = Field> {
    let built_in: Vec<_> = BuiltIn::ALL.into_iter().filter(|built_in| *built_in != BuiltIn::Online).collect();
    prop_oneof![select(built_in).prop_map(Field::BuiltIn), attribute()]
}

/// A list of literals of one type that `field` takes.
fn literals(field: &Field, count: usize) -> BoxedStrategy<Vec<Literal>> {
    let text = || select(&WORDS[..]).prop_map(|text| Literal::Text(text.to_owned()));
    let number = || select(&NUMBERS[..]).prop_map(Literal::Number);
    match field {
        Field::BuiltIn(BuiltIn::AppVersion | BuiltIn::OsVersion) => {
            collection::vec(select(&VERSIONS[..3]).prop_map(|text| Literal::Version(text.parse().unwrap())), count)
                .boxed()
        }
        Field::BuiltIn(BuiltIn::FirstSeen | BuiltIn::LastSeen) => {
            collection::vec(select(&TIMES[..]).prop_map(time), count).boxed()
        }
        Field::BuiltIn(BuiltIn::Env) => {
            collection::vec(select(&["live", "test", "x"][..]).prop_map(|env| Literal::Text(env.to_owned())), count)
                .boxed()
        }
        Field::BuiltIn(_) => collection::vec(text(), count).boxed(),
        Field::Attribute(_) => {
            // As an expression has them that was checked before and is read again: times and versions are texts.
            let texts = prop_oneof![select(&WORDS[..]), select(&VERSIONS[..]), select(&MOMENTS[..])];
            let texts = texts.prop_map(|text| Literal::Text(text.to_owned()));
            prop_oneof![
                2 => collection::vec(texts, count),
                1 => collection::vec(number(), count),
                1 => collection::vec(select(&TIMES[..2]).prop_map(time), count),
            ]
            .boxed()
        }
    }
}

fn time(text: &str) -> Literal {
    match text.strip_prefix('"') {
        Some(quoted) => Literal::Time(quoted.trim_end_matches('"').parse().unwrap()),
        None => Literal::Relative(text.parse().unwrap()),
    }
}

fn quantity(quantity: Quantity, values: &[String]) -> Quantity {
    if values.len() > 1 { quantity } else { Quantity::Any }
}

/// A field with `count` literals of one type that it takes.
fn field_with(count: usize) -> impl Strategy<Value = (Field, Vec<Literal>)> {
    field().prop_flat_map(move |field| (Just(field.clone()), literals(&field, count)))
}

/// A predicate, the one that is worded as its opposite, and the field that both ask about.
pub(crate) fn opposites() -> impl Strategy<Value = (Field, Leaf, Leaf)> {
    let compared = field_with(1).prop_map(|(field, mut with)| {
        let with = with.remove(0);
        let leaf = |comparison| Leaf::Compare { field: field.clone(), comparison, with: with.clone() };
        (field.clone(), leaf(Comparison::Equal), leaf(Comparison::NotEqual))
    });
    let listed = (1_usize..4).prop_flat_map(field_with).prop_map(|(field, values)| {
        let leaf = |negated| Leaf::In { field: field.clone(), negated, values: values.clone() };
        (field.clone(), leaf(false), leaf(true))
    });
    prop_oneof![compared, listed]
}

/// One predicate of any kind.
pub(crate) fn leaf() -> impl Strategy<Value = Leaf> {
    let any_or_all = || select(&[Quantity::Any, Quantity::All][..]);
    let compare = (field_with(1), select(&Comparison::ALL[..]));
    let within = ((1_usize..4).prop_flat_map(field_with), any::<bool>());
    let ranged = prop_oneof![
        attribute(),
        select(&[BuiltIn::AppVersion, BuiltIn::FirstSeen, BuiltIn::LastSeen][..]).prop_map(Field::BuiltIn)
    ];
    let between = ranged
        .prop_flat_map(|field| (Just(field.clone()), literals(&field, 2)))
        .prop_filter("of one type", |(_, ends)| mem::discriminant(&ends[0]) == mem::discriminant(&ends[1]));
    prop_oneof![
        4 => compare.prop_map(|((field, mut with), comparison)| Leaf::Compare { field, comparison, with: with.remove(0) }),
        2 => within.prop_map(|((field, values), negated)| Leaf::In { field, negated, values }),
        1 => between.prop_map(|(field, mut ends)| Leaf::Between { field, to: ends.remove(1), from: ends.remove(0) }),
        1 => field().prop_map(Leaf::Has),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(equal, online)| Leaf::Compare {
            field: Field::BuiltIn(BuiltIn::Online),
            comparison: if equal { Comparison::Equal } else { Comparison::NotEqual },
            with: Literal::Bool(online),
        }),
        1 => (attribute(), select(&WORDS[..])).prop_map(|(field, prefix)| Leaf::StartsWith { field, prefix: prefix.to_owned() }),
        1 => (attribute(), any_or_all(), words())
            .prop_map(|(field, q, values)| Leaf::Contains { field, quantity: quantity(q, &values), values }),
        2 => (any_or_all(), words()).prop_map(|(q, tags)| Leaf::Tags { quantity: quantity(q, &tags), tags }),
        1 => (1_u16..=10_000, select(&WORDS[..])).prop_map(|(hundredths, salt)| Leaf::Sample { hundredths, salt: salt.to_owned() }),
        1 => (any::<bool>(), any::<u128>()).prop_map(|(group, random)| Leaf::Saved(match group {
            true => Saved::Group(GroupId::new(NOW, random)),
            false => Saved::Audience(AudienceId::new(NOW, random)),
        })),
    ]
}

/// An expression of every kind of predicate, as deep as is read.
pub(crate) fn expr() -> impl Strategy<Value = Expr> {
    leaf().prop_map(Expr::from).prop_recursive(8, 40, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a & b),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a | b),
            inner.prop_map(|a| !a),
        ]
    })
}

fn json() -> impl Strategy<Value = String> {
    prop_oneof![
        select(&WORDS[..]).prop_map(|text| serde_json::json!(text).to_string()),
        select(&NUMBERS[..]).prop_map(|number| serde_json::json!(number).to_string()),
        select(&MOMENTS[..]).prop_map(|text| serde_json::json!({ "time": text }).to_string()),
        select(&VERSIONS[..3]).prop_map(|text| serde_json::json!({ "version": text }).to_string()),
        any::<bool>().prop_map(|bool| bool.to_string()),
        words().prop_map(|list| serde_json::json!(list).to_string()),
    ]
}

/// The run of the only node that runs.
pub(crate) fn run() -> Run {
    Run { node: "ap-1".parse().unwrap(), boot: NOW }
}

/// Whether a device is connected, as it is known.
pub(crate) fn is_online(device: &Device) -> bool {
    device.profile.seen.as_ref().is_some_and(|seen| seen.run == Some(run()))
}

fn seen() -> impl Strategy<Value = Option<Seen>> {
    let ended = Run { boot: Timestamp::from_millis(NOW.as_millis() - 9), ..run() };
    let run = select(vec![None, Some(run()), Some(ended)]);
    let seen = (run, 0_u64..20, select(&WORDS[..]), select(&WORDS[..]));
    proptest::option::of(seen.prop_map(|(run, days, transport, ip_prefix)| Seen {
        epoch: Epoch(days),
        at: Timestamp::from_millis(NOW.as_millis() - days * 86_400_000),
        run,
        transport: transport.to_owned(),
        ip_prefix: ip_prefix.to_owned(),
    }))
}

/// A device of which more or less is known.
pub(crate) fn device() -> impl Strategy<Value = Device> {
    let texts = collection::btree_map(
        select(&BuiltIn::TOLD[..]).prop_map(|name| name.as_str().to_owned()),
        prop_oneof![select(&WORDS[..]), select(&VERSIONS[..])].prop_map(str::to_owned),
        0..6,
    );
    let attributes = collection::btree_map(select(&ATTRIBUTES[..]).prop_map(str::to_owned), json(), 0..4);
    let user = proptest::option::of(select(&["a", "b"][..]).prop_map(|user| user.parse().unwrap()));
    let tags = collection::btree_set(select(&WORDS[..]).prop_map(str::to_owned), 0..4);
    (texts, attributes, user, tags, 0_u32..100, 0_u64..20, seen()).prop_map(
        |(built_in, attributes, user_id, tags, number, days, seen)| Device {
            id: format!("dev-{number}").parse().unwrap(),
            ordinal: Ordinal(number),
            env: Env::Live,
            generation: 0,
            first_seen: Timestamp::from_millis(NOW.as_millis() - days * 86_400_000),
            profile: Profile { user_id, built_in, tags, attributes, seen },
        },
    )
}
