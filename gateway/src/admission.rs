//! Admission: limits of connections in all, per address and per app. A connection counts from its accept, and
//! a guard releases it once, on drop.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use broadgate_proto::limits::FAREWELLS_MAX;

/// The counts, shared by the shards. The maps contain only current entries.
pub(crate) struct Admission {
    max: usize,
    per_ip_max: usize,
    count: AtomicUsize,
    farewells: AtomicUsize,
    /// Used only where addresses are limited.
    per_ip: Mutex<HashMap<IpAddr, usize>>,
    per_app: Mutex<HashMap<String, usize>>,
}

/// One admitted connection.
pub(crate) struct Admitted {
    admission: Arc<Admission>,
    ip: Option<IpAddr>,
}

/// A connection beyond the limits that gets an answer before it is closed, one of [`FAREWELLS_MAX`].
pub(crate) struct RefusedConnection {
    admission: Arc<Admission>,
}

/// The admission of an accepted connection, held for as long as the connection is.
pub(crate) enum ConnectionTicket {
    Admitted(Admitted),
    Farewell { full: Full, _counted: RefusedConnection },
}

/// A connection's place among those of its app at this gateway.
pub(crate) struct AppPlace {
    admission: Arc<Admission>,
    app: String,
}

/// Why a connection is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Gateway,
    Address,
}

impl Full {
    /// For the counter of refusals.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Gateway => "clients_max",
            Self::Address => "clients_per_ip_max",
        }
    }
}

impl Full {
    /// The sentence for the refused client.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Self::Gateway => "the gateway has its maximum number of connections",
            Self::Address => "your address has its maximum number of connections",
        }
    }
}

impl Admission {
    /// A limit of 0 per address is none.
    pub(crate) fn new(max: usize, per_ip_max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            per_ip_max,
            count: AtomicUsize::new(0),
            farewells: AtomicUsize::new(0),
            per_ip: Mutex::default(),
            per_app: Mutex::default(),
        })
    }

    /// Counts a connection that was accepted. `ip` is none if its peer is a proxy, whose address is that
    /// of many clients; [`Admitted::belongs_to`] follows then.
    ///
    /// # Errors
    /// If there is no room even for an answer: the connection must be closed unread.
    pub(crate) fn enter(self: &Arc<Self>, ip: Option<IpAddr>) -> Result<ConnectionTicket, Full> {
        let full = match self.admit(ip) {
            Ok(admitted) => return Ok(ConnectionTicket::Admitted(admitted)),
            Err(full) => full,
        };
        if self.farewells.fetch_add(1, Ordering::Relaxed) >= FAREWELLS_MAX {
            self.farewells.fetch_sub(1, Ordering::Relaxed);
            return Err(full);
        }
        Ok(ConnectionTicket::Farewell { full, _counted: RefusedConnection { admission: Arc::clone(self) } })
    }

    fn admit(self: &Arc<Self>, ip: Option<IpAddr>) -> Result<Admitted, Full> {
        if self.count.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Gateway);
        }
        // From here on the guard releases the count.
        let mut admitted = Admitted { admission: Arc::clone(self), ip: None };
        if let Some(ip) = ip {
            admitted.belongs_to(ip)?;
        }
        Ok(admitted)
    }

    /// How many places of each app are taken.
    pub(crate) fn by_app(&self) -> HashMap<String, usize> {
        locked(&self.per_app).clone()
    }

    /// A place in an app; none if the app's limit is reached. A limit of 0 is none.
    pub(crate) fn admit_to(self: &Arc<Self>, app: &str, max: usize) -> Option<AppPlace> {
        let max = if max == 0 { usize::MAX } else { max };
        let taken = take(&mut locked(&self.per_app), app.to_owned(), max);
        taken.then(|| AppPlace { admission: Arc::clone(self), app: app.to_owned() })
    }
}

impl Admitted {
    /// Sets the client's address, also when another was set before: a proxy may reuse a connection.
    pub(crate) fn belongs_to(&mut self, ip: IpAddr) -> Result<(), Full> {
        let block = block(ip);
        if self.admission.per_ip_max == 0 || self.ip == Some(block) {
            return Ok(());
        }
        self.belongs_to_no_client();
        if !take(&mut locked(&self.admission.per_ip), block, self.admission.per_ip_max) {
            return Err(Full::Address);
        }
        self.ip = Some(block);
        Ok(())
    }

