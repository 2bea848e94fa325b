//! Messages to groups, as fast as the window allows or at a rate, and what became of them.

use std::time::{Duration, Instant};

use broadgate::failure::Failure;
use clap::Args;
use serde_json::{Value, json};

use crate::{
    engine::{Engine, Tally},
    load::{Load, Sender, latency_json, latency_text, progress},
    meter::{Meter, Used},
    publish::{
        self,
        to::{Publisher, To},
    },
};

/// Without a delivery for this long, what is missing is lost.
const SILENCE_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Args)]
pub(super) struct Messages {
    /// Payload bytes
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(16..=60_000))]
    pub(super) size: u32,
    /// Maximum number of messages sent and not yet received by all
    #[arg(long, default_value_t = 8)]
    pub(super) in_flight: usize,
    /// Number of messages
    #[arg(long, default_value_t = 2000)]
    pub(super) messages: u64,
    /// Messages per second [default: as many as the window allows]
    #[arg(long)]
    pub(super) rate: Option<f64>,
}

/// What became of a run.
pub(super) struct Outcome {
    pub(super) clients: u64,
    pub(super) sent: u64,
    /// Deliveries that there should have been.
    pub(super) due: u64,
    pub(super) took: Duration,
    pub(super) tally: Tally,
    pub(super) used: Used,
}

/// Sends to the engine's groups in turn, and waits until all clients have everything.
pub(super) fn run(
    engine: &mut Engine,
    load: &Load,
    sender: &Sender,
    messages: &Messages,
) -> Result<Outcome, Failure> {
    let plan = std::sync::Arc::clone(&engine.plan);
    let Some(target) = plan.targets.first().cloned() else {
        return Err(Failure::usage("--url is missing"));
    };
    let receivers = engine.receivers();
    let meter = Meter::start(&load.pid, engine.part_pids())?;
    let began = Instant::now();
    let to = To { sender, target, groups: &plan.group_names, size: messages.size as usize };
    let sent = engine.during(|| {
        let mut publisher = publish::open(to)?;
        let sent = send(&plan.window, publisher.as_mut(), messages, &receivers)?;
        wait_for_all(&plan.window, publisher.as_mut(), sent);
        Ok(sent)
    })?;
    let took = began.elapsed();
    let used = meter.read()?;
    let due = (0..sent).map(|number| receivers[(number % receivers.len() as u64) as usize].1).sum();
    let clients = receivers.iter().map(|(_, members)| members).sum();
    Ok(Outcome { clients, sent, due, took, tally: engine.tally()?, used })
}

/// Sends with at most so many messages in flight; returns how many were sent.
fn send(
    window: &super::engine::Window,
    publisher: &mut dyn Publisher,
    messages: &Messages,
    receivers: &[(u32, u64)],
) -> Result<u64, Failure> {
    let bar = progress(messages.messages, "sending");
    window.wake_by(publisher.waker());
    let began = Instant::now();
    let mut sent = 0;
    while sent < messages.messages {
        let room = window.room(sent, SILENCE_MAX, |time| publisher.rest(time));
        let mut room = room.min(publisher.batch_max()).min(messages.messages - sent);
        if room == 0 {
            // Nothing was delivered for long: what is missing will be counted as lost.
            break;
        }
        if let Some(rate) = messages.rate {
            let due = began + Duration::from_secs_f64(sent as f64 / rate);
            while let wait = due.saturating_duration_since(Instant::now())
                && !wait.is_zero()
            {
                publisher.rest(wait);
            }
            room = 1;
        }
        for number in sent..sent + room {
            window.sending(number, receivers[(number % receivers.len() as u64) as usize].0);
        }
        publisher.publish(sent..sent + room)?;
        sent += room;
        bar.set_position(sent);
    }
    bar.finish_and_clear();
    Ok(sent)
}

fn wait_for_all(window: &super::engine::Window, publisher: &mut dyn Publisher, sent: u64) {
    let mut before = window.completed();
    let mut moved = Instant::now();
    while before < sent && moved.elapsed() < SILENCE_MAX {
        publisher.rest(Duration::from_millis(1));
        let now = window.completed();
        if now != before {
            (before, moved) = (now, Instant::now());
        }
    }
}

impl Outcome {
    pub(super) fn missing(&self) -> u64 {
        self.due.saturating_sub(self.tally.delivered)
    }

    pub(super) fn rate(&self) -> f64 {
        self.tally.delivered as f64 / self.took.as_secs_f64()
    }

    fn per_delivery(&self, cpu_s: f64) -> f64 {
        cpu_s * 1e6 / self.tally.delivered.max(1) as f64
    }

    pub(super) fn json(&self, messages: &Messages) -> Value {
        let tally = &self.tally;
        json!({
            "clients": self.clients, "size": messages.size, "in_flight": messages.in_flight,
            "messages": self.sent, "delivered": tally.delivered, "deliveries_per_s": self.rate(),
            "seconds": self.took.as_secs_f64(), "missing": self.missing(), "lost": tally.lost,
            "doubled": tally.doubled, "disordered": tally.disordered, "closed": tally.closed,
            "server_cpu_us_per_delivery": self.used.server_cpu_s.map(|cpu| self.per_delivery(cpu)),
            "load_cpu_us_per_delivery": self.per_delivery(self.used.load_cpu_s),
            "latency": latency_json(&tally.latency),
        })
    }

    pub(super) fn text(&self, messages: &Messages) -> String {
        let tally = &self.tally;
        let server = self.used.server_cpu_s.map(|cpu| format!("server {:.2}, ", self.per_delivery(cpu)));
        format!(
            "sent     {} messages of {} bytes to {} clients, {} in flight\n\
             received {} in {:.2} s: {:.0} deliveries/s\n\
             missing {}, lost {}, doubled {}, out of order {}, clients closed {}\n\
             cpu      {}load {:.2} µs/delivery\n{}",
            self.sent,
            messages.size,
            self.clients,
            messages.in_flight,
            tally.delivered,
            self.took.as_secs_f64(),
            self.rate(),
            self.missing(),
            tally.lost,
            tally.doubled,
            tally.disordered,
            tally.closed,
            server.unwrap_or_default(),
            self.per_delivery(self.used.load_cpu_s),
            latency_text(&tally.latency),
        )
    }

    /// Was every message heard once, in order?
    pub(super) fn check(&self) -> Result<(), Failure> {
        let tally = &self.tally;
        if self.missing() + tally.lost + tally.doubled + tally.disordered > 0 {
            return Err(Failure::Failed("messages were lost, doubled or out of order".to_owned()));
        }
        Ok(())
    }
}
