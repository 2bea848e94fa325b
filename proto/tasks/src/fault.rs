//! Faults on demand, for tests of debug builds: with `BROADGATE_FAULT=NAME=FILE` the task or thread of this
//! name panics as soon as the file exists. Release builds contain none of this.

use std::convert::Infallible;

/// Panics when the fault is wanted; otherwise waits for ever.
#[cfg(debug_assertions)]
pub fn strike(name: &str) -> impl Future<Output = Infallible> + Send + use<> {
    let wanted = std::env::var("BROADGATE_FAULT").unwrap_or_default();
    let file = wanted.split_once('=').filter(|(of, _)| *of == name).map(|(_, file)| file.to_owned());
    let name = name.to_owned();
    async move {
        let Some(file) = file else { return std::future::pending().await };
        while !std::path::Path::new(&file).exists() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("{name} fails because BROADGATE_FAULT says so");
    }
}

/// Panics if the fault is wanted now.
#[cfg(debug_assertions)]
pub fn strike_now(name: &str) {
    let wanted = std::env::var("BROADGATE_FAULT").unwrap_or_default();
    if let Some((_, file)) = wanted.split_once('=').filter(|(of, _)| *of == name)
        && std::path::Path::new(file).exists()
    {
        panic!("{name} fails because BROADGATE_FAULT says so");
    }
}

/// Does nothing.
#[cfg(not(debug_assertions))]
#[inline]
pub const fn strike_now(_: &str) {}

/// Waits for ever.
#[cfg(not(debug_assertions))]
pub fn strike(_: &str) -> impl Future<Output = Infallible> + Send + use<> {
    std::future::pending()
}
