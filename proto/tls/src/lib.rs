//! TLS of a Broadgate process: certificates and keys from files, checked with errors that say what to do, and
//! read again while the process runs; and mutual TLS between the processes of a cluster.
//!
//! | file | what |
//! |---|---|
//! | `reads.rs` | what one load has read: files by their content, and when certificates expire |
//! | `pem.rs` | certificates and keys in PEM files |
//! | `pair.rs` | a certificate with its key; certificates of CAs |
//! | `validity.rs` | from when until when a certificate is valid |
//! | `by_name.rs` | which of several certificates a client is shown |
//! | `reload.rs` | anything loaded from files, loaded again when they change |
//! | `cluster.rs` | the mutual TLS of a cluster |
//! | `pages.rs` | the TLS of a port that serves web pages |
//! | `credentials.rs` | what a process shows to the others: the secret, and certificates |
//! | `explain.rs` | why a handshake failed, in one sentence |

mod by_name;
mod cluster;
mod credentials;
mod explain;
mod pages;
mod pair;
mod pem;
mod provider;
mod reads;
mod reload;
#[cfg(test)]
mod tests;
mod validity;

pub use rustls;
pub use tokio_rustls;

pub use self::{
    by_name::ByName,
    cluster::{ClusterFiles, ClusterTls, DEFAULT_SERVER_NAME},
    credentials::Credentials,
    explain::{Failed, Side, explain},
    pages::PagesTls,
    pair::{Pair, PairFiles, client_config, load_pair, load_roots},
    pem::{FileError, load_key},
    provider::provider,
    reads::FileReads,
    reload::Reloading,
    validity::Validity,
};
