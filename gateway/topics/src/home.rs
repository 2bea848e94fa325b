//! The topics whose home this gateway is: which gateways are interested, and who is present.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use broadgate_proto::{id::Incarnation, v1::Epoch};

use crate::{
    interest::Sum,
    membership::{Claim, DecidedClaim, LinkSession, MemberChange},
    topic::Topic,
};

/// A gateway's interest in a topic.
#[derive(Debug, Clone)]
pub(super) struct GatewayInterest<'a> {
    pub(super) clients: u64,
    pub(super) members: &'a [MemberChange],
    pub(super) claims: Vec<Claim>,
    /// Its clients have been sent presence members, by this home or an earlier one.
    pub(super) knows_roster: bool,
}

/// One topic at its home.
#[derive(Debug)]
pub(super) struct TopicHome {
    /// When this gateway became its home.
    pub(super) tenure: Epoch,
    /// And at which time, or when its first client came since.
    pub(super) since: Duration,
    /// The number of the last command that it has placed in this tenure, and when.
    pub(super) placed: Option<(u64, Duration)>,
    /// The gateways with clients in it.
    interested: Vec<Interested>,
    /// Gateways that will have a client in it once they have executed this delivery.
    expected: Vec<(u64, Incarnation)>,
    pub(super) roster: Option<Box<Roster>>,
}

#[derive(Debug)]
struct Interested {
    gateway: Incarnation,
    /// The link session in which the gateway announced it: what an earlier session announced and a sync has
    /// not repeated is void.
    session: LinkSession,
    clients: u64,
}

/// The users present, each with the member info from every gateway that has clients for it.
#[derive(Debug, Default)]
pub(super) struct Roster {
    users: BTreeMap<Arc<str>, Vec<Reporter>>,
    /// Pending claims, one per user and gateway. They wait only until every gateway has synced, and are
    /// decided in order of arrival.
    claims: BTreeMap<(Arc<str>, Incarnation), WaitingClaim>,
    /// Rises with every claim.
    order: u64,
    /// The interested gateways have received the whole roster in this tenure.
    pub(super) sent: bool,
    /// They do not know yet that the roster is complete: not all gateways had synced.
    pub(super) open_ended: bool,
}

/// A claim, and the gateway and link session that made it.
#[derive(Debug)]
struct WaitingClaim {
    order: u64,
    session: LinkSession,
    claim: Claim,
}

/// The member info of a user, from a gateway in a link session.
type Reporter = (Incarnation, LinkSession, Arc<str>);

impl TopicHome {
    /// Starts a new tenure.
    pub(super) fn take_over(&mut self, tenure: Epoch, now: Duration) {
        self.tenure = tenure;
        self.since = now;
        self.placed = None;
        if let Some(roster) = &mut self.roster {
            roster.sent = false;
        }
    }

    pub(super) fn interested(&self) -> impl Iterator<Item = Incarnation> {
        self.interested.iter().map(|one| one.gateway)
    }

    /// The gateways with clients in it, or that will have some before they get anything placed later.
    pub(super) fn concerned(&self) -> impl Iterator<Item = Incarnation> {
        self.interested().chain(self.expected.iter().map(|(_, gateway)| *gateway))
    }

    pub(super) fn expect(&mut self, delivery: u64, gateway: Incarnation) {
        self.expected.push((delivery, gateway));
    }

    pub(super) fn met(&mut self, delivery: u64) {
        self.expected.retain(|(expected, _)| *expected != delivery);
    }

    pub(super) fn clients_by_gateway(&self) -> impl Iterator<Item = (Incarnation, u64)> {
        self.interested.iter().map(|one| (one.gateway, one.clients))
    }

    pub(super) fn clients(&self) -> u64 {
        self.interested.iter().map(|one| one.clients).sum()
    }

