//! What the threads of a load do.

use std::sync::atomic::{AtomicBool, AtomicUsize};

use crate::{engine::window::Window, target::Target};

/// What the clients do, told to all threads.
pub(crate) struct Plan {
    pub(crate) targets: Vec<Target>,
    /// Groups; client i is in group i % groups, and so is message i.
    pub(crate) groups: u32,
    pub(crate) group_names: Vec<String>,
    /// Handshakes of one thread that are under way at once.
    pub(crate) dialing_max: usize,
    /// Clients that are refused or closed dial again.
    pub(crate) comes_back: bool,
    /// Payload bytes of an echo.
    pub(crate) echo_size: usize,
    /// The process that started this one learns which messages are done.
    pub(crate) reports: bool,
    pub(crate) window: Window,
    pub(crate) live: AtomicUsize,
    pub(crate) stop: AtomicBool,
}
