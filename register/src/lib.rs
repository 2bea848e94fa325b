//! Who is alive in a cluster, from both sides.
//!
//! | module | what |
//! |---|---|
//! | [`member`] | how a process belongs to a cluster: every gateway and worker links it |
//! | [`server`] | the register itself |
//!
//! `server` may use `member`, never the other way round.

pub mod member;
pub mod server;
