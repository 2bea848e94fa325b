//! The Pusher Channels protocol, pure: what comes in is parsed and checked, what goes out is
//! written. No socket, no clock and no configuration is known here.

#![allow(dead_code, reason = "the shard and the client port do not speak it yet")]

pub(crate) mod limits;
