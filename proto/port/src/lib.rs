//! Shared behaviour of every listening port of a Broadgate process: deadlines for reading and writing, a
//! bound on connections, TCP settings, and authorization.
//!
//! | file | what |
//! |---|---|
//! | `watch.rs` | what an HTTP connection is doing, and until when it may |
//! | `serve.rs` | serving an internal port, or one with probes |
//! | `check.rs` | who may call an internal port |
//! | `dial.rs` | connecting to an internal port, plain or inside TLS |
//! | `book.rs` | how many refusals have a line in the log |
//! | `handshake.rs` | the handshake of TLS on an accepted connection |
//! | `io.rs` | a stream that tells its `Watch` what it does, and lingers before it is closed |
//! | `answers.rs` | refusals in the form that the caller reads, and what is said where nothing is served |
//! | `look.rs` | what listens at an address that somebody has named |
//! | `socket.rs` | TCP settings, and closing a listener without resetting what waits in its queue |

mod answers;
mod book;
mod check;
mod dial;
mod handshake;
mod io;
mod look;
mod serve;
mod socket;
mod watch;

pub use self::{
    answers::{nothing_here, only_post, or_nothing},
    book::Book,
    check::{Admit, Check, RefusedRequest, ShownCredential},
    dial::{connect, connect_lazy, secure},
    handshake::{PortTls, TLS_ONLY},
    io::{Guarded, linger},
    look::{FoundListener, look},
    serve::{Http2, PortSettings, TurnedAway, serve},
    socket::{ClosingListener, tune, user_timeout},
    watch::{ConnectionPhase, ConnectionWatch, Times},
};
