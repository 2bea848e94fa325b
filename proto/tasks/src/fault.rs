//! Faults on demand, for tests of debug builds: with `BROADGATE_FAULT=NAME=FILE` the task or thread of this
//! name panics as soon as the file exists. Release builds contain none of this.

#[cfg(debug_assertions)]
pub use self::debug::{arm, strike, strike_now, strike_once, strike_once_now};
#[cfg(not(debug_assertions))]
pub use self::release::{arm, strike, strike_now, strike_once, strike_once_now};

#[cfg(debug_assertions)]
mod debug {
    use std::{
        convert::Infallible,
        future::poll_fn,
        path::{Path, PathBuf},
        pin::pin,
        sync::{LazyLock, Mutex, PoisonError},
        task::Poll,
        time::Duration,
    };

    /// How often a waiting task looks for its file.
    const LOOK_INTERVAL: Duration = Duration::from_millis(20);

    /// Names of what panics, each with the file that says when.
    static WANTED: LazyLock<Mutex<Vec<(String, PathBuf)>>> = LazyLock::new(|| {
        let wanted = std::env::var("BROADGATE_FAULT").unwrap_or_default();
        let wanted = wanted.split_once('=').map(|(name, file)| (name.to_owned(), file.into()));
        Mutex::new(wanted.into_iter().collect())
    });

    /// Sets up another fault, for parts that a test runs in its own process.
    pub fn arm(name: &str, file: &Path) {
        let mut wanted = WANTED.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.push((name.to_owned(), file.to_owned()));
    }

    /// The file of the fault, if it is wanted of this name.
    fn file_of(name: &str) -> Option<PathBuf> {
        let wanted = WANTED.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.iter().find(|(of, _)| of == name).map(|(_, file)| file.clone())
    }

    fn fail(name: &str) -> ! {
        panic!("{name} fails because BROADGATE_FAULT says so");
    }

    /// Panics when the fault is wanted; otherwise waits for ever.
    pub fn strike(name: &str) -> impl Future<Output = Infallible> + Send + use<> {
        let file = file_of(name);
        let name = name.to_owned();
        async move {
            let Some(file) = file else { return std::future::pending().await };
            while !file.exists() {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            fail(&name)
        }
    }

    /// Panics if the fault is wanted now.
    pub fn strike_now(name: &str) {
        if file_of(name).is_some_and(|file| file.exists()) {
            fail(name);
        }
    }

    /// Panics if the fault is wanted now, and takes the file away: of many tasks of one name, one panics.
    pub fn strike_once_now(name: &str) {
        if file_of(name).is_some_and(|file| std::fs::remove_file(file).is_ok()) {
            fail(name);
        }
    }

    /// Does the work, and panics amid it when the fault is wanted, as [`strike_once_now`] does. Of two of these
    /// around each other the inner one panics.
    pub async fn strike_once<T>(name: &str, work: impl Future<Output = T>) -> T {
        if file_of(name).is_none() {
            return work.await;
        }
        let mut work = pin!(work);
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        poll_fn(|cx| {
            if let Poll::Ready(result) = work.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            while look.poll_tick(cx).is_ready() {}
            strike_once_now(name);
            Poll::Pending
        })
        .await
    }
}

#[cfg(not(debug_assertions))]
mod release {
    use std::{convert::Infallible, path::Path};

    /// Does nothing.
    pub const fn arm(_: &str, _: &Path) {}

    /// Waits for ever.
    pub fn strike(_: &str) -> impl Future<Output = Infallible> + Send + use<> {
        std::future::pending()
    }

    /// Does nothing.
    #[inline]
    pub const fn strike_now(_: &str) {}

    /// Does nothing.
    #[inline]
    pub const fn strike_once_now(_: &str) {}

    /// The work itself.
    #[inline]
    pub const fn strike_once<F: Future>(_: &str, work: F) -> F {
        work
    }
}
