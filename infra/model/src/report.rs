//! What devices report about themselves.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    AppId, DeviceId, Ordinal, Sightings, Timestamp,
    record::{Record, Unreadable},
};

/// Longest patch a device may report, in bytes: room for every attribute and tag at its usual length.
pub const PATCH_MAX_BYTES: usize = 64 * 1024;

/// What a device published to `push/{app}/attr`: a change of its profile, on its way to the filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Whose device sent it.
    pub app: AppId,
    /// Which one.
    pub device: DeviceId,
    /// Its number; a device that was removed and came back has another one, and this report is not about that one.
    pub ordinal: Ordinal,
    /// A JSON merge patch (RFC 7396) of its profile, as it came: nobody has looked inside.
    pub patch: Bytes,
    /// When it arrived.
    pub at: Timestamp,
}

impl Record for Report {
    const VERSION: u8 = 1;
}

/// What lies in the queue of reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reported {
    /// By a device, of itself.
    Report(Report),
    /// By an access point, of devices.
    Seen(Sightings),
}

impl Record for Reported {
    const VERSION: u8 = 2;

    /// What devices report is written as ever, for whoever knows only that; the others set sightings aside.
    fn version(&self) -> u8 {
        match self {
            Self::Report(_) => Report::VERSION,
            Self::Seen(_) => Self::VERSION,
        }
    }

    fn decode_version(version: u8, body: &[u8]) -> Result<Self, Unreadable> {
        let malformed = |error: rmp_serde::decode::Error| Unreadable::Malformed(error.to_string());
        match version {
            Report::VERSION => rmp_serde::from_slice(body).map(Self::Report).map_err(malformed),
            _ => rmp_serde::from_slice(body).map(Self::Seen).map_err(malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_written_as_ever_and_sightings_apart_from_them() {
        let (app, device, at) = ("demo".parse::<AppId>().unwrap(), "dev-1".parse().unwrap(), Timestamp::from_millis(7));
        let report = Report { app: app.clone(), device, ordinal: Ordinal(3), patch: "{}".into(), at };
        let reported = Reported::Report(report.clone());
        assert_eq!(reported.encode(), report.encode());
        assert_eq!(Reported::decode(&report.encode()).unwrap(), reported);
        let seen = Reported::Seen(Sightings { app, devices: Vec::new() });
        assert_eq!(Reported::decode(&seen.encode()).unwrap(), seen);
        assert!(matches!(Report::decode(&seen.encode()), Err(Unreadable::Version(2))));
    }
}
