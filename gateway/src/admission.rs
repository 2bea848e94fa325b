//! How many connections a gateway holds, in all and per address. What is admitted is given back
//! once, by a guard that drops.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// The count, shared by the shards. The map is only used where addresses are limited.
pub(crate) struct Admission {
    max: usize,
    per_ip_max: usize,
    count: AtomicUsize,
    per_ip: Mutex<HashMap<IpAddr, usize>>,
    /// As many as there have been apps.
    per_app: Mutex<HashMap<String, Arc<AtomicUsize>>>,
}

/// One admitted connection.
pub(crate) struct Admitted {
    admission: Arc<Admission>,
    ip: Option<IpAddr>,
}

/// A connection's place among those of its app at this gateway.
pub(crate) struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
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
    /// For whoever is refused.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Self::Gateway => "the gateway holds as many connections as it may",
            Self::Address => "your address has as many connections as it may",
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
            per_ip: Mutex::default(),
            per_app: Mutex::default(),
        })
    }

    pub(crate) fn admit(self: &Arc<Self>, ip: IpAddr) -> Result<Admitted, Full> {
        let mut admitted = self.admit_proxied()?;
        admitted.belongs_to(ip)?;
        Ok(admitted)
    }

    /// Admits what comes from a proxy that has not said for whom: the proxy's own address is that of
    /// many clients. [`Admitted::belongs_to`] follows.
    pub(crate) fn admit_proxied(self: &Arc<Self>) -> Result<Admitted, Full> {
        if self.count.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Gateway);
        }
        // From here on the guard gives the count back.
        Ok(Admitted { admission: Arc::clone(self), ip: None })
    }

    /// A place in an app; none if it has as many connections as it may. A limit of 0 is none.
    pub(crate) fn admit_to(&self, app: &str, max: usize) -> Option<Seat> {
        let mut per_app = self.per_app.lock().unwrap_or_else(PoisonError::into_inner);
        let count = Arc::clone(per_app.entry(app.to_owned()).or_default());
        drop(per_app);
        let before = count.fetch_add(1, Ordering::Relaxed);
        let seat = Seat(count);
        (max == 0 || before < max).then_some(seat)
    }

    #[cfg(test)]
    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl Admitted {
    /// Says whose connection it is, also when another was named before: a proxy may use a connection
    /// again.
    pub(crate) fn belongs_to(&mut self, ip: IpAddr) -> Result<(), Full> {
        if self.admission.per_ip_max == 0 || self.ip == Some(ip) {
            return Ok(());
        }
        self.give_back_address();
        let mut per_ip = self.admission.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
        let count = per_ip.entry(ip).or_default();
        if *count >= self.admission.per_ip_max {
            return Err(Full::Address);
        }
        *count += 1;
        self.ip = Some(ip);
        Ok(())
    }

    fn give_back_address(&mut self) {
        let Some(ip) = self.ip.take() else { return };
        let mut per_ip = self.admission.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = per_ip.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                per_ip.remove(&ip);
            }
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.count.fetch_sub(1, Ordering::Relaxed);
        self.give_back_address();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_admitted_is_given_back_once() {
        let admission = Admission::new(3, 2);
        let [a, b] = ["127.0.0.1", "::1"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let first = admission.admit(a).ok().unwrap();
        let _second = admission.admit(a).ok().unwrap();
        assert_eq!(admission.admit(a).err(), Some(Full::Address));
        assert_eq!(admission.count(), 2, "a refusal holds nothing");
        let _third = admission.admit(b).ok().unwrap();
        assert_eq!(admission.admit(b).err(), Some(Full::Gateway));
        drop(first);
        assert!(admission.admit(a).is_ok());
        assert_eq!(admission.count(), 2);
    }

    #[test]
    fn a_proxys_connection_counts_for_its_client() {
        let admission = Admission::new(9, 1);
        let [a, b] = ["127.0.0.1", "::1"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let mut first = admission.admit_proxied().ok().unwrap();
        let mut second = admission.admit_proxied().ok().unwrap();
        first.belongs_to(a).unwrap();
        assert_eq!(second.belongs_to(a), Err(Full::Address));
        second.belongs_to(b).unwrap();
        first.belongs_to(a).unwrap();
        assert_eq!(first.belongs_to(b), Err(Full::Address));
        second.belongs_to(a).unwrap();
        drop((first, second));
        assert_eq!((admission.count(), admission.per_ip.lock().unwrap().len()), (0, 0));
    }
}