    /// It counts for the gateway alone.
    pub(crate) fn belongs_to_no_client(&mut self) {
        if let Some(block) = self.ip.take() {
            give_back(&mut locked(&self.admission.per_ip), &block);
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.count.fetch_sub(1, Ordering::Relaxed);
        self.belongs_to_no_client();
    }
}

impl Drop for RefusedConnection {
    fn drop(&mut self) {
        self.admission.farewells.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for AppPlace {
    fn drop(&mut self) {
        give_back(&mut locked(&self.admission.per_app), &self.app);
    }
}

/// The address of one customer: an IPv4 address, also where it is written as an IPv6 one, or an IPv6 network
/// of 64 bits, in which addresses are free to choose.
fn block(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
    }
}

fn locked<T>(map: &Mutex<T>) -> MutexGuard<'_, T> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: K, max: usize) -> bool {
    let count = counts.entry(key).or_default();
    let room = *count < max;
    *count += usize::from(room);
    room
}

fn give_back<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn counts(admission: &Admission) -> (usize, usize, usize, usize) {
        let count = admission.count.load(Ordering::Relaxed);
        let farewells = admission.farewells.load(Ordering::Relaxed);
        (count, farewells, locked(&admission.per_ip).len(), locked(&admission.per_app).len())
    }

    fn admit(admission: &Arc<Admission>, text: &str) -> Result<Admitted, Full> {
        admission.admit(Some(ip(text)))
    }

    #[test]
    fn what_is_admitted_is_given_back_once() {
        let admission = Admission::new(3, 2);
        let first = admit(&admission, "127.0.0.1").ok().unwrap();
        let _second = admit(&admission, "127.0.0.1").ok().unwrap();
        assert_eq!(admit(&admission, "127.0.0.1").err(), Some(Full::Address));
        assert_eq!(counts(&admission).0, 2, "a refusal holds nothing");
        let _third = admit(&admission, "::1").ok().unwrap();
        assert_eq!(admit(&admission, "::1").err(), Some(Full::Gateway));
        drop(first);
        assert!(admit(&admission, "127.0.0.1").is_ok());
        assert_eq!(counts(&admission).0, 2);
    }

    #[test]
    fn a_proxys_connection_counts_for_its_client() {
        let admission = Admission::new(9, 1);
        let [a, b] = ["127.0.0.1", "::1"].map(ip);
        let mut first = admission.admit(None).ok().unwrap();
        let mut second = admission.admit(None).ok().unwrap();
        first.belongs_to(a).unwrap();
        assert_eq!(second.belongs_to(a), Err(Full::Address));
        second.belongs_to(b).unwrap();
        first.belongs_to(a).unwrap();
        assert_eq!(first.belongs_to(b), Err(Full::Address));
        second.belongs_to(a).unwrap();
        second.belongs_to_no_client();
        assert_eq!(counts(&admission), (2, 0, 0, 0));
        drop((first, second));
        assert_eq!(counts(&admission), (0, 0, 0, 0));
    }

    #[test]
    fn a_full_gateway_says_so_to_a_few() {
        let admission = Admission::new(1, 0);
        let _admitted = admission.enter(None).ok().unwrap();
        let farewells: Vec<_> = (0..FAREWELLS_MAX).map(|_| admission.enter(None)).collect();
        assert!(
            farewells
                .iter()
                .all(|entry| matches!(entry, Ok(ConnectionTicket::Farewell { full: Full::Gateway, .. })))
        );
        assert_eq!(admission.enter(Some(ip("::1"))).err(), Some(Full::Gateway));
        assert_eq!(counts(&admission), (1, FAREWELLS_MAX, 0, 0));
        drop(farewells);
        assert_eq!(counts(&admission), (1, 0, 0, 0));
    }

    #[test]
    fn an_ipv6_customer_is_a_network_of_64_bits() {
        let admission = Admission::new(9, 1);
        let _one = admit(&admission, "2001:db8:1:2::1").ok().unwrap();
        assert!(admit(&admission, "2001:db8:1:2:ffff::9").is_err());
        let _neighbour = admit(&admission, "2001:db8:1:3::1").ok().unwrap();
        let _four = admit(&admission, "192.0.2.7").ok().unwrap();
        assert!(admit(&admission, "::ffff:192.0.2.7").is_err(), "the same, as a dual-stack socket says it");
        assert!(admit(&admission, "::ffff:192.0.2.8").is_ok());
    }

    #[test]
    fn apps_without_connections_are_not_remembered() {
        let admission = Admission::new(9, 0);
        let seats = [admission.admit_to("a", 2), admission.admit_to("a", 2), admission.admit_to("b", 0)];
        assert!(seats.iter().all(Option::is_some));
        assert!(admission.admit_to("a", 2).is_none());
        assert_eq!(counts(&admission).3, 2);
        drop(seats);
        assert_eq!(counts(&admission).3, 0);
    }
}
