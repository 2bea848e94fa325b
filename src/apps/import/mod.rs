//! The settings of other servers, as an app of ours. Pure.
//!
//! | file | what |
//! |---|---|
//! | `echo_server.rs` | laravel-echo-server.json: what each setting means here |
//! | `fields.rs` | a JSON object's fields, taken one by one |
//! | `imported.rs` | what was understood, and its text |

mod echo_server;
mod fields;
mod imported;

pub(super) use self::{echo_server::import, imported::PASSWORD_FILE};
