//! How often logins may fail. Pure.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use broadgate_proto::limits::{DASHBOARD_LOGIN_ADDRESSES_MAX, DASHBOARD_LOGINS_PER_MINUTE_MAX};

const MINUTE: Duration = Duration::from_secs(60);

/// Failed logins by address. Those in progress count as failed, so that many at once are no way around it.
#[derive(Debug, Default)]
pub(super) struct FailedLogins {
    all: HashMap<IpAddr, AddressLogins>,
}

#[derive(Debug)]
struct AddressLogins {
    began: Instant,
    count: u32,
}

/// One address is a host; of IPv6, a network of 64 bits is.
fn host(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

impl FailedLogins {
    /// Whether a login may be tried; it counts as failed until [`Self::succeeded`].
    ///
    /// # Errors
    /// If not, how long to wait.
    pub(super) fn begin(&mut self, ip: IpAddr, now: Instant) -> Result<(), Duration> {
        let host = host(ip);
        self.all.retain(|_, failed| now.duration_since(failed.began) < MINUTE);
        if !self.all.contains_key(&host) && self.all.len() >= DASHBOARD_LOGIN_ADDRESSES_MAX {
            let oldest = self.all.iter().min_by_key(|(_, failed)| failed.began).map(|(ip, _)| *ip);
            oldest.and_then(|ip| self.all.remove(&ip));
        }
        let failed = self.all.entry(host).or_insert(AddressLogins { began: now, count: 0 });
        if failed.count >= DASHBOARD_LOGINS_PER_MINUTE_MAX {
            return Err(MINUTE.saturating_sub(now.duration_since(failed.began)));
        }
        failed.count += 1;
        Ok(())
    }

    /// A login that was tried has not failed, or not through the fault of the one who tried.
    pub(super) fn succeeded(&mut self, ip: IpAddr) {
        if let Some(failed) = self.all.get_mut(&host(ip)) {
            failed.count = failed.count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn sixth_failure_of_a_minute_has_to_wait() {
        let (mut failed, start) = (FailedLogins::default(), Instant::now());
        for _ in 0..DASHBOARD_LOGINS_PER_MINUTE_MAX {
            failed.begin(ip("10.0.0.1"), start).unwrap();
        }
        let wait = failed.begin(ip("10.0.0.1"), start + MINUTE / 4).unwrap_err();
        assert_eq!(wait, MINUTE * 3 / 4);
        assert!(failed.begin(ip("::ffff:10.0.0.1"), start).is_err(), "the same host");
        failed.begin(ip("10.0.0.2"), start).unwrap();
        failed.begin(ip("10.0.0.1"), start + MINUTE).unwrap();
    }

    #[test]
    fn right_tokens_are_never_limited() {
        let (mut failed, start) = (FailedLogins::default(), Instant::now());
        for _ in 0..100 {
            failed.begin(ip("10.0.0.1"), start).unwrap();
            failed.succeeded(ip("10.0.0.1"));
        }
    }

    #[test]
    fn network_of_one_host_is_one_address() {
        let (mut failed, start) = (FailedLogins::default(), Instant::now());
        for number in 0..DASHBOARD_LOGINS_PER_MINUTE_MAX {
            failed.begin(ip(&format!("2001:db8:1:2::{number}")), start).unwrap();
        }
        assert!(failed.begin(ip("2001:db8:1:2:ffff::1"), start).is_err());
        failed.begin(ip("2001:db8:1:3::1"), start).unwrap();
    }

    #[test]
    fn memory_is_bounded() {
        let (mut failed, start) = (FailedLogins::default(), Instant::now());
        for number in 0..3 * u32::try_from(DASHBOARD_LOGIN_ADDRESSES_MAX).unwrap() {
            let now = start + Duration::from_micros(number.into());
            failed.begin(IpAddr::from(number.to_be_bytes()), now).unwrap();
        }
        assert_eq!(failed.all.len(), DASHBOARD_LOGIN_ADDRESSES_MAX);
    }
}
