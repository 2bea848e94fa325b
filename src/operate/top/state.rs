//! What a screen of `top` knows, and what keys do to it. Pure: time is given.

use std::{collections::HashMap, time::Duration};

use broadgate_business::v1::TopRequest;
use broadgate_proto::limits::TOP_ROWS_MAX;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::operate::top::{
    rates::TopPicture,
    view::{TopOrder, TopView},
};

/// What is typed as a filter. Fixed: more is not seen on a screen.
const FILTER_CHARS_MAX: usize = 100;

/// What a key asks of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyOutcome {
    Nothing,
    Redraw,
    /// Also what another program has written over.
    Clear,
    /// Another question is asked, or none while paused.
    Ask,
    Quit,
    Suspend,
}

/// Everything that is shown.
#[derive(Debug, Clone, Default)]
pub(super) struct TopState {
    /// The cluster's name; the address that was asked if it has none.
    pub(super) cluster: String,
    /// None is every app.
    pub(super) app: Option<String>,
    pub(super) interval: Duration,
    pub(super) view: TopView,
    pub(super) order: TopOrder,
    pub(super) filter: String,
    /// A filter is being typed.
    pub(super) typing: bool,
    pub(super) paused: bool,
    /// Rows that are scrolled away.
    pub(super) scrolled: usize,
    /// The command is shown that prints this.
    pub(super) command_shown: bool,
    pub(super) now: Option<TopPicture>,
    pub(super) before: Option<TopPicture>,
    /// Why the last question was not answered, and since when none was.
    pub(super) trouble: Option<(String, Duration)>,
    /// Since when gateways have not answered, by incarnation.
    pub(super) silent: HashMap<String, Duration>,
}

impl TopState {
    /// What is to be asked besides the status; none for workers, which are in it.
    pub(super) fn question(&self) -> Option<TopRequest> {
        (self.view != TopView::Workers).then(|| TopRequest {
            by: self.view.by().into(),
            sort: self.order.sort().into(),
            app: self.app.clone().unwrap_or_default(),
            limit: u32::try_from(TOP_ROWS_MAX).unwrap_or(u32::MAX),
            ..TopRequest::default()
        })
    }

    /// The command that prints what is shown.
    pub(super) fn command(&self) -> String {
        let mut command = format!("broadgate top {} --sort {} --once", self.view.name(), self.order.name());
        for (flag, value) in [("--app", self.app.as_deref()), ("--filter", Some(&*self.filter))] {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                command += &format!(" {flag} {}", quoted(value));
            }
        }
        command
    }

    /// An answer has come. One that was asked for before another view was chosen is of no use.
    pub(super) fn answered(&mut self, picture: TopPicture, view: TopView) {
        if self.paused || view != self.view {
            return;
        }
        self.trouble = None;
        for gateway in picture.gateways(None) {
            if gateway.answered {
                self.silent.remove(&gateway.incarnation);
            } else {
                self.silent.entry(gateway.incarnation).or_insert(picture.at);
            }
        }
        let view = picture.status.view.as_ref();
        self.silent.retain(|incarnation, _| {
            view.is_some_and(|view| view.members.iter().any(|member| member.incarnation == *incarnation))
        });
        self.before = self.now.replace(picture);
    }

    /// No answer has come.
    pub(super) fn failed(&mut self, why: String, now: Duration) {
        let since = self.trouble.take().map_or(now, |(_, since)| since);
        self.trouble = Some((why, since));
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> KeyOutcome {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => KeyOutcome::Quit,
                KeyCode::Char('z') => KeyOutcome::Suspend,
                KeyCode::Char('l') => KeyOutcome::Clear,
                _ => KeyOutcome::Nothing,
            };
        }
        if self.typing {
            return self.typed(key.code);
        }
        self.command_shown = false;
        match key.code {
            KeyCode::Char('q') => return KeyOutcome::Quit,
            KeyCode::Char('s') => {
                self.order = self.view.next(self.order);
                self.scrolled = 0;
                return KeyOutcome::Ask;
            }
            KeyCode::Char('/') => {
                self.typing = true;
                self.filter.clear();
            }
            KeyCode::Char(' ') => {
                self.paused = !self.paused;
                return KeyOutcome::Ask;
            }
            KeyCode::Char('y') => self.command_shown = true,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Down | KeyCode::Char('j') => self.scrolled += 1,
            KeyCode::Up | KeyCode::Char('k') => self.scrolled = self.scrolled.saturating_sub(1),
            KeyCode::PageDown => self.scrolled += 10,
            KeyCode::PageUp => self.scrolled = self.scrolled.saturating_sub(10),
            KeyCode::Home => self.scrolled = 0,
            KeyCode::Char(letter) => {
                let Some(view) = TopView::ALL.into_iter().find(|view| view.key() == letter) else {
                    return KeyOutcome::Nothing;
                };
                return self.show(view);
            }
            _ => return KeyOutcome::Nothing,
        }
        KeyOutcome::Redraw
    }

    fn show(&mut self, view: TopView) -> KeyOutcome {
        if view == self.view {
            return KeyOutcome::Redraw;
        }
        self.view = view;
        self.scrolled = 0;
        if view.column(self.order).is_none() {
            self.order = TopOrder::default();
        }
        // Its rows are others; the gateways stay.
        if let Some(now) = &mut self.now {
            now.top = None;
        }
        self.paused = false;
        KeyOutcome::Ask
    }

    fn typed(&mut self, key: KeyCode) -> KeyOutcome {
        match key {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(letter) if self.filter.chars().count() < FILTER_CHARS_MAX => {
                self.filter.push(letter)
            }
            _ => return KeyOutcome::Nothing,
        }
        self.scrolled = 0;
        KeyOutcome::Redraw
    }
}

