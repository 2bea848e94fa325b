//! A client for the part of etcd's API that a register uses. It needs no `protoc`: the generated code is
//! committed.
//!
//! | file | what |
//! |---|---|
//! | `client.rs` | calls, each on the first endpoint that answers in time; the token of a user |
//! | `settings.rs` | endpoints and users, checked |
//! | `trouble.rs` | what an error of etcd means |
//! | `tls.rs` | TLS, from files that are read again |
//! | `requests.rs` | requests that are used |

mod client;
mod requests;
mod settings;
mod tls;
mod trouble;

#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::too_many_lines)]
pub mod etcd;
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod ledger;

pub use client::{CALL_TIME_MAX, EtcdClient};
pub use requests::{created_at, delete_range, get, modified_at, put, range};
pub use settings::{EtcdEndpoint, EtcdSettings, EtcdUser};
pub use tls::{EtcdTls, EtcdTlsFiles};
pub use trouble::CallError;
