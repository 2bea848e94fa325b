//! Executing the effects of one turn of the actor.

use std::sync::Arc;

use broadgate_proto::{id::Incarnation, view};
use broadgate_topics::{Effect, LinkMessage, ReplyTo};
use metrics::counter;

use crate::{
    cluster::{
        actor::{Actor, Waiter},
        gathered::Placement,
        handle::{ClusterEvent, Routed},
    },
    command::{GatewayContent, ParsedCommand, sign_hops},
    refusals::now_ms,
    shard::Notice,
};

impl Actor {
    pub(super) fn effect(&mut self, effect: Effect<GatewayContent>) {
        match effect {
            Effect::Send(peer, frame) => self.say(peer, frame),
            Effect::Place { back, command, at, .. } => {
                command.parsed.place_at(at);
                self.turn.places.push(Placement::Command(back, Arc::clone(&command.parsed)));
            }
            Effect::Answer(ticket, reply) => {
                if let Some(caller) = self.callers.remove(&ticket) {
                    // The caller may have given up.
                    let _ = caller.send(Routed::Reply(reply));
                }
            }
            Effect::NoHome(ticket) => {
                counter!("broadgate_gateway_sends_without_home_total").increment(1);
                if let Some(caller) = self.callers.remove(&ticket) {
                    let _ = caller.send(Routed::NoHome);
                }
            }
            Effect::Settled(ticket, missing) => {
                if let Some(caller) = self.settling.remove(&ticket) {
                    let _ = caller.send(missing);
                }
            }
            // In order with everything else that is placed: an entering client gets each change once.
            Effect::Present { topic, members } => {
                self.turn.places.push(Placement::Notice(Notice::Present { topic, members }));
            }
            Effect::Entered(ticket, topic, entered) => match self.entering.remove(&ticket) {
                Some(Waiter::Client(client)) => {
                    self.turn.places.push(Placement::Notice(Notice::Entered { client, topic, entered }));
                }
                Some(Waiter::Claim(reply)) => drop(reply.send(entered.refused)),
                None => {}
            },
            Effect::Group(topic, change) => self.watchers.note(topic, change),
            Effect::Report { topic, report, awaited } => self.reports.note(self.me, topic, report, awaited),
            Effect::Ordered(topic, job) => self.reports.note_ordered(&topic, &job),
            Effect::Notified { topic, whole, notified } => {
                self.deps.journal.iter().for_each(|journal| journal.record(&topic, whole, notified.clone()));
            }
            Effect::Unheard(job) => {
                if let Some(note) = job.parsed.sent_note(now_ms()) {
                    self.deps.unheard.record(&note);
                }
            }
            Effect::Missed(topic) => self.reports.note_missed(topic),
            Effect::GroupsComplete(epoch) => self.watchers.note_complete(epoch),
            Effect::Installed(view) => {
                self.links.retain(|peer, _| self.core.knows(*peer));
                self.sessions.retain(|peer, (_, cut)| {
                    let stays = self.core.knows(*peer);
                    if !stays {
                        cut.cancel();
                    }
                    stays
                });
                if self.alarm.view(&view, self.started.elapsed()) {
                    tracing::error!(
                        gateways = view::gateways(&view).count(),
                        "more than half of the gateways have vanished within one lease"
                    );
                }
                if let Some(journal) = &self.deps.journal {
                    let gateways = view::gateways(&view).filter_map(|one| one.incarnation.parse().ok());
                    journal.view(self.me, gateways.collect());
                }
                (self.deps.installed)(&view);
            }
            Effect::ResetPeer(peer, why) => {
                tracing::warn!(%peer, why, "peer state mismatch: resetting both links and resyncing");
                counter!("broadgate_gateway_peer_resyncs_total").increment(1);
                self.drop_link(peer);
                if let Some((_, cut)) = self.sessions.get(&peer) {
                    cut.cancel();
                }
            }
            Effect::Dropped(reason) => {
                counter!("broadgate_gateway_homes_drops_total", "reason" => reason).increment(1)
            }
        }
    }

    /// Sends a frame at the end of the turn.
    pub(super) fn say(&mut self, peer: Incarnation, frame: LinkMessage<GatewayContent>) {
        let numbers = self.links.get(&peer).is_some_and(|link| link.numbers);
        self.turn.say(peer, frame, numbers);
    }

    /// Without its sender, the link's task closes the connection, reports that, and dials again.
    fn drop_link(&mut self, peer: Incarnation) {
        self.turn.messages.remove(&peer);
        if let Some(link) = self.links.get_mut(&peer) {
            link.batches = tokio::sync::mpsc::channel(1).0;
        }
    }

    pub(super) async fn act(&mut self) {
        self.watchers.send();
        for (peer, batch) in std::mem::take(&mut self.turn.messages) {
            let Some(link) = self.links.get(&peer) else { continue };
            if link.batches.try_send(batch).is_err() {
                // Nothing on a link may be omitted: a link that is not read is closed, and resyncs when it is
                // open again.
                counter!("broadgate_gateway_homes_drops_total", "reason" => "link_stuck").increment(1);
                self.drop_link(peer);
            }
        }
        if !self.turn.places.is_empty() {
            self.place().await;
        }
    }

    /// Puts placings into the mailboxes, in order.
    async fn place(&mut self) {
        let (mut commands, mut notices) = (Vec::new(), Vec::new());
        for placement in std::mem::take(&mut self.turn.places) {
            match placement {
                Placement::Command(back, parsed) => {
                    if !notices.is_empty() {
                        self.deps.shards.notify(std::mem::take(&mut notices)).await;
                    }
                    commands.push((back, parsed));
                }
                Placement::Notice(notice) => {
                    if !commands.is_empty() {
                        self.place_commands(std::mem::take(&mut commands)).await;
                    }
                    notices.push(notice);
                }
            }
        }
        if !notices.is_empty() {
            self.deps.shards.notify(notices).await;
        }
        if !commands.is_empty() {
            self.place_commands(commands).await;
        }
    }

    /// The answers come back as an event.
    async fn place_commands(&mut self, commands: Vec<(ReplyTo, Arc<ParsedCommand>)>) {
        let orders = commands.iter().enumerate().map(|(index, (_, parsed))| (index, Arc::clone(parsed)));
        let orders = orders.collect();
        if commands.iter().all(|(back, _)| *back == ReplyTo::None) {
            return self.deps.shards.carry_out(orders).await;
        }
        self.placing += 1;
        let executing = self.deps.shards.execute(orders).await;
        let backs: Vec<ReplyTo> = commands.into_iter().map(|(back, _)| back).collect();
        let (homes, me) = (self.homes.clone(), self.me);
        self.deps.spawner.spawn("placing", async move {
            let placed = executing
                .done()
                .await
                .into_iter()
                .map(|mut done| {
                    // Its home merges it with those of others.
                    sign_hops(&mut done.answer, || me.to_string());
                    (backs[done.index], Some(done.answer), done.touched)
                })
                .collect();
            homes.send(ClusterEvent::Placed { me, placed }).await;
        });
    }
}
