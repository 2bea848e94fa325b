//! What goes wrong in a round, and when: decided by the seed alone, before anything runs.

use super::seed::Seed;

/// Nothing goes wrong before.
const FIRST_MS: u64 = 4000;
/// Nothing goes wrong in the end: everything is to be as it should by then.
const LAST_MS: u64 = 10_000;
/// A pause is longer than the lease, so that the gateway wakes up as one that was removed. So is the
/// silence of one that is not heard.
const PAUSE_MS: (u64, u64) = (4500, 6000);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL; started again after a while. `fresh`: at other addresses and under another name.
    Kill { gateway: usize, fresh: bool },
    /// SIGTERM; started again after a while.
    Stop { gateway: usize, fresh: bool },
    /// SIGSTOP, later SIGCONT.
    Pause { gateway: usize },
    /// One gateway more.
    Add,
    /// The register is killed and started again.
    Register,
    /// The register and a gateway are killed together; the register comes back first.
    Together { gateway: usize },
    /// A gateway is cut from the register alone, for longer than the lease.
    Unheard { gateway: usize },
    /// What one gateway dials to another; `both`: and the other way round.
    Cut { from: usize, to: usize, how: Cut, both: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Close,
    Blackhole,
    OnlyThere,
    OnlyBack,
    Delay { ms: u64 },
}

/// A fault, from when until when, in milliseconds of the round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub at_ms: u64,
    pub until_ms: u64,
    pub fault: Fault,
}

/// One fault after the other with quiet spells between them; each kind comes before any comes again.
pub fn schedule(seed: u64, gateways: usize, seconds: u64) -> Vec<Step> {
    let mut seed = Seed::of(seed, 1);
    let end_ms = (seconds * 1000).saturating_sub(LAST_MS);
    let mut steps = Vec::new();
    let (mut now_ms, mut gateways) = (FIRST_MS, gateways);
    loop {
        // A minute holds the first six, and one of the others.
        let mut kinds = [0, 1, 2, 3, 4, 5, 5 + seed.between(0, 3)];
        seed.shuffle(&mut kinds);
        for kind in kinds {
            let (fault, lasts_ms, mends_ms) = draw(&mut seed, kind, gateways);
            if now_ms + lasts_ms > end_ms {
                return steps;
            }
            if fault == Fault::Add {
                gateways += 1;
            }
            steps.push(Step { at_ms: now_ms, until_ms: now_ms + lasts_ms, fault });
            now_ms += lasts_ms + mends_ms;
        }
    }
}

/// A fault of this kind, how long it lasts, and how long a quiet spell it needs.
fn draw(seed: &mut Seed, kind: u64, gateways: usize) -> (Fault, u64, u64) {
    let (gateway, fresh) = (seed.below(gateways), seed.coin());
    match kind {
        // Sometimes back before the lease has ended, sometimes after.
        0 => (Fault::Kill { gateway, fresh }, seed.between(500, 4000), 4000),
        1 => (Fault::Stop { gateway, fresh }, seed.between(2000, 3000), 3000),
        2 => (Fault::Pause { gateway }, seed.between(PAUSE_MS.0, PAUSE_MS.1), 4000),
        3 => (Fault::Add, 500, 3000),
        4 => (Fault::Register, seed.between(300, 2500), 3000),
        6 => (Fault::Together { gateway }, seed.between(1000, 4000), 4000),
        7 => (Fault::Unheard { gateway }, seed.between(PAUSE_MS.0, PAUSE_MS.1), 4000),
        _ => {
            let to = (gateway + 1 + seed.below(gateways - 1)) % gateways;
            let how = match seed.below(5) {
                0 => Cut::Close,
                1 => Cut::Blackhole,
                2 => Cut::OnlyThere,
                3 => Cut::OnlyBack,
                _ => Cut::Delay { ms: seed.between(20, 400) },
            };
            (Fault::Cut { from: gateway, to, how, both: seed.coin() }, seed.between(1000, 4000), 3000)
        }
    }
}