    /// Applies a gateway's interest. Returns the changes of the roster, and whether the gateway is new: whether it
    /// needs the whole roster and the last value.
    pub(super) fn apply(
        &mut self,
        gateway: Incarnation,
        session: LinkSession,
        update: GatewayInterest<'_>,
    ) -> (Vec<MemberChange>, bool) {
        let GatewayInterest { clients, members, claims, knows_roster } = update;
        let known = self.interested.iter().position(|one| one.gateway == gateway);
        // Its last client may have left, and another joined, while its link was broken: then it has forgotten
        // what this home sent it.
        let forgot = known.is_some_and(|at| self.interested[at].session != session && !knows_roster);
        let is_new = clients > 0 && (known.is_none() || forgot);
        match known {
            Some(at) if clients == 0 => drop(self.interested.swap_remove(at)),
            Some(at) => {
                self.interested[at].clients = clients;
                self.interested[at].session = session;
            }
            None if clients > 0 => self.interested.push(Interested { gateway, session, clients }),
            None => {}
        }
        // A gateway that knows members must also learn that none is left.
        let knows_roster = knows_roster && clients > 0;
        let nobody = claims.is_empty() && members.iter().all(|member| member.info.is_none());
        if self.roster.is_none() && !knows_roster && nobody {
            return (Vec::new(), is_new);
        }
        let roster = self.roster.get_or_insert_default();
        let mut changes: Vec<_> =
            members.iter().filter_map(|member| roster.set_member(gateway, session, member)).collect();
        if clients == 0 {
            // Members have clients; without clients the gateway has none.
            changes.extend(roster.lose(|one, _| one == gateway));
        } else {
            roster.claim(gateway, session, claims);
        }
        (changes, is_new)
    }

    /// Decides the pending claims, in order. A present user counts once, however many gateways have clients
    /// for it. Returns the users who joined, and the decisions.
    pub(super) fn decide(&mut self) -> (Vec<MemberChange>, Vec<(Incarnation, DecidedClaim)>) {
        let (mut changes, mut answers) = (Vec::new(), Vec::new());
        let Some(roster) = &mut self.roster else { return (changes, answers) };
        let mut waiting: Vec<_> = std::mem::take(&mut roster.claims).into_iter().collect();
        waiting.sort_unstable_by_key(|(_, waiting)| waiting.order);
        for ((_, gateway), WaitingClaim { session, claim, .. }) in waiting {
            let Claim { user, info, number, max } = claim;
            let granted = roster.has(&user) || roster.len() < max as usize;
            if granted {
                let member = MemberChange { user: user.clone(), info: Some(info) };
                changes.extend(roster.set_member(gateway, session, &member));
            }
            answers.push((gateway, DecidedClaim { user, number, granted }));
        }
        (changes, answers)
    }

    /// Removes the interest of such gateways. Returns the users who left by that.
    fn lose(&mut self, lost: impl Fn(Incarnation, LinkSession) -> bool) -> Vec<MemberChange> {
        self.interested.retain(|one| !lost(one.gateway, one.session));
        self.roster.as_mut().map(|roster| roster.lose(lost)).unwrap_or_default()
    }

    fn is_idle(&self) -> bool {
        self.interested.is_empty()
            && self.expected.is_empty()
            && self.roster.as_ref().is_none_or(|roster| roster.users.is_empty() && roster.claims.is_empty())
    }
}

impl Roster {
    fn set_member(
        &mut self,
        gateway: Incarnation,
        session: LinkSession,
        member: &MemberChange,
    ) -> Option<MemberChange> {
        let MemberChange { user, info } = member;
        // The update replaces its claim.
        self.claims.remove(&(user.clone(), gateway));
        let Some(info) = info else {
            let reporters = self.users.get_mut(user)?;
            reporters.retain(|(one, _, _)| *one != gateway);
            if !reporters.is_empty() {
                return None;
            }
            self.users.remove(user);
            return Some(member.clone());
        };
        let reporters = self.users.entry(user.clone()).or_default();
        let first = reporters.is_empty();
        reporters.retain(|(one, _, _)| *one != gateway);
        reporters.push((gateway, session, info.clone()));
        first.then(|| member.clone())
    }

    fn claim(&mut self, gateway: Incarnation, session: LinkSession, claims: Vec<Claim>) {
        for claim in claims {
            self.order += 1;
            let key = (claim.user.clone(), gateway);
            let order = self.claims.get(&key).map_or(self.order, |waiting| waiting.order);
            self.claims.insert(key, WaitingClaim { order, session, claim });
        }
    }

    fn lose(&mut self, lost: impl Fn(Incarnation, LinkSession) -> bool) -> Vec<MemberChange> {
        self.claims.retain(|(_, gateway), waiting| !lost(*gateway, waiting.session));
        let mut gone = Vec::new();
        self.users.retain(|user, reporters| {
            reporters.retain(|(gateway, session, _)| !lost(*gateway, *session));
            if reporters.is_empty() {
                gone.push(MemberChange { user: user.clone(), info: None });
            }
            !reporters.is_empty()
        });
        gone
    }

    /// All users, each with the newest member info.
    pub(super) fn all(&self) -> Vec<MemberChange> {
        self.page(usize::MAX, "").map(|(user, info)| MemberChange { user, info: Some(info) }).collect()
    }

