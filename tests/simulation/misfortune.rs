//! What goes wrong in a script, and what that does to the ledger and its registers.

use std::time::Duration;

use super::{
    net::{OTHER_REGISTER, REGISTER},
    rng::Rng,
    script::{Action, Script},
    world::{Event, World},
};

/// So long after a fault a gateway may still be removed for it: its lease ends, others take over.
pub const SUSPICION: Duration = Duration::from_secs(15);

impl Script {
    pub fn fault(&self, rng: &mut Rng) -> Action {
        let (host, other) = (rng.index(self.hosts), rng.index(self.hosts));
        let [from, to] = if rng.percent(20) {
            if rng.percent(50) { [host, REGISTER] } else { [REGISTER, host] }
        } else {
            [host, (host + 1 + other % (self.hosts - 1)) % self.hosts]
        };
        let millis = [300, 1500, 2500, 5000, 8000][rng.index(5)] + rng.below(500);
        match rng.below(100) {
            0..10 => Action::Crash { host, silently: rng.percent(50) },
            10..32 => Action::Start { host, ring_version: 1 + u32::from(rng.percent(15)) },
            32..38 => Action::Drain { host },
            38..50 => Action::Pause { host, millis },
            50..68 => Action::Hole { from, to, millis },
            68..78 => Action::Reset { from, to },
            78..85 => {
                let but = (host + 1 + other % (self.hosts - 1)) % self.hosts;
                Action::Island { host, but, by_millis: rng.between(5, 1800), millis }
            }
            85..93 => Action::Delay { from, to, by_millis: [50, 400, 1500][rng.index(3)], millis },
            _ => Action::RegisterStop { millis },
        }
    }

    /// Somebody is left: what is known to nobody cannot be told.
    pub fn misfortune(&self, alive: &mut [bool], rng: &mut Rng) -> Action {
        let host = rng.index(self.hosts);
        let others = alive.iter().enumerate().any(|(other, alive)| *alive && other != host);
        let kind = if others { rng.below(3) } else { 0 };
        alive[host] = kind == 0;
        match kind {
            0 => Action::Start { host, ring_version: 1 },
            1 => Action::Crash { host, silently: rng.percent(50) },
            _ => Action::Drain { host },
        }
    }

    /// Mostly of the registers and the ways to them.
    pub fn register_fault(&self, rng: &mut Rng) -> Action {
        let host = rng.index(self.hosts);
        let register = [REGISTER, OTHER_REGISTER][rng.index(2)];
        let [from, to] = if rng.percent(50) { [host, register] } else { [register, host] };
        let millis = [300, 1500, 2500, 5000, 8000][rng.index(5)] + rng.below(500);
        match rng.below(10) {
            0 => self.fault(rng),
            1 => Action::Crash { host, silently: rng.percent(50) },
            2..4 => Action::Start { host, ring_version: 1 },
            4 => Action::RegisterStop { millis },
            5 => Action::OtherRegisterStop { millis },
            6..9 => Action::Hole { from, to, millis },
            _ => Action::Delay { from, to, by_millis: [50, 400, 1500][rng.index(3)], millis },
        }
    }

    /// Of the registers, their ledger, and gateways, which make new views.
    pub fn ledger_fault(&self, forgets: bool, rng: &mut Rng) -> Action {
        let (host, no) = (rng.index(self.hosts), rng.index(3));
        let millis = [300, 1500, 2500, 5000, 8000][rng.index(5)] + rng.below(500);
        match rng.below(100) {
            0..4 => self.fault(rng),
            4..10 => Action::Crash { host, silently: rng.percent(50) },
            10..32 => Action::Start { host, ring_version: 1 },
            32..36 => Action::Drain { host },
            36..50 => Action::LeaderStop { millis },
            50..60 => Action::LeaderPause { millis },
            60..66 => Action::RegisterPause { no, millis },
            66..74 => Action::LedgerAway { millis },
            74..82 => Action::LedgerTroubled { millis },
            82..92 => Action::LedgerRevokes,
            92..96 if forgets => Action::LedgerForgets { writes: rng.between(1, 4) as usize },
            96..100 if forgets => {
                Action::LedgerRestored { back: rng.between(1, 20) as usize, leader_too: rng.percent(50) }
            }
            _ => Action::Start { host, ring_version: 1 },
        }
    }
}

impl World {
    /// Notes whether somebody may look dead from now on.
    pub fn suspect(&mut self, what: &Action) {
        if let Action::Pause { millis, .. }
        | Action::Island { millis, .. }
        | Action::Hole { millis, .. }
        | Action::Delay { millis, .. } = what
        {
            let until = self.now + Duration::from_millis(*millis) + SUSPICION;
            self.suspect_until = self.suspect_until.max(until);
        }
    }

    /// The registers that share a ledger, and the ledger.
    pub fn ledger_suffers(&mut self, what: &Action) {
        match *what {
            Action::LeaderStop { millis } => {
                if let Some(no) = self.leading_register() {
                    self.register_stops(no);
                    self.after(Duration::from_millis(millis), Event::RegisterUp { no });
                }
            }
            Action::LeaderPause { millis } => {
                if let Some(no) = self.leading_register() {
                    self.register_pauses(no, Duration::from_millis(millis));
                }
            }
            Action::RegisterPause { no, millis } => self.register_pauses(no, Duration::from_millis(millis)),
            Action::LedgerAway { millis } => {
                self.ledger.is_away_until(self.now + Duration::from_millis(millis))
            }
            Action::LedgerTroubled { millis } => {
                self.ledger.is_troubled_until(self.now + Duration::from_millis(millis));
            }
            Action::LedgerRevokes => self.ledger.revoke(),
            Action::LedgerForgets { writes } => self.ledger_goes_back(writes, true),
            Action::LedgerRestored { back, leader_too } => self.ledger_goes_back(back, leader_too),
            _ => {}
        }
    }
}
