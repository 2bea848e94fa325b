//! One budget for the bodies of all requests that a port is reading or carrying out.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body;

/// The budget, in bytes. Requests of one app take a share of it at most, so that a tenant that sends
/// slowly does not turn away the others.
pub(crate) struct Bodies {
    bytes_max: usize,
    share_max: usize,
    reserved: Mutex<ReservedBytes>,
}

#[derive(Default)]
struct ReservedBytes {
    bytes: usize,
    /// Only apps that hold something.
    per_app: HashMap<String, usize>,
}

/// What one request's body holds of the budget.
pub(crate) struct Lease {
    bodies: Arc<Bodies>,
    app: String,
    bytes: usize,
}

impl Bodies {
    pub(crate) fn new(bytes_max: usize, share_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, share_max, reserved: Mutex::default() })
    }

    pub(crate) fn lease(self: &Arc<Self>, app: &str) -> Lease {
        Lease { bodies: Arc::clone(self), app: app.to_owned(), bytes: 0 }
    }

    fn reserved(&self) -> MutexGuard<'_, ReservedBytes> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a body was not read.
#[derive(Debug)]
pub(crate) enum Unread {
    /// It has more bytes than this.
    TooLarge(usize),
    /// The budget, or the app's share, is spent.
    Spent,
    Broken(String),
}

impl Lease {
    /// Reads a whole body. Where its length is known, all of it is reserved at once, so that of many none
    /// waits half-read for the others.
    pub(crate) async fn read<B>(&mut self, body: B, bytes_max: usize) -> Result<Bytes, Unread>
    where
        B: Body<Data = Bytes, Error: std::fmt::Display>,
    {
        let mut body = std::pin::pin!(body);
        // More can never have a place.
        let bytes_max = bytes_max.min(self.bodies.share_max);
        let length = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        self.reserve_up_to(length, bytes_max)?;
        let mut read = BytesMut::with_capacity(length);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Unread::Broken(error.to_string()))?;
            if let Some(data) = frame.data_ref() {
                self.reserve_up_to(read.len() + data.len(), bytes_max)?;
                read.extend_from_slice(data);
            }
        }
        Ok(read.freeze())
    }

    fn reserve_up_to(&mut self, bytes: usize, bytes_max: usize) -> Result<(), Unread> {
        if bytes > bytes_max {
            return Err(Unread::TooLarge(bytes_max));
        }
        self.reserve(bytes).then_some(()).ok_or(Unread::Spent)
    }

    /// Takes what is missing up to so many bytes; false if the budget, or the app's share, is spent.
    fn reserve(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return true;
        }
        let mut reserved = self.bodies.reserved();
        let of_app = reserved.per_app.get(&self.app).copied().unwrap_or_default();
        if more > self.bodies.bytes_max.saturating_sub(reserved.bytes)
            || more > self.bodies.share_max.saturating_sub(of_app)
        {
            return false;
        }
        reserved.bytes += more;
        reserved.per_app.insert(self.app.clone(), of_app + more);
        self.bytes += more;
        true
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut reserved = self.bodies.reserved();
        reserved.bytes -= self.bytes;
        if let Some(of_app) = reserved.per_app.get_mut(&self.app) {
            *of_app -= self.bytes;
            if *of_app == 0 {
                reserved.per_app.remove(&self.app);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_app_takes_its_share_and_all_together_no_more_than_there_is() {
        let bodies = Bodies::new(100, 50);
        let [mut a, mut b, mut c] = ["a", "b", "c"].map(|app| bodies.lease(app));
        assert!(a.reserve(40) && a.reserve(30), "less than it has is nothing more");
        assert!(!bodies.lease("a").reserve(11), "beyond the app's share");
        assert!(b.reserve(50));
        assert!(!c.reserve(11) && c.reserve(10));
        drop((a, b));
        assert!(bodies.lease("a").reserve(50));
        drop(c);
        let reserved = bodies.reserved();
        assert_eq!((reserved.bytes, reserved.per_app.len()), (0, 0));
    }

    #[tokio::test]
    async fn a_body_is_read_if_it_has_a_place() {
        use http_body_util::Full;
        let bodies = Bodies::new(100, 50);
        let body = |bytes: usize| Full::new(Bytes::from(vec![b'x'; bytes]));
        let mut lease = bodies.lease("a");
        assert_eq!(lease.read(body(40), 60).await.unwrap().len(), 40);
        assert!(matches!(bodies.lease("a").read(body(20), 60).await, Err(Unread::Spent)));
        assert!(matches!(bodies.lease("b").read(body(20), 10).await, Err(Unread::TooLarge(10))));
        assert!(matches!(bodies.lease("b").read(body(60), 99).await, Err(Unread::TooLarge(50))));
        drop(lease);
        assert_eq!(bodies.lease("a").read(body(20), 60).await.unwrap().len(), 20);
        assert_eq!(bodies.reserved().bytes, 0);
    }
}