/// As a shell takes it.
fn quoted(text: &str) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "._-:/@".contains(char);
    if text.chars().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use broadgate_business::v1::{GatewayStatus, Member, Role, StatusReply, TopReply, View};

    use super::*;

    fn press(state: &mut TopState, keys: &str) -> Vec<KeyOutcome> {
        let key = |letter| match letter {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '\u{8}' => KeyCode::Backspace,
            letter => KeyCode::Char(letter),
        };
        keys.chars().map(|letter| state.key(KeyEvent::new(key(letter), KeyModifiers::NONE))).collect()
    }

    fn picture(at: u64, answered: bool) -> TopPicture {
        let mut member = Member { incarnation: "g".into(), name: "gw-3".into(), ..Member::default() };
        member.set_role(Role::Gateway);
        let gateway = GatewayStatus { incarnation: "g".into(), ..GatewayStatus::default() };
        let status = StatusReply {
            view: Some(View { members: vec![member], ..View::default() }),
            gateways: answered.then_some(gateway).into_iter().collect(),
            ..StatusReply::default()
        };
        TopPicture { at: Duration::from_secs(at), status, top: Some(TopReply::default()) }
    }

    #[test]
    fn keys_choose_what_is_asked() {
        let mut state = TopState::default();
        assert_eq!(press(&mut state, "gcs"), [KeyOutcome::Redraw, KeyOutcome::Ask, KeyOutcome::Ask]);
        assert_eq!((state.view, state.order), (TopView::Clients, TopOrder::In));
        let question = state.question().unwrap();
        assert_eq!((question.by, question.sort), (TopView::Clients.by().into(), TopOrder::In.sort().into()));
        press(&mut state, "sw");
        assert_eq!((state.view, state.order, state.question()), (TopView::Workers, TopOrder::Out, None));
        assert_eq!(press(&mut state, " q"), [KeyOutcome::Ask, KeyOutcome::Quit]);
        assert!(state.paused);
        assert_eq!(press(&mut state, "x0"), [KeyOutcome::Nothing; 2]);
        let control = |letter| KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL);
        assert_eq!(
            (state.key(control('c')), state.key(control('z'))),
            (KeyOutcome::Quit, KeyOutcome::Suspend)
        );
    }

    #[test]
    fn letters_of_a_filter_are_no_commands() {
        let mut state = TopState::default();
        press(&mut state, "/qs \u{8}g\n");
        assert_eq!((&*state.filter, state.typing, state.view), ("qsg", false, TopView::Groups));
        press(&mut state, "/");
        let long = "x".repeat(500);
        press(&mut state, &long);
        assert_eq!(state.filter.len(), FILTER_CHARS_MAX);
        press(&mut state, "\u{1b}");
        assert_eq!((&*state.filter, state.typing), ("", false));
    }

    #[test]
    fn the_command_prints_what_is_shown() {
        let mut state = TopState { app: Some("shop".into()), ..TopState::default() };
        press(&mut state, "cs/it's\ny");
        assert!(state.command_shown);
        assert_eq!(state.command(), r"broadgate top clients --sort in --once --app shop --filter 'it'\''s'");
        press(&mut state, "j");
        assert!(!state.command_shown && state.scrolled == 1);
    }

    #[test]
    fn a_silent_gateway_is_silent_since_its_first_missing_answer() {
        let mut state = TopState::default();
        for (at, answered, since) in
            [(1, true, None), (3, false, Some(3)), (5, false, Some(3)), (7, true, None), (9, false, Some(9))]
        {
            state.answered(picture(at, answered), TopView::Groups);
            assert_eq!(state.silent.get("g").copied(), since.map(Duration::from_secs), "{at}");
        }
        state.answered(TopPicture::default(), TopView::Groups);
        assert!(state.silent.is_empty(), "it has left");
    }

    #[test]
    fn answers_to_a_former_question_are_not_shown() {
        let mut state = TopState::default();
        state.answered(picture(1, true), TopView::Groups);
        press(&mut state, "c");
        assert!(state.now.as_ref().unwrap().top.is_none());
        state.answered(picture(2, true), TopView::Groups);
        assert_eq!(state.now.as_ref().unwrap().at, Duration::from_secs(1));
        press(&mut state, " ");
        state.answered(picture(3, true), TopView::Clients);
        assert_eq!(state.now.as_ref().unwrap().at, Duration::from_secs(1), "it is paused");
        press(&mut state, " ");
        state.answered(picture(4, true), TopView::Clients);
        assert_eq!(state.before.as_ref().unwrap().at, Duration::from_secs(1));
        state.failed("gone".into(), Duration::from_secs(6));
        state.failed("still gone".into(), Duration::from_secs(8));
        assert_eq!(state.trouble, Some(("still gone".to_owned(), Duration::from_secs(6))));
    }
}
