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
    /// Of one address at most.
    most: NonZeroUsize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection's place among those of its address; it is given up when this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    addresses: Arc<Addresses>,
    of: IpAddr,
}

impl Addresses {
    pub(crate) fn new(most: NonZeroUsize) -> Arc<Self> {
        Arc::new(Self { most, open: Mutex::default() })
    }

    /// A place for a connection from this address; `None` when it has as many as it may.
    pub(crate) fn share(self: &Arc<Self>, address: IpAddr) -> Option<Share> {
        let of = customer(address);
        let mut open = self.open.lock();
        let count = open.get(&of).copied().unwrap_or(0);
        if count >= self.most.get() {
            return None;
        }
        open.insert(of, count + 1);
        drop(open);
        Some(Share { addresses: self.clone(), of })
    }
}

impl Drop for Share {
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
        let addresses = Addresses::new(NonZeroUsize::new(2).unwrap());
        let share = |address: &str| addresses.share(address.parse().unwrap());
        let (one, _two) = (share("10.0.0.1").unwrap(), share("::ffff:10.0.0.1").unwrap());
        assert!(share("10.0.0.1").is_none());
        assert!(share("10.0.0.2").is_some());
        drop(one);
        assert!(share("10.0.0.1").is_some());
        let (_three, _four) = (share("2001:db8::1").unwrap(), share("2001:db8::2").unwrap());
        assert!(share("2001:db8::3").is_none(), "a customer chooses among 2^64 addresses");
        assert!(share("2001:db8:0:1::1").is_some());
        assert_eq!(addresses.open.lock().len(), 2, "nothing is kept of those who are gone");
    }
}
