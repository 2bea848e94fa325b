//! A pseudo-terminal. Not by a program such as `script`, which a small machine lacks.

use std::os::fd::OwnedFd;

use rustix::{
    fs::{Mode, OFlags, open},
    process::{ioctl_tiocsctty, setsid},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    stdio::stdin,
    termios::{Winsize, tcsetwinsize},
};

/// A terminal of 80 by 24.
pub struct Pty {
    /// What is written here was typed, and what is read here was printed. Reading fails once all programs have closed
    /// the terminal.
    pub controller: OwnedFd,
}

impl Pty {
    pub fn open() -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        tcsetwinsize(&controller, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        Self { controller }
    }

    /// The terminal, for a program.
    pub fn terminal(&self) -> OwnedFd {
        let name = ptsname(&self.controller, Vec::new()).unwrap();
        open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }
}

/// Makes the terminal at the standard input the process's own, as a shell's is: `/dev/tty`. For a process that was just
/// started: it leaves the terminal that it had.
pub fn take_terminal() {
    setsid().unwrap();
    ioctl_tiocsctty(stdin()).unwrap();
}
