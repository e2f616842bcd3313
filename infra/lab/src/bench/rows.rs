//! The population as rows of a table, for databases that are asked the same.

use std::time::Duration;

use model::Device;

/// Columns of the table of devices, besides the device itself.
pub(super) const COLUMNS: [&str; 19] = [
    "platform TEXT",
    "app_version INTEGER",
    "os_version INTEGER",
    "sdk TEXT",
    "lang TEXT",
    "tz TEXT",
    "country TEXT",
    "first_seen INTEGER",
    "city TEXT",
    "plan TEXT",
    "gender TEXT",
    "channel TEXT",
    "age INTEGER",
    "level INTEGER",
    "score INTEGER",
    "sessions INTEGER",
    "balance REAL",
    "last_order INTEGER",
    "paid INTEGER",
];

/// How long a database took for one question.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// How many satisfy it.
    pub count: u64,
    /// Time to count them.
    pub counting: Duration,
    /// Time to write their numbers to a table.
    pub selecting: Duration,
}

/// A device's values in the order of [`COLUMNS`]; versions as whole numbers of three digits a part.
pub(super) fn row(device: &Device) -> Option<Vec<String>> {
    let version = |text: &String| {
        let parts = text.split('.').map(str::parse).collect::<Result<Vec<u64>, _>>().ok()?;
        Some(parts.iter().fold(0, |key, part| key * 1_000 + part).to_string())
    };
    let of_column = |column: &&str| {
        let name = column.split(' ').next()?;
        let (built_in, attributes) = (&device.profile.built_in, &device.profile.attributes);
        match name {
            "first_seen" => Some(device.first_seen.as_millis().to_string()),
            "app_version" => version(built_in.get(name)?),
            "paid" => Some(u8::from(attributes.get(name)? == "true").to_string()),
            _ => built_in.get(name).or(attributes.get(name)).map(|value| value.trim_matches('"').to_owned()),
        }
    };
    COLUMNS.iter().map(of_column).collect()
}

/// The texts of an attribute that is a list of them.
pub(super) fn listed<'a>(device: &'a Device, attribute: &str) -> impl Iterator<Item = &'a str> {
    let list = device.profile.attributes.get(attribute).map_or("", String::as_str);
    list.split(['[', ',', ']']).filter(|text| !text.is_empty()).map(|text| text.trim_matches('"'))
}
