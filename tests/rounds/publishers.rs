//! The publishers: each sends at its pace through a gateway of its choice, repeats what is not
//! completely acknowledged, and writes every attempt down.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout_at},
};

use crate::{
    ground::Ground,
    record::{Attempt, Message, Micros, Name, Outcome},
    seed::Seed,
    wires::{Kind, Wires},
};

/// Sends of one publisher whose fate is open.
const IN_FLIGHT_MAX: usize = 1000;
/// First and repeated.
const ATTEMPTS_MAX: usize = 6;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(300);
/// A gateway that takes longer than the link timeout is left alone for a while.
const SUSPECT_AFTER: Duration = Duration::from_millis(2500);
const AVOID_FOR: Micros = 2_000_000;
const ANSWER_TIME_MAX: Duration = Duration::from_secs(6);
const PAYLOAD_BYTES: usize = 128;
const TICK: Duration = Duration::from_millis(10);

pub struct Publisher {
    pub number: u16,
    pub kind: Kind,
    /// The gateway that it sends through when it can.
    pub home: usize,
    pub per_second: f64,
    pub groups: usize,
    pub ground: Arc<Ground>,
}

/// What a publisher's sends share.
struct Line {
    ground: Arc<Ground>,
    home: usize,
    wires: Wires,
    /// Gateways that failed, and until when they are left alone.
    avoided: Mutex<HashMap<usize, Micros>>,
}

impl Publisher {
    /// Every message, when each one's fate is known.
    pub async fn publish(self, until_ms: u64) -> Vec<Message> {
        let line = Arc::new(Line {
            wires: Wires::new(self.kind, Arc::clone(&self.ground)),
            ground: Arc::clone(&self.ground),
            home: self.home,
            avoided: Mutex::default(),
        });
        let mut seed = Seed::of(self.ground.seed, 10 + u64::from(self.number));
        let room = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        let mut sends = JoinSet::new();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let end = self.ground.at(until_ms);
        let mut number = 0;
        let mut due = 0.0;
        while Instant::now() < end {
            tick.tick().await;
            due += self.per_second * TICK.as_secs_f64();
            while due >= 1.0 {
                due -= 1.0;
                let Ok(Ok(place)) = timeout_at(end, Arc::clone(&room).acquire_owned()).await else { break };
                let name = Name { publisher: self.number, number };
                number += 1;
                let group = u16::try_from(seed.below(self.groups)).unwrap();
                // The first attempt is begun here, so that it takes its place in the stream.
                let first = line.begin(name, group, line.home);
                let line = Arc::clone(&line);
                sends.spawn(async move {
                    let _place = place;
                    let attempts = line.see_through(name, group, first).await;
                    Message { name, group, attempts }
                });
            }
        }
        sends.join_all().await
    }
}

/// An attempt that has been begun.
struct Begun {
    gateway: usize,
    attempt: Attempt,
    outcome: futures_util::future::BoxFuture<'static, Outcome>,
}

impl Line {
    fn begin(&self, name: Name, group: u16, preferred: usize) -> Begun {
        let gateway = self.choose(preferred);
        let sent = self.ground.now();
        let (place, carried, outcome) = self.wires.send(gateway, &command_id(name), group, payload(name));
        let attempt = Attempt { sent, answered: 0, place, carried, outcome: Outcome::Unanswered };
        Begun { gateway, attempt, outcome }
    }

    /// To a complete receipt, or the last attempt.
    async fn see_through(&self, name: Name, group: u16, mut begun: Begun) -> Vec<Attempt> {
        let mut attempts: Vec<Attempt> = Vec::new();
        loop {
            let gateway = begun.gateway;
            let attempt = self.finish(begun).await;
            let good = match &attempt.outcome {
                Outcome::Receipt(receipt) => receipt.complete,
                Outcome::Refused(_) => true,
                Outcome::Unanswered => false,
            };
            let failed = attempt.outcome == Outcome::Unanswered;
            attempts.push(attempt);
            if good || attempts.len() == ATTEMPTS_MAX {
                return attempts;
            }
            sleep(BETWEEN_ATTEMPTS).await;
            begun = self.begin(name, group, if failed { gateway + 1 } else { gateway });
        }
    }

    async fn finish(&self, begun: Begun) -> Attempt {
        let Begun { gateway, mut attempt, mut outcome } = begun;
        let began = Instant::now();
        let soon = timeout_at(began + SUSPECT_AFTER, &mut outcome).await;
        attempt.outcome = match soon {
            Ok(outcome) => outcome,
            Err(_) => {
                self.avoid(gateway);
                timeout_at(began + ANSWER_TIME_MAX, outcome).await.unwrap_or(Outcome::Unanswered)
            }
        };
        attempt.answered = self.ground.now();
        if attempt.outcome == Outcome::Unanswered {
            self.avoid(gateway);
        }
        attempt
    }

    fn avoid(&self, gateway: usize) {
        self.avoided.lock().unwrap().insert(gateway, self.ground.now() + AVOID_FOR);
        self.wires.hang_up(gateway);
    }

    /// The preferred one or the next that is neither down nor avoided; any, if all are.
    fn choose(&self, preferred: usize) -> usize {
        let (gateways, now) = (self.ground.gateways(), self.ground.now());
        let avoided = self.avoided.lock().unwrap();
        let good = |gateway: &usize| {
            !gateways[*gateway].down && avoided.get(gateway).is_none_or(|until| *until < now)
        };
        let mut from = (preferred..preferred + gateways.len()).map(|gateway| gateway % gateways.len());
        from.find(good).or_else(|| self.ground.up_from(preferred)).unwrap_or(preferred % gateways.len())
    }
}

/// The same for every attempt.
fn command_id(name: Name) -> String {
    format!("p{}-{}", name.publisher, name.number)
}

fn payload(name: Name) -> String {
    let mut payload = format!("m {} {} ", name.publisher, name.number);
    let padding = PAYLOAD_BYTES.saturating_sub(payload.len());
    payload.extend(std::iter::repeat_n('.', padding));
    payload
}

/// None for what is no publisher's.
pub fn parse(payload: &str) -> Option<Name> {
    let mut words = payload.split(' ');
    words.next().filter(|first| *first == "m")?;
    Some(Name { publisher: words.next()?.parse().ok()?, number: words.next()?.parse().ok()? })
}
