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
}

/// One admitted connection.
pub(crate) struct Admitted {
    admission: Arc<Admission>,
    ip: Option<IpAddr>,
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

impl Admission {
    /// A limit of 0 per address is none.
    pub(crate) fn new(max: usize, per_ip_max: usize) -> Arc<Self> {
        Arc::new(Self { max, per_ip_max, count: AtomicUsize::new(0), per_ip: Mutex::default() })
    }

    pub(crate) fn admit(self: &Arc<Self>, ip: IpAddr) -> Result<Admitted, Full> {
        if self.count.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Gateway);
        }
        // From here on the guard gives the count back.
        let mut admitted = Admitted { admission: Arc::clone(self), ip: None };
        if self.per_ip_max > 0 {
            let mut per_ip = self.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
            let count = per_ip.entry(ip).or_default();
            if *count >= self.per_ip_max {
                return Err(Full::Address);
            }
            *count += 1;
            admitted.ip = Some(ip);
        }
        Ok(admitted)
    }

    #[cfg(test)]
    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.count.fetch_sub(1, Ordering::Relaxed);
        let Some(ip) = self.ip else { return };
        let mut per_ip = self.admission.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = per_ip.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                per_ip.remove(&ip);
            }
        }
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
}
