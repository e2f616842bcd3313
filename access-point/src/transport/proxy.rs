//! The PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt): how a proxy in front says who is behind it. Only
//! proxies that the operator names are believed, and they must say it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use serde::Deserialize;
use thiserror::Error;
use tokio::net::TcpStream;

use super::broken;

/// The longest header of version 1.
const V1_MAX_BYTES: usize = 107;

const V1_BEGINS: &[u8] = b"PROXY ";
const V2_BEGINS: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Of version 2, before the addresses.
const V2_FIXED_BYTES: usize = 16;

/// Addresses and what a proxy adds to them (of TLS, mostly): no known one sends as much.
const V2_REST_MAX_BYTES: usize = 2 * 1024;

const V2_LOCAL: u8 = 0x20;
const V2_PROXY: u8 = 0x21;
const V2_TCP4: u8 = 0x11;
const V2_TCP6: u8 = 0x21;

/// Addresses that begin alike, written `10.0.0.0/8`, `fd00::/8` or, for one alone, `10.0.0.7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network {
    /// As IPv6; IPv4 is mapped.
    address: u128,
    bits: u32,
}

/// Why a text is no network.
#[derive(Debug, Error)]
#[error("{0:?} is no network: 10.0.0.0/8 or fd00::/8 is")]
pub struct InvalidNetwork(String);

impl Network {
    /// Whether an address is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        (mapped(address) ^ self.address).checked_shr(128 - self.bits).unwrap_or(0) == 0
    }
}

fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let invalid = || InvalidNetwork(text.to_owned());
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits: u32 = bits.map_or(Ok(most), str::parse).map_err(|_| invalid())?;
        if bits > most {
            return Err(invalid());
        }
        Ok(Self { address: mapped(address), bits: 128 - most + bits })
    }
}

impl TryFrom<String> for Network {
    type Error = InvalidNetwork;

    fn try_from(text: String) -> Result<Self, InvalidNetwork> {
        text.parse()
    }
}

/// A header that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    len: usize,
    /// Who is behind the proxy; `None` when the proxy speaks for itself, to see whether we live.
    source: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a header of the PROXY protocol")]
struct Malformed;

/// Reads the header, and nothing behind it: who is behind the proxy, or `None` when it speaks for itself. It has no
/// deadline of its own.
pub(crate) async fn read(socket: &TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut bytes = vec![0; V2_FIXED_BYTES + V2_REST_MAX_BYTES];
    let mut have = 0;
    loop {
        let peeked = socket.peek(&mut bytes[have..]).await?;
        if peeked == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let header = parse(&bytes[..have + peeked]).map_err(broken)?;
        // What is part of the header is taken: to look at it again would not wait for more.
        let end = header.map_or(have + peeked, |header| header.len);
        while have < end {
            match socket.try_read(&mut bytes[have..end]) {
                Ok(read) => have += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.readable().await?,
                Err(error) => return Err(error),
            }
        }
        if let Some(header) = header {
            return Ok(header.source);
        }
    }
}

/// The header at the beginning; `None` when it is not whole.
fn parse(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(one, other)| one == other);
    match () {
        () if begins(V2_BEGINS) => parse_v2(bytes),
        () if begins(V1_BEGINS) => parse_v1(bytes),
        () => Err(Malformed),
    }
}

fn parse_v1(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let head = &bytes[..bytes.len().min(V1_MAX_BYTES)];
    let Some(end) = head.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < V1_MAX_BYTES { Ok(None) } else { Err(Malformed) };
    };
    let line = std::str::from_utf8(&head[..end]).map_err(|_| Malformed)?;
    let words: Vec<&str> = line.split(' ').collect();
    let source = match words[..] {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", family @ ("TCP4" | "TCP6"), source, _, port, _] => {
            let ip: IpAddr = source.parse().map_err(|_| Malformed)?;
            if ip.is_ipv4() != (family == "TCP4") {
                return Err(Malformed);
            }
            Some(SocketAddr::new(ip, port.parse().map_err(|_| Malformed)?))
        }
        _ => return Err(Malformed),
    };
    Ok(Some(Header { len: end + 2, source }))
}

