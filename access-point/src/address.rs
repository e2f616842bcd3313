//! How many connections each address has here, so that one of them cannot take every place.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroUsize,
    sync::Arc,
};

use parking_lot::Mutex;

/// The part of an IPv6 address that is one customer's: whoever has it chooses the rest.
const PREFIX_V6: u128 = !0 << 64;

/// Open connections by address; no more entries than there are connections.
#[derive(Debug)]
pub(crate) struct Addresses {
    /// Of one address at most; absent: any number.
    most: Option<NonZeroUsize>,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection's place among those of its address; it is given up when this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    addresses: Arc<Addresses>,
    of: IpAddr,
}

impl Addresses {
    pub(crate) fn new(most: Option<NonZeroUsize>) -> Arc<Self> {
        Arc::new(Self { most, open: Mutex::default() })
    }

    /// A place for a connection from this address; `None` when it has as many as it may.
    pub(crate) fn seat(self: &Arc<Self>, address: IpAddr) -> Option<Seat> {
        let of = customer(address);
        let mut open = self.open.lock();
        let count = open.get(&of).copied().unwrap_or(0);
        if self.most.is_some_and(|most| count >= most.get()) {
            return None;
        }
        open.insert(of, count + 1);
        drop(open);
        Some(Seat { addresses: self.clone(), of })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.addresses.open.lock();
        if let Some(count) = open.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.of);
            }
        }
    }
}

fn customer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & PREFIX_V6).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_gets_it_back() {
        let addresses = Addresses::new(NonZeroUsize::new(2));
        let seat = |address: &str| addresses.seat(address.parse().unwrap());
        let (one, _two) = (seat("10.0.0.1").unwrap(), seat("::ffff:10.0.0.1").unwrap());
        assert!(seat("10.0.0.1").is_none());
        assert!(seat("10.0.0.2").is_some());
        drop(one);
        assert!(seat("10.0.0.1").is_some());
        let (_three, _four) = (seat("2001:db8::1").unwrap(), seat("2001:db8::2").unwrap());
        assert!(seat("2001:db8::3").is_none(), "a customer chooses among 2^64 addresses");
        assert!(seat("2001:db8:0:1::1").is_some());
        assert_eq!(addresses.open.lock().len(), 2, "nothing is kept of those who are gone");
    }
}
