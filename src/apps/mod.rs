//! The apps of a gateway, from the files to its table, and the operator's commands about them.
//!
//! | file | what |
//! |---|---|
//! | `read.rs` | the configuration's `[[apps]]` and the apps file, merged |
//! | `reload.rs` | both are read again while a gateway runs |
//! | `command.rs` | `broadgate apps` |
//! | `fresh.rs` | an app with a random key and secret |
//! | `import/` | an app from the settings of laravel-echo-server |
//! | `laravel.rs` | the settings with which Laravel and Echo find an app |

mod command;
mod fresh;
mod import;
mod laravel;
mod read;
mod reload;

pub(crate) use self::{
    command::{AppsArgs, run},
    laravel::Reach,
    reload::{Reload, outlive_hangups},
};
pub use self::{fresh::fresh, read::Source};
