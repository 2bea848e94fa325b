//! The one cryptography that everything here uses.

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;

/// ring's.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static RING: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    Arc::clone(&RING)
}