fn parse_v2(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some((fixed, rest)) = bytes.split_at_checked(V2_FIXED_BYTES) else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if len > V2_REST_MAX_BYTES {
        return Err(Malformed);
    }
    let Some(rest) = rest.get(..len) else { return Ok(None) };
    let source = match (fixed[12], fixed[13]) {
        (V2_LOCAL, _) => None,
        (V2_PROXY, V2_TCP4) => Some(source(rest, |ip: [u8; 4]| Ipv4Addr::from(ip).into())?),
        (V2_PROXY, V2_TCP6) => Some(source(rest, |ip: [u8; 16]| Ipv6Addr::from(ip).into())?),
        (V2_PROXY, _) => None,
        _ => return Err(Malformed),
    };
    Ok(Some(Header { len: V2_FIXED_BYTES + len, source }))
}

/// Two addresses, then two ports: the first of each.
fn source<const N: usize>(rest: &[u8], ip: impl Fn([u8; N]) -> IpAddr) -> Result<SocketAddr, Malformed> {
    let (address, behind) = rest.split_first_chunk::<N>().ok_or(Malformed)?;
    let port = behind.get(N..N + 2).and_then(|port| port.try_into().ok()).ok_or(Malformed)?;
    Ok(SocketAddr::new(ip(*address), u16::from_be_bytes(port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2_BEGINS, &[command, family], &len, rest].concat()
    }

    fn told(bytes: &[u8]) -> Option<String> {
        let header = parse(&[bytes, b"behind"].concat()).unwrap().unwrap();
        assert_eq!(header.len, bytes.len());
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Ok(None), "{end}");
        }
        header.source.map(|source| source.to_string())
    }

    #[test]
    fn both_versions_tell_who_is_behind_the_proxy() {
        assert_eq!(told(b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 1883\r\n").unwrap(), "192.0.2.7:4711");
        assert_eq!(told(b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 1883\r\n").unwrap(), "[2001:db8::7]:4711");
        assert_eq!(told(b"PROXY UNKNOWN\r\n"), None);
        let v4 = [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 7, 91];
        assert_eq!(told(&v2(V2_PROXY, V2_TCP4, &v4)).unwrap(), "192.0.2.7:4711");
        assert_eq!(told(&v2(V2_PROXY, V2_TCP4, &[&v4[..], &[1; 200]].concat())).unwrap(), "192.0.2.7:4711");
        let v6 = [&[0x20, 1, 0xD, 0xB8][..], &[0; 11], &[7], &[0; 16], &[0x12, 0x67, 7, 91]].concat();
        assert_eq!(told(&v2(V2_PROXY, V2_TCP6, &v6)).unwrap(), "[2001:db8::7]:4711");
        assert_eq!(told(&v2(V2_LOCAL, 0, b"")), None);
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let long = [&b"PROXY TCP4 "[..], &[b'1'; 120]].concat();
        for bytes in [
            &b"\x10\x0e\0\x04MQTT"[..],
            b"GET / HTTP/1.1\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n",
            b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 99999 1\r\n",
            b"PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
            &long,
            &v2(0x11, V2_TCP4, &[0; 12]),
            &v2(V2_PROXY, V2_TCP4, &[0; 8]),
            &v2(V2_PROXY, V2_TCP4, &[0; 3000]),
        ] {
            assert_eq!(parse(bytes), Err(Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn networks_hold_their_addresses_and_no_others() {
        let holds =
            |network: &str, address: &str| network.parse::<Network>().unwrap().contains(address.parse().unwrap());
        assert!(holds("10.0.0.0/8", "10.255.1.2") && !holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("10.0.0.0/8", "::ffff:10.1.2.3") && !holds("10.0.0.0/8", "fd00::1"));
        assert!(holds("10.0.0.7", "10.0.0.7") && !holds("10.0.0.7", "10.0.0.6"));
        assert!(holds("fd00::/8", "fdff::1") && holds("::/0", "192.0.2.1") && holds("0.0.0.0/0", "1.2.3.4"));
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "host", "::/129", "10.0.0.0/x"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
