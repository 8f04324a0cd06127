//! Counts connections: in total and per client address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// The connections that are open on all listeners. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Connections(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// A counted connection; leaves the count when it is dropped.
#[derive(Debug)]
pub struct Counted {
    connections: Connections,
    client: Option<IpAddr>,
}

/// Why a connection is one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMany {
    /// In all.
    Total,
    /// From this client.
    FromClient,
}

impl Connections {
    /// None is open.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.0.lock().total
    }

    /// Counts one more, not yet of any client.
    ///
    /// # Errors
    /// [`TooMany::Total`] when there are `max` already.
    pub fn enter(&self, max: usize) -> Result<Counted, TooMany> {
        let mut counts = self.0.lock();
        if counts.total >= max {
            return Err(TooMany::Total);
        }
        counts.total += 1;
        Ok(Counted { connections: self.clone(), client: None })
    }
}

impl Counted {
    /// Counts it for its client, once its address is known.
    ///
    /// # Errors
    /// [`TooMany::FromClient`] when `max` are open from there already.
    pub fn of_client(&mut self, address: IpAddr, max: usize) -> Result<(), TooMany> {
        let client = client_of(address);
        let mut counts = self.connections.0.lock();
        if let Some(before) = self.client.take() {
            counts.leave(before);
        }
        let open = counts.by_client.entry(client).or_insert(0);
        if *open >= max {
            if *open == 0 {
                counts.by_client.remove(&client);
            }
            return Err(TooMany::FromClient);
        }
        *open += 1;
        self.client = Some(client);
        Ok(())
    }
}

impl Counts {
    fn leave(&mut self, client: IpAddr) {
        if let Some(open) = self.by_client.get_mut(&client) {
            *open -= 1;
            if *open == 0 {
                self.by_client.remove(&client);
            }
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.connections.0.lock();
        counts.total -= 1;
        if let Some(client) = self.client {
            counts.leave(client);
        }
    }
}

/// Whom an address is counted for: one IPv6 client has at least a /64.
fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_forgets() {
        let connections = Connections::new();
        let mut a = connections.enter(2).unwrap();
        let mut b = connections.enter(2).unwrap();
        assert_eq!(connections.enter(2).unwrap_err(), TooMany::Total);
        a.of_client("2001:db8::1".parse().unwrap(), 1).unwrap();
        assert_eq!(b.of_client("2001:db8::2".parse().unwrap(), 1), Err(TooMany::FromClient));
        b.of_client("2001:db8:0:1::2".parse().unwrap(), 1).unwrap();
        a.of_client("::ffff:192.0.2.1".parse().unwrap(), 1).unwrap();
        assert_eq!(b.of_client("192.0.2.1".parse().unwrap(), 1), Err(TooMany::FromClient));
        drop(a);
        b.of_client("192.0.2.1".parse().unwrap(), 1).unwrap();
        drop(b);
        assert_eq!(connections.open(), 0);
        assert!(connections.0.lock().by_client.is_empty());
    }
}
