//! The SDK against gateways that do what the test says, and a real register.

#![allow(clippy::unwrap_used, missing_docs)]

mod cluster;
mod fake;
mod homes;
mod pusher;
mod register;
mod streams;
mod watch;
mod worker;