    pub(super) fn page(&self, limit: usize, after: &str) -> impl Iterator<Item = (Arc<str>, Arc<str>)> {
        let from = (Bound::Excluded(after), Bound::Unbounded);
        let knows_roster = |reporters: &Vec<Reporter>| {
            reporters.last().map_or_else(|| "".into(), |(_, _, info)| info.clone())
        };
        self.users
            .range::<str, _>(from)
            .take(limit)
            .map(move |(user, reporters)| (user.clone(), knows_roster(reporters)))
    }

    pub(super) fn has(&self, user: &str) -> bool {
        self.users.contains_key(user)
    }

    pub(super) fn len(&self) -> usize {
        self.users.len()
    }
}

/// All topics with interest whose home this gateway is.
#[derive(Debug, Default)]
pub(super) struct TopicHomes(HashMap<Topic, TopicHome>);

impl TopicHomes {
    pub(super) fn get(&self, topic: &Topic) -> Option<&TopicHome> {
        self.0.get(topic)
    }

    pub(super) fn get_mut(&mut self, topic: &Topic) -> Option<&mut TopicHome> {
        self.0.get_mut(topic)
    }

    pub(super) fn topics(&self) -> impl Iterator<Item = Topic> {
        self.0.keys().cloned()
    }

    pub(super) fn take(&mut self, topic: &Topic, tenure: Epoch, now: Duration) -> &mut TopicHome {
        self.0.entry(topic.clone()).or_insert_with(|| TopicHome {
            tenure,
            since: now,
            placed: None,
            interested: Vec::new(),
            expected: Vec::new(),
            roster: None,
        })
    }

    pub(super) fn forget_if_idle(&mut self, topic: &Topic) {
        if self.0.get(topic).is_some_and(TopicHome::is_idle) {
            self.0.remove(topic);
        }
    }

    /// Retains only these topics. After a gap in the views, even those start from scratch.
    pub(super) fn retain(
        &mut self,
        mut stays: impl FnMut(&Topic) -> bool,
        whole: Option<Epoch>,
        now: Duration,
    ) {
        self.0.retain(|topic, _| stays(topic));
        if let Some(tenure) = whole {
            self.0.values_mut().for_each(|home| home.take_over(tenure, now));
        }
    }

    /// Removes the interest of such gateways everywhere. Returns their topics, with the users who left by
    /// that.
    pub(super) fn lose(
        &mut self,
        lost: impl Fn(Incarnation, LinkSession) -> bool,
    ) -> Vec<(Topic, Vec<MemberChange>)> {
        let mut gone = Vec::new();
        self.0.retain(|topic, home| {
            let before = home.interested.len();
            let changes = home.lose(&lost);
            if home.interested.len() < before || !changes.is_empty() {
                gone.push((topic.clone(), changes));
            }
            !home.is_idle()
        });
        gone.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        gone
    }

    /// Topics whose roster the interested gateways have not received yet.
    pub(super) fn unsent_rosters(&self) -> Vec<Topic> {
        self.with_roster(|_, roster| !roster.sent)
    }

    /// Topics with pending claims.
    pub(super) fn claimed(&self) -> Vec<Topic> {
        self.with_roster(|_, roster| !roster.claims.is_empty())
    }

    /// Topics whose interested gateways do not know yet that the roster is complete.
    pub(super) fn open_ended(&self) -> Vec<Topic> {
        self.with_roster(|_, roster| roster.sent && roster.open_ended)
    }

    /// Topics whose roster a gateway needs.
    pub(super) fn rosters_known_to(&self, gateway: Incarnation) -> Vec<Topic> {
        self.with_roster(|home, roster| roster.sent && home.interested().any(|one| one == gateway))
    }

    fn with_roster(&self, wanted: impl Fn(&TopicHome, &Roster) -> bool) -> Vec<Topic> {
        let wanted = |home: &TopicHome| home.roster.as_ref().is_some_and(|roster| wanted(home, roster));
        let mut topics: Vec<_> =
            self.0.iter().filter(|(_, home)| wanted(home)).map(|(topic, _)| topic.clone()).collect();
        topics.sort_unstable();
        topics
    }

    /// A checksum of what a gateway has announced.
    pub(super) fn sum_of(&self, gateway: Incarnation) -> Sum {
        let mut sum = Sum::default();
        for (topic, home) in &self.0 {
            if let Some(one) = home.interested.iter().find(|one| one.gateway == gateway) {
                sum.add(topic, one.clients);
            }
        }
        sum
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
