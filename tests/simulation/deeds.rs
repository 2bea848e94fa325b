//! Does what a script says.

use std::time::Duration;

use super::{
    history::{CmdNo, Wish},
    net::REGISTERS,
    script::{Action, Step},
    world::{Event, World},
};

impl World {
    /// What the script says now.
    pub fn step(&mut self, index: usize) {
        if self.healed {
            return;
        }
        let Step { no, what, .. } = self.script.steps[index].clone();
        self.tell(&"step", &what);
        let cmd: CmdNo = no * 16;
        self.suspect(&what);
        match what {
            Action::Start { host, ring_version } => self.start_gateway(host, ring_version),
            Action::Crash { host, silently } => self.crash(host, silently),
            Action::Drain { host } => self.drain(host),
            Action::Pause { host, millis } => self.pause(host, Duration::from_millis(millis)),
            Action::Hole { from, to, millis } => {
                self.cut(from, to);
                self.after(Duration::from_millis(millis), Event::Mend { from, to });
            }
            Action::Reset { from, to } => self.reset(from, to),
            Action::Delay { from, to, by_millis, millis } => {
                self.path(from, to).slow = Duration::from_millis(by_millis);
                self.after(Duration::from_millis(millis), Event::Quick { from, to });
            }
            Action::Island { host, but, by_millis, millis } => {
                for other in (0..self.hosts.len()).chain(REGISTERS).filter(|other| *other != host) {
                    for (from, to) in [(host, other), (other, host)] {
                        let millis = Duration::from_millis(millis);
                        if other == but {
                            self.path(from, to).slow = Duration::from_millis(by_millis);
                            self.after(millis, Event::Quick { from, to });
                        } else {
                            self.cut(from, to);
                            self.after(millis, Event::Mend { from, to });
                        }
                    }
                }
            }
            Action::RegisterStop { millis } => {
                self.register_stops(0);
                self.after(Duration::from_millis(millis), Event::RegisterUp { no: 0 });
            }
            Action::OtherRegisterStop { millis } => {
                self.register_stops(1);
                self.after(Duration::from_millis(millis), Event::RegisterUp { no: 1 });
            }
            Action::LeaderStop { .. }
            | Action::LeaderPause { .. }
            | Action::RegisterPause { .. }
            | Action::LedgerAway { .. }
            | Action::LedgerTroubled { .. }
            | Action::LedgerRevokes
            | Action::LedgerForgets { .. }
            | Action::LedgerRestored { .. } => self.ledger_suffers(&what),
            Action::FalseReport { term } => self.register_hears_false_report(term),
            Action::Connect { person, host } => self.connect_client(person, host),
            Action::Close { person } => self.person_closes(person),
            Action::Slow { person } => {
                if let Some(client) = self.slots[person] {
                    self.slow_down(client);
                }
            }
            Action::Move { caller, host } => self.move_caller(caller, host),
            Action::Send { caller, topics, times } => {
                for more in 0..times {
                    self.wish(caller, cmd + more, Wish::Send(topics.clone()));
                }
            }
            Action::Fire { caller, topic } => self.wish(caller, cmd, Wish::Fire(topic)),
            Action::JoinAll { caller, uid, group } => self.wish(caller, cmd, Wish::JoinAll(uid, group)),
            Action::Count { caller, topic } => self.wish(caller, cmd, Wish::Count(topic)),
            Action::Roster { caller, topic } => self.wish(caller, cmd, Wish::Roster(topic)),
            Action::Join { person, .. }
            | Action::Leave { person, .. }
            | Action::Bind { person, .. }
            | Action::Exclusive { person, .. } => self.about(person, cmd, what),
        }
    }

    fn about(&mut self, person: usize, cmd: CmdNo, what: Action) {
        let Some(client) = self.slots[person] else { return };
        match what {
            Action::Join { caller, topic, user, .. } => {
                self.wish(caller, cmd, Wish::Join(client, topic, user))
            }
            Action::Leave { caller, topic, .. } => self.wish(caller, cmd, Wish::Leave(client, topic)),
            Action::Bind { caller, topic, .. } => self.wish(caller, cmd, Wish::Bind(client, topic)),
            Action::Exclusive { caller, topic, .. } => self.wish(caller, cmd, Wish::Exclusive(client, topic)),
            _ => {}
        }
    }

    fn person_closes(&mut self, person: usize) {
        let Some(client) = self.slots[person] else { return };
        let by = self.clients[client as usize].by;
        if let Some(host) = self.host_of(by).filter(|host| self.hosts[*host].paused.is_none()) {
            self.close_client(host, client);
        }
    }
}
