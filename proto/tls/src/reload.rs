//! Anything loaded from files, loaded again when they change: all of it or nothing.
//!
//! A certificate and its key are two files, written one after the other when they are renewed: what does not fit
//! together is given time before it is an error. Then the former set stays in use, and metrics and the
//! log say so.

use std::{
    convert::Infallible,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use arc_swap::{ArcSwap, Guard};
use metrics::{counter, gauge};
use tokio::{
    signal::unix::Signal,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use crate::reads::FileReads;

/// Between two looks at the files.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// A changed file must stay unchanged for this long: it may still be being written.
const SETTLE_TIME: Duration = Duration::from_millis(200);
/// Files that could not be used are tried again after so many looks, also unchanged: a certificate becomes
/// valid, a clock is set right, a file may be read.
const LOOKS_UNTIL_AGAIN: u32 = 30;
/// How long files that do not fit together may take to do so.
const FIT_TIME_MAX: Duration = Duration::from_secs(3);

type LoadFn<T> = dyn Fn(&mut FileReads) -> anyhow::Result<T> + Send + Sync;

/// What was loaded from files, and is loaded again when they change. Handshakes take what is current;
/// connections that are open keep what they were opened with.
pub struct Reloading<T> {
    /// What it is for, in metrics and the log: of a closed set.
    role: &'static str,
    load: Box<LoadFn<T>>,
    current: ArcSwap<T>,
    /// What the last load has read, also one that failed.
    read: Mutex<FileReads>,
    /// The last load has failed.
    is_stale: AtomicBool,
    /// Held by the one who watches.
    watching: tokio::sync::Mutex<()>,
}

impl<T: Send + Sync + 'static> Reloading<T> {
    /// Loads for the first time. `role` labels the metrics, which [`Self::watch`] publishes.
    ///
    /// # Errors
    /// As `load` returns them.
    pub fn open(
        role: &'static str,
        load: impl Fn(&mut FileReads) -> anyhow::Result<T> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let mut reads = FileReads::default();
        let first = load(&mut reads)?;
        Ok(Self {
            role,
            load: Box::new(load),
            current: ArcSwap::from_pointee(first),
            read: Mutex::new(reads),
            is_stale: AtomicBool::new(false),
            watching: tokio::sync::Mutex::default(),
        })
    }

    /// What is current.
    pub fn current(&self) -> Guard<Arc<T>> {
        self.current.load()
    }

    /// Watches the files, every two seconds and at each of these signals, for as long as it is polled. If
    /// several watch, one looks, and another when that one has stopped.
    pub async fn watch(self: Arc<Self>, hangups: Option<Signal>) -> Infallible {
        tokio::select! {
            never = self.look_for_ever() => never,
            never = self.obey(hangups) => never,
        }
    }

    async fn look_for_ever(self: &Arc<Self>) -> Infallible {
        let _alone = self.watching.lock().await;
        self.announce();
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stale_looks = 0;
        loop {
            looks.tick().await;
            Arc::clone(self).look().await;
            stale_looks = if self.is_stale.load(Ordering::Relaxed) { stale_looks + 1 } else { 0 };
            if stale_looks == LOOKS_UNTIL_AGAIN {
                stale_looks = 0;
                let this = Arc::clone(self);
                // That they are still bad is known.
                blocking(move || this.load_again(false)).await;
            }
        }
    }

    /// Loads at each signal: an order, for which nothing is waited for.
    async fn obey(self: &Arc<Self>, mut hangups: Option<Signal>) -> Infallible {
        loop {
            match &mut hangups {
                // It cannot end while the runtime lives.
                Some(hangups) => drop(hangups.recv().await),
                None => std::future::pending().await,
            }
            let this = Arc::clone(self);
            blocking(move || this.load_again(true)).await;
        }
    }

    /// The first values of the metrics, which are recorded only when a process has opened its metrics: later
    /// than it reads its files. Alerts need counters that were there before.
    fn announce(&self) {
        publish_expiries(self.role, &self.read.lock().unwrap_or_else(PoisonError::into_inner));
        counter!("broadgate_tls_reloads_total", "role" => self.role).increment(0);
        counter!("broadgate_tls_reload_failures_total", "role" => self.role).increment(0);
        gauge!("broadgate_tls_stale", "role" => self.role).set(0.0);
    }

    /// Loads again if the files have changed, when they have come to rest and fit together.
    async fn look(self: Arc<Self>) {
        let known = self.read.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(mut now) = again(&known).await else { return };
        let since = Instant::now();
        while !now.is_same(&known) {
            sleep(SETTLE_TIME).await;
            let Some(later) = again(&known).await else { return };
            if !later.is_same(&now) {
                now = later;
                continue;
            }
            let (this, is_late) = (Arc::clone(&self), since.elapsed() >= FIT_TIME_MAX);
            if blocking(move || this.load_again(is_late)).await.unwrap_or(true) {
                return;
            }
        }
    }

    /// Takes what the files hold, or goes on with what they held; false if they do not fit together and may
    /// take longer to do so.
    fn load_again(&self, is_late: bool) -> bool {
        let mut reads = FileReads::default();
        let loaded = (self.load)(&mut reads);
        if loaded.is_err() && !is_late {
            return false;
        }
        self.is_stale.store(loaded.is_err(), Ordering::Relaxed);
        match loaded {
            Ok(set) => {
                self.current.store(Arc::new(set));
                publish_expiries(self.role, &reads);
                counter!("broadgate_tls_reloads_total", "role" => self.role).increment(1);
                gauge!("broadgate_tls_stale", "role" => self.role).set(0.0);
                tracing::info!(role = self.role, "certificates read again");
            }
            Err(error) => {
                counter!("broadgate_tls_reload_failures_total", "role" => self.role).increment(1);
                gauge!("broadgate_tls_stale", "role" => self.role).set(1.0);
                tracing::error!(role = self.role, "the former certificates stay in use: {error:#}");
            }
        }
        // Also what cannot be used is not looked at twice.
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = reads;
        true
    }
}

impl<T> fmt::Debug for Reloading<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloading").field("role", &self.role).finish_non_exhaustive()
    }
}

async fn again(known: &FileReads) -> Option<FileReads> {
    let known = known.clone();
    blocking(move || known.again()).await
}

/// Reads files without holding up the runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    broadgate_tasks::blocking("certificates", work).await.ok()
}

fn publish_expiries(role: &'static str, reads: &FileReads) {
    for (path, until) in reads.expiries() {
        let seconds = until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let file = path.display().to_string();
        gauge!("broadgate_tls_certificate_expires_seconds", "role" => role, "file" => file).set(seconds);
    }
}
