//! Follows the membership and the installed views.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use broadgate_proto::v1::{Member, MemberState, Role, View};
use broadgate_proto::{ring::Ring, view};
use broadgate_register::member::{ClusterMember, MemberEvent, RegisterStatus};
use metrics::gauge;
use tokio::sync::{broadcast::error::RecvError, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    audit::AuditLine,
    cluster::ClusterEvent,
    dispatch::{Dispatcher, Installed},
    events::{EventKind, EventLog},
    health::Health,
    shard::RejoinCause,
};

/// How long to wait for the reason after a membership has ended.
const LAST_WORD_TIME_MAX: Duration = Duration::from_secs(5);

/// Why a gateway leaves its serving state.
pub(super) enum Next {
    Stop(anyhow::Result<()>),
    Rejoin(RejoinCause),
}

/// Follows the membership.
pub(super) struct MembershipFollower {
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) register: watch::Sender<RegisterStatus>,
    pub(super) health: Health,
    /// This incarnation has been in a view.
    pub(super) was_in: bool,
}

impl MembershipFollower {
    /// Follows views while the gateway stops, until that is done.
    pub(super) async fn until<T>(&mut self, member: &mut ClusterMember, done: impl Future<Output = T>) -> T {
        let following = async {
            // An order to drain changes nothing; after anything else it is no member any more.
            while let Next::Stop(Ok(())) = self.follow(member).await {}
        };
        tokio::pin!(done);
        tokio::select! {
            done = &mut done => return done,
            () = following => {}
        }
        done.await
    }

    /// Follows views until the gateway must stop or rejoin.
    pub(super) async fn follow(&mut self, member: &mut ClusterMember) -> Next {
        let mut views = member.every_view();
        let mut installed = self.dispatcher.installed.clone();
        let mut registers = member.registers();
        registers.mark_changed();
        loop {
            tokio::select! {
                view = views.recv() => {
                    let view = match view {
                        Ok(view) => view,
                        // The homes detect the gap in epochs.
                        Err(RecvError::Lagged(_)) => member.views().borrow().clone(),
                        Err(RecvError::Closed) => return self.last_word(member).await,
                    };
                    // Peers that announce it by number need not wait until it is installed.
                    self.dispatcher.peers.views.add(&view);
                    self.dispatcher.homes.send(ClusterEvent::View(view)).await;
                }
                Ok(()) = installed.changed() => {
                    let view = installed.borrow_and_update().view.clone();
                    self.register.send_replace(member.register());
                    if self.is_out(&view, member) {
                        let reason = "a peer knows a view without this gateway".to_owned();
                        let removed = self.act(MemberEvent::Removed { reason });
                        return removed.unwrap_or(Next::Rejoin(RejoinCause::Removed));
                    }
                    member.learn(view);
                }
                Ok(()) = registers.changed() => {
                    // Only for answers and gauges.
                    let register = registers.borrow_and_update().clone();
                    self.tell_register(&register);
                    gauge!("broadgate_gateway_register_heard").set(f64::from(u8::from(register.heard)));
                    if *self.dispatcher.outside.load_full() != register.outside {
                        self.dispatcher.outside.store(Arc::new(register.outside.clone()));
                    }
                    self.register.send_replace(register);
                }
                event = member.event() => {
                    if let Some(next) = self.act(event) {
                        return next;
                    }
                }
            }
        }
    }

    /// An event when the register does not answer any more, and when one does again.
    fn tell_register(&self, now: &RegisterStatus) {
        let before = self.register.borrow().heard;
        let events = &self.dispatcher.evidence.config.events;
        let RegisterStatus { address, trouble, .. } = now;
        if before && !now.heard {
            let why = if trouble.is_empty() { String::new() } else { format!(": {trouble}") };
            events.note(
                EventKind::Alarm,
                "register_lost",
                format!("register {address} does not answer{why}"),
            );
        } else if !before && now.heard {
            events.note(EventKind::Members, "register_heard", format!("register {address} answers"));
        }
    }

    /// Whether this incarnation was in a view and is missing in the newest.
    fn is_out(&mut self, view: &View, member: &ClusterMember) -> bool {
        let is_in = view::find(view, member.incarnation()).is_some();
        self.was_in |= is_in;
        self.was_in && !is_in
    }

    /// Translates a membership event into what the gateway does next.
    fn act(&self, event: MemberEvent) -> Option<Next> {
        match event {
            MemberEvent::Removed { reason } => {
                tracing::warn!(reason, "removed from the view: closing all clients and rejoining");
                let text = format!("removed from the view, and joins again without its clients: {reason}");
                self.dispatcher.evidence.config.events.note(EventKind::Alarm, "removed", text);
                self.health.set_ready(false);
                Some(Next::Rejoin(RejoinCause::of(&reason)))
            }
            MemberEvent::Drain { by } => {
                let (who, how, from, note) = (&by.who, &by.how, &by.from, &by.note);
                tracing::info!(who, how, from, note, "an operator asked this gateway to drain");
                let who = if who.is_empty() { "an operator" } else { who };
                let text = format!("{who} asked this gateway to drain");
                self.dispatcher.evidence.config.events.note(EventKind::Members, "drain", text);
                let line = AuditLine::drained(&self.dispatcher.me.load().name, &by);
                self.dispatcher.audit.note_at_once(&line);
                Some(Next::Stop(Ok(())))
            }
            MemberEvent::Refused { sentence, fatal: true } => {
                Some(Next::Stop(Err(anyhow::anyhow!(sentence))))
            }
            MemberEvent::Refused { sentence, fatal: false } => {
                tracing::error!("{sentence}");
                None
            }
            MemberEvent::Failed { sentence } => {
                let failed = anyhow::anyhow!(sentence).context("the gateway exits, to be restarted");
                Some(Next::Stop(Err(failed)))
            }
        }
    }

