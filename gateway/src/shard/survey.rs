//! The busiest groups, clients and apps of a shard, measured while somebody asks.
//!
//! A round looks at every place once, in slices between which the shard does everything else, and compares what was
//! counted there with the round before. However many ask, there is one round a second for each different question
//! ([`SurveyScope`]); an answer is taken from the last one.

use std::{
    collections::HashMap,
    rc::Rc,
    time::{Duration, Instant},
};

use broadgate_proto::{
    limits::{SURVEY_INTERVAL, SURVEY_SLICE, SURVEY_TIME, SURVEYS_MAX, TOP_ROWS_MAX},
    v1::{self, TopBy, answer::Answer},
};
use tokio::task::yield_now;
use tonic::Code;

use crate::{
    command::{TopQuestion, cut_top, refusal},
    shard::{
        group_traffic::{GroupRow, GroupTraffic},
        outcome::{PartialAnswer, error},
        slots::Slot,
        state::{Shard, ShardHandle},
        survey_round::{Before, ClientTraffic, Ranking, per_second, since},
        surveys::{Found, SurveyScope},
    },
};

/// Round after round, until nobody asks.
pub(super) async fn run(shard: ShardHandle, scope: Rc<SurveyScope>) {
    let mut rounds = Rounds::default();
    loop {
        let begun = Instant::now();
        let found = rounds.next(&shard, &scope, begun).await;
        let wanted = {
            let mut shard = shard.borrow_mut();
            let second = shard.second;
            shard.surveys.keep(&scope, found, second)
        };
        if !wanted {
            return;
        }
        tokio::time::sleep(SURVEY_INTERVAL.saturating_sub(begun.elapsed())).await;
    }
}

#[derive(Default)]
struct Rounds {
    last: Option<Instant>,
    groups: Before<GroupTraffic>,
    clients: Before<ClientTraffic>,
}

impl Rounds {
    async fn next(&mut self, shard: &ShardHandle, scope: &SurveyScope, begun: Instant) -> Found {
        let is_first = self.last.is_none();
        let measured_us = self.last.replace(begun).map_or(0, |last| micros(begun - last).max(1));
        let mut found = if scope.groups {
            self.groups(shard, scope.app.as_deref()).await
        } else {
            self.clients(shard, scope.app.as_deref()).await
        };
        if is_first {
            // There is nothing yet that it could be compared with.
            found = Found::default();
        }
        Found { measured_us, ..found }
    }

    async fn groups(&mut self, shard: &ShardHandle, app: Option<&str>) -> Found {
        let mut ranking = Ranking::<5>::default();
        let mut at = 0_u32;
        loop {
            {
                let directory = &shard.borrow().directory;
                let end = directory.places_of_topics();
                for place in at..end.min(at.saturating_add(SURVEY_SLICE)) {
                    let Some((traffic, members)) = directory.traffic(place, app) else {
                        self.groups.forget(place);
                        continue;
                    };
                    let [out, messages, bytes, drops] = traffic.since(self.groups.replace(place, traffic));
                    ranking.offer(place, [out, messages, bytes, drops, members]);
                }
                at = at.saturating_add(SURVEY_SLICE);
                if at >= end {
                    break;
                }
            }
            yield_now().await;
        }
        let directory = &shard.borrow().directory;
        let rows = ranking.into_places().into_iter();
        let groups = rows.filter_map(|(place, values)| Some((directory.group_at(place)?, values))).collect();
        Found { groups, ..Found::default() }
    }

    async fn clients(&mut self, shard: &ShardHandle, app: Option<&str>) -> Found {
        let mut ranking = Ranking::<5>::default();
        let mut apps: Vec<ClientTraffic> = Vec::new();
        let mut at = 0_u32;
        loop {
            {
                let shard = shard.borrow();
                let end = shard.clients.places();
                for slot in at..end.min(at.saturating_add(SURVEY_SLICE)) {
                    let client = shard.clients.get(slot).filter(|client| client.is_open());
                    let Some(client) = client.filter(|client| app.is_none_or(|app| *client.app == *app))
                    else {
                        self.clients.forget(slot);
                        continue;
                    };
                    let (received, sent) = (&client.received, &client.sent);
                    let now = [received.messages, sent.messages, received.bytes, sent.bytes];
                    let news = since(now, self.clients.replace(slot, now));
                    let [messages_in, messages_out, bytes_in, bytes_out] = news;
                    let waiting = client.outbox.bytes() as u64;
                    ranking.offer(slot, [messages_out, messages_in, bytes_out, waiting, bytes_in]);
                    if let Some(number) = shard.directory.app_number(slot) {
                        if apps.len() <= number {
                            apps.resize(number + 1, [0; 4]);
                        }
                        apps[number].iter_mut().zip(news).for_each(|(sum, news)| *sum += news);
                    }
                }
                at = at.saturating_add(SURVEY_SLICE);
                if at >= end {
                    break;
                }
            }
            yield_now().await;
        }
        let shard = shard.borrow();
        let rows = ranking.into_places().into_iter();
        let key = |slot| shard.clients.get(slot).map(|client| client.key);
        let clients = rows.filter_map(|(slot, values)| Some((slot, key(slot)?, values))).collect();
        Found { clients, apps, ..Found::default() }
    }
}

