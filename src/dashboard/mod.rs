//! The dashboard: pages in a browser that show the cluster, and give orders to it.
//!
//! It is a client of the gateways' contract and no part of a gateway: it asks with its visitor's own credentials,
//! and what a visitor may do is decided by the gateways. `broadgate dashboard` serves it on an operator's machine; a
//! gateway's process serves it where `[dashboard] bind` says so.
//!
//! | file | what |
//! |---|---|
//! | `command.rs` | `broadgate dashboard` |
//! | `role.rs` | the dashboard of a gateway's process |
//! | `server.rs` | its port: files, logins, orders, the streams of tabs |
//! | `settings.rs` | who may see it |
//! | `sessions.rs`, `logins.rs`, `origin.rs` | pure: who is logged in, how often logins may fail, which pages may ask |
//! | `live.rs` | the stream of one tab |
//! | `shown.rs`, `head.rs` | what pages are shown, and which questions that takes |
//! | `tap.rs` | what a client or an app does at this moment |
//! | `orders.rs` | sends and closes |
//! | `visitor.rs`, `asker.rs` | a visitor's way to the cluster, over any gateway that answers |
//! | `files.rs` | the files of the page, which are in `page/`; those of others in `page/vendor/` |

mod asker;
mod command;
mod files;
mod head;
mod live;
mod logins;
mod orders;
mod origin;
mod role;
mod server;
mod sessions;
mod settings;
mod shown;
mod tap;
mod visitor;

pub(crate) use self::{
    command::{DashboardArgs, dashboard},
    role::{RoleDashboard, check, connections},
};