    /// The views have ended: the membership is over, and its last event says why.
    async fn last_word(&self, member: &mut ClusterMember) -> Next {
        let reasons = async {
            loop {
                if let Some(next) = self.act(member.event().await) {
                    return next;
                }
            }
        };
        tokio::time::timeout(LAST_WORD_TIME_MAX, reasons).await.unwrap_or_else(|_| {
            Next::Stop(Err(anyhow::anyhow!("the membership thread has ended without a reason")))
        })
    }
}

/// Follows the views that the homes have installed.
pub(super) struct Installing {
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) installed: watch::Sender<Installed>,
    pub(super) health: Health,
    /// The gateway drains: it is not ready any more, whatever a view of before says.
    pub(super) draining: CancellationToken,
}

impl Installing {
    pub(super) fn install(&self, view: &Arc<View>) {
        let epoch = view::epoch(view);
        gauge!("broadgate_gateway_epoch_term").set(epoch.term as f64);
        gauge!("broadgate_gateway_epoch_number").set(epoch.count as f64);
        gauge!("broadgate_gateway_peers").set(view::gateways(view).count().saturating_sub(1) as f64);
        let me = self.dispatcher.me.load().incarnation;
        let mine = view::find(view, me);
        let ready = mine.is_some_and(|me| me.state() == MemberState::Ready);
        let inside = mine.map(|_| me);
        // Before the view is published, so that a reader that sees this gateway as ready can rely on it.
        self.health.set_ready(ready && !self.draining.is_cancelled());
        self.dispatcher.peers.follow(view);
        let last_state = |member: &Member| {
            let incarnation = member.incarnation.parse().ok()?;
            self.dispatcher.peers.views.last_state_of(incarnation)
        };
        let events = &self.dispatcher.evidence.config.events;
        tell_members(events, &self.installed.borrow().view, view, last_state);
        let ring = Some(Arc::new(Ring::of_view(view)));
        let before = self.installed.borrow().clone();
        let removed = before.removed.after(&before.view, view, last_state, Instant::now());
        self.installed.send_replace(Installed { view: Arc::clone(view), ring, inside, removed });
    }
}

/// An event for each member that has come, gone or begun to drain between two views. `last_state` is what is known of a
/// member from views in between.
fn tell_members(
    events: &EventLog,
    before: &View,
    now: &View,
    last_state: impl Fn(&Member) -> Option<MemberState>,
) {
    let named = |member: &Member| {
        let kind = if member.role() == Role::Worker { "worker" } else { "gateway" };
        format!("{kind} {} ({})", member.name, member.incarnation)
    };
    let former: HashMap<&str, &Member> =
        before.members.iter().map(|member| (member.incarnation.as_str(), member)).collect();
    let present: HashSet<&str> = now.members.iter().map(|member| member.incarnation.as_str()).collect();
    for member in &now.members {
        match former.get(member.incarnation.as_str()) {
            None => events.note(EventKind::Members, "joined", format!("{} has joined", named(member))),
            Some(was) if !drains(was) && drains(member) => {
                events.note(EventKind::Members, "drains", format!("{} drains", named(member)));
            }
            Some(_) => {}
        }
    }
    for member in before.members.iter().filter(|member| !present.contains(member.incarnation.as_str())) {
        let has_left = drains(member) || last_state(member).is_some_and(announces);
        let how = if has_left { "has left" } else { "is gone: it did not beat, or was removed" };
        events.note(EventKind::Members, "gone", format!("{} {how}", named(member)));
    }
}

fn drains(member: &Member) -> bool {
    announces(member.state())
}

const fn announces(state: MemberState) -> bool {
    matches!(state, MemberState::Draining | MemberState::Leaving)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_told_as_what_changed() {
        let member = |name: &str, state: MemberState| Member {
            incarnation: name.to_owned(),
            name: name.to_owned(),
            role: Role::Gateway.into(),
            state: state.into(),
            ..Member::default()
        };
        let view = |members: &[Member]| View { members: members.to_vec(), ..View::default() };
        let events = EventLog::default();
        let (a, b) = (member("a", MemberState::Ready), member("b", MemberState::Ready));
        let b_drains = member("b", MemberState::Draining);
        let views =
            [view(&[]), view(&[a.clone(), b]), view(&[a, b_drains.clone()]), view(&[b_drains]), view(&[])];
        for pair in views.windows(2) {
            tell_members(&events, &pair[0], &pair[1], |_| None);
        }
        let question = crate::events::EventQuestion { limit: 10, ..Default::default() };
        let told: Vec<String> =
            events.find(&question, "g").events.into_iter().map(|event| event.text).collect();
        let wanted = [
            "a (a) has joined",
            "b (b) has joined",
            "b (b) drains",
            "a (a) is gone: it did not beat, or was removed",
            "b (b) has left",
        ];
        assert_eq!(told, wanted.map(|text| format!("gateway {text}")));
    }
}
