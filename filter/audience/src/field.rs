//! What an expression can ask about a device, by name.

use std::fmt;

/// Longest name of an attribute, in bytes.
pub const ATTRIBUTE_NAME_MAX_BYTES: usize = 32;

/// Written before the name of an attribute of the app's own.
pub(crate) const ATTRIBUTE: &str = "attr.";

/// How alike a word and a name must be (1 is equal) for the one to be taken for a slip of the other.
const ALIKE: f64 = 0.75;

/// What every device has a place for, whatever its app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BuiltIn {
    /// `platform`: `android`, `ios`, …
    Platform,
    /// `app_version`.
    AppVersion,
    /// `os_version`.
    OsVersion,
    /// `sdk`: what it connects with.
    Sdk,
    /// `lang`: a language tag.
    Lang,
    /// `tz`: a time zone of the IANA database.
    Tz,
    /// `country`: two letters.
    Country,
    /// `user_id`: whose device it is.
    UserId,
    /// `first_seen`: when it was registered.
    FirstSeen,
    /// `last_seen`: when it was connected last; of who is connected, now.
    LastSeen,
    /// `online`: whether it is connected; never missing.
    Online,
    /// `transport`: what carried its latest session, as in `tcp`.
    Transport,
    /// `ip_prefix`: the network that session came from.
    IpPrefix,
    /// `env`: the environment it is registered in; never missing.
    Env,
}

impl BuiltIn {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Platform,
        Self::AppVersion,
        Self::OsVersion,
        Self::Sdk,
        Self::Lang,
        Self::Tz,
        Self::Country,
        Self::UserId,
        Self::FirstSeen,
        Self::LastSeen,
        Self::Online,
        Self::Transport,
        Self::IpPrefix,
        Self::Env,
    ];

    /// Those that are told about a device, as texts: the keys of [`model::Profile::built_in`].
    pub const TOLD: [Self; 7] =
        [Self::Platform, Self::AppVersion, Self::OsVersion, Self::Sdk, Self::Lang, Self::Tz, Self::Country];

    /// The name in expressions, JSON and profiles.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::AppVersion => "app_version",
            Self::OsVersion => "os_version",
            Self::Sdk => "sdk",
            Self::Lang => "lang",
            Self::Tz => "tz",
            Self::Country => "country",
            Self::UserId => "user_id",
            Self::FirstSeen => "first_seen",
            Self::LastSeen => "last_seen",
            Self::Online => "online",
            Self::Transport => "transport",
            Self::IpPrefix => "ip_prefix",
            Self::Env => "env",
        }
    }
}

/// Something that is known about a device, or missing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// What every app has.
    BuiltIn(BuiltIn),
    /// `attr.…`: an attribute of the app's own, without the prefix.
    Attribute(String),
}

/// What values a field takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text, ordered by its bytes.
    Text,
    /// A [`Version`](crate::Version).
    Version,
    /// A moment.
    Time,
    /// A number.
    Number,
    /// True or false.
    Bool,
    /// Texts.
    List,
    /// Any, each device its own: an attribute about which nothing is settled.
    Undeclared,
}

impl Field {
    /// What values it takes.
    pub fn kind(&self) -> Kind {
        match self {
            Self::BuiltIn(BuiltIn::AppVersion | BuiltIn::OsVersion) => Kind::Version,
            Self::BuiltIn(BuiltIn::FirstSeen | BuiltIn::LastSeen) => Kind::Time,
            Self::BuiltIn(BuiltIn::Online) => Kind::Bool,
            Self::BuiltIn(_) => Kind::Text,
            Self::Attribute(_) => Kind::Undeclared,
        }
    }

    /// The field of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name.strip_prefix(ATTRIBUTE) {
            Some(attribute) => is_attribute_name(attribute).then(|| Self::Attribute(attribute.to_owned())),
            None => BuiltIn::ALL.into_iter().find(|built_in| built_in.as_str() == name).map(Self::BuiltIn),
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn(built_in) => f.write_str(built_in.as_str()),
            Self::Attribute(name) => write!(f, "{ATTRIBUTE}{name}"),
        }
    }
}

/// Whether an attribute may have this name: `[a-z][a-z0-9_]{0,31}`.
pub fn is_attribute_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    name.len() <= ATTRIBUTE_NAME_MAX_BYTES
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(legal)
}

/// The name that `word` was probably meant to be; `None` when none is close.
pub(crate) fn closest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |name: &str| strsim::jaro_winkler(&word.to_ascii_lowercase(), name);
    let alike = names.into_iter().map(|name| (likeness(name), name)).filter(|(likeness, _)| *likeness >= ALIKE);
    alike.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, name)| name)
}

/// The same, as the end of a sentence.
pub(crate) fn did_you_mean<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    closest(word, names).map(|name| format!("; did you mean {name}?"))
}
