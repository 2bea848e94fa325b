//! A history, put in order for the checker: who was where when, who was asked what, who got what.

use std::collections::{BTreeMap, BTreeSet};

use broadgate_proto::{id::Incarnation, v1::Epoch};
use broadgate_topics::{Topic, TopicPosition};

use super::history::{ClientNo, CmdNo, Fact, Outcome, Record, Wish};

/// A place in the history.
pub type Index = usize;
pub const NEVER: Index = Index::MAX;

/// A client's stay in a topic.
#[derive(Debug, Clone)]
pub struct Span {
    pub client: ClientNo,
    pub from: Index,
    pub to: Index,
    pub user: Option<String>,
}

#[derive(Debug, Clone)]
pub struct ClientLife {
    pub by: Incarnation,
    pub slow: Index,
    /// The workers were told, or its gateway ended.
    pub over: Index,
}

#[derive(Debug, Clone)]
pub struct Got {
    pub index: Index,
    pub topic: Topic,
    pub at: Option<TopicPosition>,
    pub cmd: CmdNo,
}

#[derive(Debug, Clone)]
pub struct Command {
    pub caller: usize,
    /// Through which host first.
    pub via: usize,
    pub wish: Wish,
    /// When it was made first, and what its caller knew then.
    pub made: Index,
    pub carried: Epoch,
    pub attempts: u32,
    /// How often a home was asked.
    pub asks: u32,
    pub answers: Vec<(Index, Outcome)>,
    /// Every place that it was given.
    pub places: BTreeSet<TopicPosition>,
}

impl Command {
    /// It was carried out in several places, by its caller's will or for want of an answer.
    pub fn is_repeat(&self) -> bool {
        self.attempts > 1 || self.places.len() > 1 || self.asks > 1
    }

    /// Its one topic, if it was sent to one.
    pub fn topic(&self) -> Option<&Topic> {
        match &self.wish {
            Wish::Send(topics) if topics.len() == 1 => topics.first(),
            Wish::Fire(topic) => Some(topic),
            _ => None,
        }
    }

    pub fn topics(&self) -> &[Topic] {
        match &self.wish {
            Wish::Send(topics) => topics,
            _ => &[],
        }
    }
}

/// An answered change: from then on, and by that epoch, it must be seen.
#[derive(Debug, Clone)]
pub struct Known {
    pub index: Index,
    pub epoch: Epoch,
    pub client: ClientNo,
}

#[derive(Debug, Default)]
pub struct Model {
    pub clients: BTreeMap<ClientNo, ClientLife>,
    pub spans: BTreeMap<Topic, Vec<Span>>,
    pub commands: BTreeMap<CmdNo, Command>,
    pub gots: BTreeMap<ClientNo, Vec<Got>>,
    pub joined: BTreeMap<Topic, Vec<Known>>,
    pub left: BTreeMap<Topic, Vec<Known>>,
    /// When a gateway was missing in a view for the first time.
    pub removed: BTreeMap<Incarnation, Index>,
    pub quiet: Option<Index>,
}

impl Model {
    pub fn of(history: &[Record]) -> Self {
        let mut model = Self::default();
        let mut seen: BTreeMap<Incarnation, Epoch> = BTreeMap::new();
        for (index, record) in history.iter().enumerate() {
            match &record.fact {
                Fact::Installed { epoch, gateways, .. } => {
                    for gateway in gateways {
                        seen.entry(*gateway).or_insert(*epoch);
                    }
                    for (gateway, since) in &seen {
                        if since < epoch && !gateways.contains(gateway) {
                            model.removed.entry(*gateway).or_insert(index);
                        }
                    }
                }
                Fact::Quiet { .. } => model.quiet = Some(index),
                Fact::Placing { cmd, at, .. } => {
                    if let Some(command) = model.commands.get_mut(cmd) {
                        command.places.insert(*at);
                    }
                }
                Fact::Asked { cmd } => {
                    if let Some(command) = model.commands.get_mut(cmd) {
                        command.asks += 1;
                    }
                }
                Fact::Made { .. } | Fact::Answered { .. } => model.command(index, &record.fact),
                fact => model.client(index, fact),
            }
        }
        model
    }

    fn client(&mut self, index: Index, fact: &Fact) {
        match fact {
            Fact::Opened { client, by, .. } => {
                let life = ClientLife { by: *by, slow: NEVER, over: NEVER };
                self.clients.insert(*client, life);
            }
            Fact::Closed { client } => self.over(*client, index),
            Fact::Ended { by } => {
                let there = self.clients.iter().filter(|(_, life)| life.by == *by && life.over == NEVER);
                for client in there.map(|(client, _)| *client).collect::<Vec<_>>() {
                    self.over(client, index);
                }
            }
            Fact::Slow { client } => {
                if let Some(life) = self.clients.get_mut(client) {
                    life.slow = index;
                }
            }
            Fact::In { client, topic, user } => {
                let span = Span { client: *client, from: index, to: NEVER, user: user.clone() };
                self.spans.entry(topic.clone()).or_default().push(span);
            }
            Fact::Out { client, topic } => {
                for span in self.spans.entry(topic.clone()).or_default() {
                    if span.client == *client && span.to == NEVER {
                        span.to = index;
                    }
                }
            }
            Fact::Got { client, topic, at, cmd } => {
                let got = Got { index, topic: topic.clone(), at: *at, cmd: *cmd };
                self.gots.entry(*client).or_default().push(got);
            }
            _ => {}
        }
    }

