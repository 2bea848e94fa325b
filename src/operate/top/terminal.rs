//! The terminal of `top`: taken over as a whole, and given back however the program ends.

use std::{
    io::{self, Stdout},
    sync::atomic::{AtomicBool, Ordering},
};

use ratatui::{
    Frame, Terminal, TerminalOptions, Viewport,
    backend::CrosstermBackend,
    crossterm::{
        cursor::Show,
        execute,
        terminal::{
            Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
            size,
        },
    },
    layout::Rect,
};
use rustix::process::{Signal, getpid, kill_process};

/// The terminal is ours.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal, until it is dropped.
pub(super) struct TakenTerminal {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    size: (u16, u16),
}

impl TakenTerminal {
    /// Takes it over. A panic gives it back before its message is printed.
    pub(super) fn take() -> io::Result<Self> {
        let former = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            former(panic);
        }));
        let size = size()?;
        let taken = Self { terminal: blank(size)?, size };
        take_over()?;
        Ok(taken)
    }

    pub(super) fn draw(&mut self, render: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        if size()? != self.size {
            self.clear()?;
        }
        self.terminal.draw(render).map(drop)
    }

    /// The next screen is drawn as a whole.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.size = size()?;
        execute!(io::stdout(), Clear(ClearType::All))?;
        self.terminal = blank(self.size)?;
        Ok(())
    }

    /// Stops the process, as a shell's job control wants it, and goes on when it is continued.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        give_back();
        kill_process(getpid(), Signal::STOP)?;
        take_over()?;
        self.clear()
    }
}

impl Drop for TakenTerminal {
    fn drop(&mut self) {
        give_back();
    }
}

/// A terminal of this size on which nothing is drawn. It does not resize itself: for that, ratatui asks the terminal
/// where its cursor is, and fails where nothing answers.
fn blank((width, height): (u16, u16)) -> io::Result<Terminal<CrosstermBackend<Stdout>>> {
    let viewport = Viewport::Fixed(Rect::new(0, 0, width, height));
    Terminal::with_options(CrosstermBackend::new(io::stdout()), TerminalOptions { viewport })
}

fn take_over() -> io::Result<()> {
    // First: what fails half-way is given back.
    TAKEN.store(true, Ordering::SeqCst);
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen)
}

/// Once, however often it is asked for. If the terminal is gone, there is nothing to give back.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = disable_raw_mode();
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
    }
}

#[cfg(test)]
#[path = "../../../tests/whole/harness/pty.rs"]
mod pty;

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read as _, process::Command};

    use rustix::termios::{LocalModes, tcgetattr};

    use super::{
        pty::{Pty, take_terminal},
        *,
    };

    /// Says to the first test that the second one has started it.
    const ON_A_TERMINAL: &str = "TEST_ON_A_TERMINAL";

    /// Run by the test below on a terminal of its own.
    #[test]
    #[ignore = "it takes over the terminal that it runs on, and panics"]
    fn panics_while_the_terminal_is_taken() {
        if std::env::var_os(ON_A_TERMINAL).is_some() {
            take_terminal();
        }
        let mut terminal = TakenTerminal::take().unwrap();
        terminal.draw(|frame| frame.render_widget("the screen", frame.area())).unwrap();
        panic!("for the test");
    }

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_is_told() {
        let pty = Pty::open();
        let modes = || tcgetattr(&pty.controller).unwrap().local_modes;
        let before = modes();
        assert!(before.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG), "{before:?}");
        let name = "operate::top::terminal::tests::panics_while_the_terminal_is_taken";
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", name, "--nocapture"])
            .env("TERM", "xterm-256color")
            .env(ON_A_TERMINAL, "1")
            .stdin(pty.terminal())
            .stdout(pty.terminal())
            .stderr(pty.terminal())
            .spawn()
            .unwrap();
        let mut controller = File::from(pty.controller.try_clone().unwrap());
        let (mut printed, mut some) = (Vec::new(), [0; 4096]);
        // It fails when the process has ended.
        while let Ok(count @ 1..) = controller.read(&mut some) {
            printed.extend_from_slice(&some[..count]);
        }
        let text = String::from_utf8_lossy(&printed).into_owned();
        assert_eq!(process.wait().unwrap().code(), Some(101), "{text}");
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what:?} is missing in {text}"));
        let (taken, drawn, given_back) = (at("\u{1b}[?1049h"), at("screen"), at("\u{1b}[?1049l"));
        assert!(taken < drawn && drawn < given_back, "{text}");
        assert!(given_back < at("for the test"), "the message is on the terminal's own screen: {text}");
        assert_eq!(text.matches("\u{1b}[?1049l").count(), 1, "{text}");
        assert_eq!(modes(), before, "{text}");
        assert!(text.contains("\u{1b}[?25h"), "the cursor is shown again: {text}");
    }
}