impl Shard {
    /// The busiest of this shard. The first shard answers for the gateway about the limits and refusals of apps.
    pub(super) fn top(&mut self, question: &TopQuestion) -> PartialAnswer {
        let mut reply = match question.by {
            TopBy::Callers => self.top_callers(question.app.as_deref()),
            TopBy::Workers | TopBy::Unspecified => self.top_workers(),
            TopBy::Groups | TopBy::Clients | TopBy::Apps => {
                // Of one app, its clients alone are looked at; of apps, all.
                let app = question.app.clone().filter(|_| question.by != TopBy::Apps);
                let scope = SurveyScope { groups: question.by == TopBy::Groups, app };
                let second = self.second;
                let mut surveys = std::mem::take(&mut self.surveys);
                let reply = surveys.asked(scope, second).map(|found| self.top_found(found, question));
                self.surveys = surveys;
                let Some(reply) = reply else {
                    let sentence = format!(
                        "{SURVEYS_MAX} different questions are measured already: ask about all apps, or again in {} s",
                        SURVEY_TIME.as_secs()
                    );
                    return error(refusal(Code::Unavailable, sentence));
                };
                reply
            }
        };
        cut_top(&mut reply, question.sort, TOP_ROWS_MAX);
        PartialAnswer::Answer(Answer::Top(reply))
    }

    fn top_found(&self, found: &Found, question: &TopQuestion) -> v1::TopReply {
        let us = found.measured_us;
        let measured_ms = u32::try_from(us.div_ceil(1000)).unwrap_or(u32::MAX);
        let mut reply = v1::TopReply { measured_ms, ..v1::TopReply::default() };
        match question.by {
            TopBy::Groups => reply.groups = found.groups.iter().map(|row| group(row, us)).collect(),
            TopBy::Clients => {
                reply.clients = found.clients.iter().filter_map(|row| self.client(row, us)).collect();
            }
            _ => reply.apps = self.apps(&found.apps, us, question.app.as_deref()),
        }
        reply
    }

    fn client(&self, (slot, key, values): &(Slot, u64, [u64; 5]), us: u64) -> Option<v1::TopClient> {
        let client = self.clients.get(*slot).filter(|client| client.key == *key && client.is_open())?;
        let [messages_out, messages_in, bytes_out, _, bytes_in] = values.map(|value| per_second(value, us));
        Some(v1::TopClient {
            client_id: self.clients.id_of(*slot).to_string(),
            app: client.app.to_string(),
            uid: self.directory.uid(*slot).map(ToString::to_string).unwrap_or_default(),
            gateway: self.name.to_string(),
            address: client.address.to_string(),
            messages_in_per_s: messages_in,
            messages_out_per_s: messages_out,
            bytes_in_per_s: bytes_in,
            bytes_out_per_s: bytes_out,
            outbox_bytes: client.outbox.bytes() as u64,
        })
    }

    fn apps(&self, traffic: &[ClientTraffic], us: u64, asked: Option<&str>) -> Vec<v1::TopApp> {
        let mut rows: HashMap<String, v1::TopApp> = HashMap::new();
        for (number, (app, clients)) in self.directory.apps().enumerate() {
            let [messages_in, messages_out, bytes_in, bytes_out] =
                traffic.get(number).copied().unwrap_or_default().map(|count| per_second(count, us));
            let row = v1::TopApp {
                app: app.to_string(),
                clients,
                messages_in_per_s: messages_in,
                messages_out_per_s: messages_out,
                bytes_in_per_s: bytes_in,
                bytes_out_per_s: bytes_out,
                ..v1::TopApp::default()
            };
            rows.insert(row.app.clone(), row);
        }
        if self.clients.shard == 0 {
            let row = |id: &str| v1::TopApp { app: id.to_owned(), ..v1::TopApp::default() };
            for app in self.config.apps.load().iter() {
                let known = rows.entry(app.id.clone()).or_insert_with(|| row(&app.id));
                known.connections_max = app.connections_max.into();
                known.connections_per_gateway_max = app.connections_per_gateway_max as u64;
            }
            for (app, count) in self.deps.refusals.iter().flat_map(|refusals| refusals.by_app()) {
                rows.entry(app.clone()).or_insert_with(|| row(&app)).refused = count;
            }
        }
        rows.into_values().filter(|row| asked.is_none_or(|asked| row.app == asked)).collect()
    }

    /// The first shard answers for the gateway.
    fn top_callers(&self, app: Option<&str>) -> v1::TopReply {
        let counts = self.deps.callers.as_ref().filter(|_| self.clients.shard == 0);
        let Some((mut callers, measured_ms)) = counts.map(|counts| counts.top(app)) else {
            return v1::TopReply { measured_ms: u32::MAX, ..v1::TopReply::default() };
        };
        for row in &mut callers {
            row.gateways = vec![self.name.to_string()];
        }
        v1::TopReply { measured_ms, callers, ..v1::TopReply::default() }
    }

    /// A gateway is counted by its first shard.
    fn top_workers(&self) -> v1::TopReply {
        let stats = super::queries::stats(&self.directory, &self.workers, &self.tally);
        let gateways = u32::from(self.clients.shard == 0);
        let workers = stats.workers.into_values().map(|worker| v1::WorkerStatus { gateways, ..worker });
        v1::TopReply {
            measured_ms: u32::try_from(SURVEY_INTERVAL.as_millis()).unwrap_or(u32::MAX),
            workers: workers.collect(),
            ..v1::TopReply::default()
        }
    }
}

fn group((row, values): &(GroupRow, [u64; 5]), us: u64) -> v1::TopGroup {
    let [deliveries, messages, bytes, drops, _] = values.map(|value| per_second(value, us));
    v1::TopGroup {
        app: row.app.to_string(),
        group: row.name.to_string(),
        home: String::new(),
        clients: values[4],
        messages_per_s: messages,
        deliveries_per_s: deliveries,
        bytes_per_s: bytes,
        drops_per_s: drops,
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
