//! Which surveys of a shard run, for how long, and what each has found. Pure.

use std::rc::Rc;

use broadgate_proto::limits::{SURVEY_TIME, SURVEYS_MAX};

use crate::shard::{group_traffic::GroupRow, slots::Slot, survey_round::ClientTraffic};

/// Of what is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SurveyScope {
    /// Groups; else clients, and with them apps.
    pub(super) groups: bool,
    /// None means every app.
    pub(super) app: Option<Box<str>>,
}

/// The surveys of a shard, [`SURVEYS_MAX`] at most.
#[derive(Default)]
pub(crate) struct Surveys {
    running: Vec<Survey>,
    /// Those that nobody has begun yet.
    new: Vec<Rc<SurveyScope>>,
}

struct Survey {
    scope: Rc<SurveyScope>,
    /// The second of the last question.
    asked: u32,
    found: Found,
}

/// What the last round has found.
#[derive(Default)]
pub(super) struct Found {
    /// Since the round before; 0 after the first.
    pub(super) measured_us: u64,
    /// Copies, messages, bytes, drops, members.
    pub(super) groups: Vec<(GroupRow, [u64; 5])>,
    /// By their slots and keys: messages out and in, bytes out, bytes that wait, bytes in.
    pub(super) clients: Vec<(Slot, u64, [u64; 5])>,
    /// By their numbers.
    pub(super) apps: Vec<ClientTraffic>,
}

impl Surveys {
    /// The survey that answers a question, begun if there is none; none if too many run.
    pub(super) fn asked(&mut self, scope: SurveyScope, second: u32) -> Option<&Found> {
        let known = self.running.iter().position(|survey| *survey.scope == scope);
        let at = match known {
            Some(at) => at,
            None if self.running.len() == SURVEYS_MAX => return None,
            None => {
                let scope = Rc::new(scope);
                self.new.push(Rc::clone(&scope));
                self.running.push(Survey { scope, asked: second, found: Found::default() });
                self.running.len() - 1
            }
        };
        let survey = &mut self.running[at];
        survey.asked = second;
        Some(&survey.found)
    }

    /// Those that are to be begun: each by [`run`], as a task of its own.
    pub(super) fn take_new(&mut self) -> Vec<Rc<SurveyScope>> {
        std::mem::take(&mut self.new)
    }

    /// Keeps what a round has found; false if nobody has asked for long.
    pub(super) fn keep(&mut self, scope: &Rc<SurveyScope>, found: Found, second: u32) -> bool {
        let Some(at) = self.running.iter().position(|survey| Rc::ptr_eq(&survey.scope, scope)) else {
            return false;
        };
        let survey = &mut self.running[at];
        survey.found = found;
        let wanted = u64::from(second.saturating_sub(survey.asked)) <= SURVEY_TIME.as_secs();
        if !wanted {
            self.running.swap_remove(at);
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(app: &str) -> SurveyScope {
        SurveyScope { groups: true, app: Some(app.into()) }
    }

    #[test]
    fn a_survey_is_begun_once_and_ends_when_nobody_asks() {
        let mut surveys = Surveys::default();
        assert_eq!(surveys.asked(scope("a"), 1).map(|found| found.measured_us), Some(0));
        assert!(surveys.asked(scope("a"), 2).is_some());
        let new = surveys.take_new();
        assert_eq!((new.len(), surveys.take_new().len()), (1, 0));
        let found = |measured_us| Found { measured_us, ..Found::default() };
        assert!(surveys.keep(&new[0], found(5), 12));
        assert_eq!(surveys.asked(scope("a"), 3).map(|found| found.measured_us), Some(5));
        assert!(surveys.keep(&new[0], found(6), 13), "it was asked for ten seconds ago");
        assert!(!surveys.keep(&new[0], found(7), 14));
        assert!(surveys.asked(scope("a"), 14).is_some() && surveys.take_new().len() == 1, "it begins again");
        assert!(!surveys.keep(&new[0], found(8), 14), "the former one does not come back");
    }

    #[test]
    fn only_so_many_run() {
        let mut surveys = Surveys::default();
        for number in 0..SURVEYS_MAX {
            assert!(surveys.asked(scope(&number.to_string()), 1).is_some());
        }
        assert!(surveys.asked(scope("one more"), 1).is_none());
        assert!(surveys.asked(scope("0"), 1).is_some());
        let new = surveys.take_new();
        assert!(!surveys.keep(&new[3], Found::default(), 99));
        assert!(surveys.asked(scope("one more"), 99).is_some());
    }
}