    fn over(&mut self, client: ClientNo, index: Index) {
        if let Some(life) = self.clients.get_mut(&client) {
            life.over = life.over.min(index);
        }
        for span in self.spans.values_mut().flatten() {
            if span.client == client && span.to == NEVER {
                span.to = index;
            }
        }
    }

    fn command(&mut self, index: Index, fact: &Fact) {
        match fact {
            Fact::Made { cmd, caller, via, attempt, carried, wish } => {
                let command = self.commands.entry(*cmd).or_insert_with(|| Command {
                    caller: *caller,
                    via: *via,
                    wish: wish.clone(),
                    made: index,
                    carried: *carried,
                    attempts: 0,
                    asks: 0,
                    answers: Vec::new(),
                    places: BTreeSet::new(),
                });
                command.attempts = command.attempts.max(*attempt);
            }
            Fact::Answered { cmd, outcome, .. } => {
                let Some(command) = self.commands.get_mut(cmd) else { return };
                command.answers.push((index, outcome.clone()));
                let known = |client| Known { index, epoch: outcome.epoch(), client };
                match &command.wish {
                    _ if !outcome.complete() => {}
                    Wish::Join(client, topic, _)
                    | Wish::Bind(client, topic)
                    | Wish::Exclusive(client, topic) => {
                        self.joined.entry(topic.clone()).or_default().push(known(*client));
                    }
                    Wish::Leave(client, topic) => {
                        self.left.entry(topic.clone()).or_default().push(known(*client));
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// Stays of which a command made then, with that knowledge, must know until `until`.
    pub fn known_stays<'a>(
        &'a self,
        topic: &'a Topic,
        made: Index,
        carried: Epoch,
        until: Index,
    ) -> impl Iterator<Item = &'a Span> + 'a {
        let known = self.joined.get(topic).into_iter().flatten();
        let known = known.filter(move |known| known.index < made && known.epoch <= carried);
        known.filter_map(move |known| {
            let spans = self.spans.get(topic)?;
            let covers =
                |span: &&Span| span.client == known.client && span.from < known.index && span.to > until;
            let span = spans.iter().find(covers)?;
            (!self.is_removed(span.client, until)).then_some(span)
        })
    }

    /// Its gateway was out of the view by then.
    pub fn is_removed(&self, client: ClientNo, by: Index) -> bool {
        let gateway = self.clients.get(&client).map(|life| life.by);
        gateway.is_some_and(|gateway| self.removed.get(&gateway).is_some_and(|removed| *removed < by))
    }

    /// Stays that an answer in that time may count: those that may have been, and those that have ended
    /// without an answer that says so.
    pub fn possible_stays<'a>(
        &'a self,
        topic: &'a Topic,
        made: Index,
        carried: Epoch,
        until: Index,
    ) -> impl Iterator<Item = &'a Span> + 'a {
        let left = self.left.get(topic);
        self.spans.get(topic).into_iter().flatten().filter(move |span| {
            let over = left.into_iter().flatten().any(|known| {
                known.client == span.client
                    && known.epoch <= carried
                    && span.to < known.index
                    && known.index < made
            });
            span.from < until && (span.to > made || !over)
        })
    }

    /// Who is in a topic at one moment, and until another at least.
    pub fn members(&self, topic: &Topic, from: Index, until: Index) -> BTreeSet<ClientNo> {
        let spans = self.spans.get(topic).into_iter().flatten();
        spans.filter(|span| span.from < from && span.to > until).map(|span| span.client).collect()
    }

    /// Who is in a topic at any moment in between.
    pub fn visitors(&self, topic: &Topic, from: Index, until: Index) -> BTreeSet<ClientNo> {
        let spans = self.spans.get(topic).into_iter().flatten();
        spans.filter(|span| span.from < until && span.to > from).map(|span| span.client).collect()
    }

    pub fn users(&self, topic: &Topic, from: Index, until: Index, throughout: bool) -> BTreeSet<String> {
        let spans = self.spans.get(topic).into_iter().flatten();
        let fits = |span: &&Span| {
            if throughout { span.from < from && span.to > until } else { span.from < until && span.to > from }
        };
        spans.filter(fits).filter_map(|span| span.user.clone()).collect()
    }
}
