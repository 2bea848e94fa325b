//! The tokens of operators, from the file to a gateway's table, and the commands about that file.
//!
//! | file | what |
//! |---|---|
//! | `read.rs` | the file, as tokens |
//! | `reload.rs` | it is read again while a gateway runs |
//! | `edit.rs` | its text, to which a token is added or from which one is removed |
//! | `command.rs` | `broadgate token` |

mod command;
mod edit;
mod read;
mod reload;

pub(crate) use self::{
    command::{RIGHTS, ROLES, TokenArgs, token},
    read::open,
    reload::TokensReload,
};
