//! Socket.IO as Laravel Echo's `socket.io` broadcaster speaks it, pure: parses and checks input, writes
//! output. It knows no socket, no clock and no configuration. Channels, members and limits are those of
//! [`broadgate_pusher`]: clients of both protocols share an app's channels.
//!
//! | file | what is decided there |
//! |---|---|
//! | `engine` | Engine.IO 3 and 4: packets in text frames, the payload of a poll |
//! | `packet` | Socket.IO packets, and the events in them |
//! | `polling` | requests to `/socket.io/`: each is answered without state, by any gateway |
//! | `talk` | what a client's frame means, given its stage and what its app allows |
//! | `outgoing` | every frame to a client |
//! | `sid` | ids that are issued before a gateway holds the client |

#![allow(missing_docs, reason = "internal to the gateway: names that say it all need no sentence")]

pub mod engine;
pub mod outgoing;
pub mod packet;
pub mod polling;
pub mod sid;
pub mod talk;
