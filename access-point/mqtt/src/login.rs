//! Who a device says it is, and the options it opens its session with: `{app}?after=i1.t2&fmt=raw` in the username
//! (the only place that 3.1.1 has for them), or user properties of the same names. It proves nothing: the token does.

use std::str::FromStr;

use model::{AppId, DeviceId, Position};
use thiserror::Error;

use crate::{coding::Coding, packet::Connect, publish::Format, wire::Version};

/// The kind of network that a device is connected over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// A local network.
    Wifi,
    /// A mobile one of the fourth generation, or older.
    FourG,
    /// One of the fifth.
    FiveG,
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "wifi" => Ok(Self::Wifi),
            "4g" => Ok(Self::FourG),
            "5g" => Ok(Self::FiveG),
            _ => Err(()),
        }
    }
}

/// How a device comes to its messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// They are sent as they come.
    #[default]
    Push,
    /// It is told that there are some, and fetches them when it likes.
    Notify,
}

impl FromStr for Mode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "push" => Ok(Self::Push),
            "notify" => Ok(Self::Notify),
            _ => Err(()),
        }
    }
}

/// What a device says about itself in CONNECT.
#[derive(Clone, Debug, PartialEq)]
pub struct Login {
    /// The device: the client id.
    pub device: DeviceId,
    /// Its app.
    pub app: AppId,
    /// The token; empty when there is none.
    pub token: String,
    /// The last it received of each stream.
    pub after: Position,
    /// How it wants messages written.
    pub format: Format,
    /// How bodies may be packed for it: the best of what it offers.
    pub coding: Option<Coding>,
    /// What it is connected over; whoever says so leaves it to the server how often it must be heard.
    pub network: Option<Network>,
    /// How it comes to its messages.
    pub mode: Mode,
}

/// Why CONNECT does not say who the device is.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum InvalidLogin {
    /// The client id is not a device id.
    #[error("the client id must be a device id")]
    Device,
    /// The username is not `{app}` or `{app}?name=value&…`, or the password is not text.
    #[error("the username must be an app id, with options behind a question mark; the password a device token")]
    Credentials,
    /// An option that Fanfare knows has a value that it does not.
    #[error("option {0} has an unknown value")]
    Option(&'static str),
}

impl Login {
    /// Reads it out of CONNECT. Unknown options are left alone: they may be known to a newer server.
    ///
    /// # Errors
    /// Which part is wrong.
    pub fn of(connect: &Connect) -> Result<Self, InvalidLogin> {
        let device = connect.client_id.parse().map_err(|_| InvalidLogin::Device)?;
        let username = connect.username.as_deref().unwrap_or_default();
        let (app, options) = username.split_once('?').unwrap_or((username, ""));
        let app = app.parse().map_err(|_| InvalidLogin::Credentials)?;
        let token = String::from_utf8(connect.password.clone().unwrap_or_default());
        let token = token.map_err(|_| InvalidLogin::Credentials)?;
        let format = match connect.version {
            Version::V311 => Format::Envelope,
            Version::V5 => Format::Raw,
        };
        let (after, mode) = Default::default();
        let mut login = Self { device, app, token, after, format, coding: None, network: None, mode };
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            login.set(name, value)?;
        }
        for (name, value) in &connect.user_properties {
            login.set(name, value)?;
        }
        Ok(login)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), InvalidLogin> {
        match name {
            "after" => self.after = value.parse().map_err(|_| InvalidLogin::Option("after"))?,
            "fmt" => self.format = value.parse().map_err(|()| InvalidLogin::Option("fmt"))?,
            "enc" => self.coding = Coding::best_of(value),
            "mode" => self.mode = value.parse().map_err(|()| InvalidLogin::Option("mode"))?,
            "net" => self.network = Some(value.parse().map_err(|()| InvalidLogin::Option("net"))?),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use model::Seq;

    use super::*;

    fn connect(version: Version, username: &str) -> Connect {
        Connect { username: Some(username.into()), ..Connect::new(version, "dev-1") }
    }

    #[test]
    fn options_come_from_the_username_and_from_user_properties() {
        let plain = Login::of(&connect(Version::V311, "demo")).unwrap();
        assert_eq!((plain.app.as_str(), plain.format), ("demo", Format::Envelope));
        assert_eq!(plain.mode, Mode::Push);
        let mut full = connect(Version::V5, "demo?after=i1.t2&fmt=envelope&net=wifi&mode=notify&enc=br,gzip");
        let login = Login::of(&full).unwrap();
        assert_eq!(login.after, Position { inbox: Seq(1), timeline: Seq(2) });
        assert_eq!((login.format, login.network), (Format::Envelope, Some(Network::Wifi)));
        assert_eq!((login.mode, login.coding), (Mode::Notify, Some(Coding::Gzip)));
        full.user_properties = vec![("fmt".into(), "raw".into()), ("v".into(), "1.2".into())];
        assert_eq!(Login::of(&full).unwrap().format, Format::Raw);
    }

    #[test]
    fn what_is_not_a_login_is_named() {
        let of = |username: &str| Login::of(&connect(Version::V5, username));
        assert_eq!(of(""), Err(InvalidLogin::Credentials));
        assert_eq!(of("a b"), Err(InvalidLogin::Credentials));
        assert_eq!(of("demo?after=7"), Err(InvalidLogin::Option("after")));
        assert_eq!(of("demo?fmt=xml"), Err(InvalidLogin::Option("fmt")));
        assert_eq!(of("demo?net=sms"), Err(InvalidLogin::Option("net")));
        assert_eq!(of("demo?mode=pull"), Err(InvalidLogin::Option("mode")));
        assert_eq!(Login::of(&Connect::new(Version::V5, "a/b")), Err(InvalidLogin::Device));
    }
}
