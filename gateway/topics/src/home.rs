//! The topics whose home this gateway is: who holds clients of them, and who is present.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::Arc,
};

use broadgate_proto::{id::Incarnation, v1::Epoch};

use crate::{
    interest::Sum,
    membership::{Claim, Decided, MemberChange, Session},
    topic::Topic,
};

/// How a gateway's clients stand in a topic, as it says.
#[derive(Debug, Clone)]
pub(super) struct Hold<'a> {
    pub(super) clients: u64,
    pub(super) members: &'a [MemberChange],
    pub(super) claims: Vec<Claim>,
    /// They were told of presence members, by this home or an earlier one.
    pub(super) told: bool,
}

/// One topic at its home.
#[derive(Debug)]
pub(super) struct Home {
    /// When this gateway took it over.
    pub(super) tenure: Epoch,
    /// The gateways with clients of it.
    holders: Vec<Holder>,
    /// Gateways that will have a client of it when they have carried out this delivery.
    expected: Vec<(u64, Incarnation)>,
    pub(super) roster: Option<Box<Roster>>,
}

#[derive(Debug)]
struct Holder {
    gateway: Incarnation,
    /// The run of the gateway's link in which it said so: what an earlier run said and a sync has not
    /// repeated is no more.
    session: Session,
    clients: u64,
}

/// Who is present: each user with what the gateways that have clients of it say of it.
#[derive(Debug, Default)]
pub(super) struct Roster {
    users: BTreeMap<Arc<str>, Vec<Said>>,
    /// Who wants to be present: one for each user of each gateway. They wait only while not everybody has
    /// said who is present, and are decided in the order in which they came.
    claims: BTreeMap<(Arc<str>, Incarnation), Waiting>,
    /// Rises with every claim.
    order: u64,
    /// The holders have been told everything once in this tenure.
    pub(super) told: bool,
    /// They were not told that there is nobody else: not everybody had synced.
    pub(super) open_ended: bool,
}

/// A claim, and the gateway that has made it in a run of its link.
#[derive(Debug)]
struct Waiting {
    order: u64,
    session: Session,
    claim: Claim,
}

/// A gateway has said, in a run of its link, what others see of a user.
type Said = (Incarnation, Session, Arc<str>);

impl Home {
    /// A new tenure begins.
    pub(super) fn take_over(&mut self, tenure: Epoch) {
        self.tenure = tenure;
        if let Some(roster) = &mut self.roster {
            roster.told = false;
        }
    }

    pub(super) fn holders(&self) -> impl Iterator<Item = Incarnation> {
        self.holders.iter().map(|holder| holder.gateway)
    }

    /// Those that hold clients of it, or will before they hear of anything that is placed after.
    pub(super) fn concerned(&self) -> impl Iterator<Item = Incarnation> {
        self.holders().chain(self.expected.iter().map(|(_, gateway)| *gateway))
    }

    pub(super) fn expect(&mut self, delivery: u64, gateway: Incarnation) {
        self.expected.push((delivery, gateway));
    }

    pub(super) fn met(&mut self, delivery: u64) {
        self.expected.retain(|(expected, _)| *expected != delivery);
    }

    pub(super) fn clients(&self) -> u64 {
        self.holders.iter().map(|holder| holder.clients).sum()
    }

    /// Takes what a gateway says. Returns the changes of who is present, and whether the gateway is new.
    pub(super) fn hold(
        &mut self,
        gateway: Incarnation,
        session: Session,
        hold: Hold<'_>,
    ) -> (Vec<MemberChange>, bool) {
        let Hold { clients, members, claims, told } = hold;
        let known = self.holders.iter().position(|holder| holder.gateway == gateway);
        match known {
            Some(at) if clients == 0 => drop(self.holders.swap_remove(at)),
            Some(at) => {
                self.holders[at].clients = clients;
                self.holders[at].session = session;
            }
            None if clients > 0 => self.holders.push(Holder { gateway, session, clients }),
            None => {}
        }
        // Who was told of members must also be told that none is left.
        let told = told && clients > 0;
        let nobody = claims.is_empty() && members.iter().all(|member| member.info.is_none());
        if self.roster.is_none() && !told && nobody {
            return (Vec::new(), known.is_none() && clients > 0);
        }
        let roster = self.roster.get_or_insert_default();
        let mut changes: Vec<_> =
            members.iter().filter_map(|member| roster.stand(gateway, session, member)).collect();
        if clients == 0 {
            // Members stand with clients; without any there is nobody left of it.
            changes.extend(roster.lose(|one, _| one == gateway));
        } else {
            roster.claim(gateway, session, claims);
        }
        (changes, known.is_none() && clients > 0)
    }

    /// Decides about the claims that wait, in their order. Who is present counts once, whichever gateways
    /// have clients of it. Returns who has come, and the answers.
    pub(super) fn decide(&mut self) -> (Vec<MemberChange>, Vec<(Incarnation, Decided)>) {
        let (mut changes, mut answers) = (Vec::new(), Vec::new());
        let Some(roster) = &mut self.roster else { return (changes, answers) };
        let mut waiting: Vec<_> = std::mem::take(&mut roster.claims).into_iter().collect();
        waiting.sort_unstable_by_key(|(_, waiting)| waiting.order);
        for ((_, gateway), Waiting { session, claim, .. }) in waiting {
            let Claim { user, info, number, max } = claim;
            let granted = roster.has(&user) || roster.len() < max as usize;
            if granted {
                let member = MemberChange { user: user.clone(), info: Some(info) };
                changes.extend(roster.stand(gateway, session, &member));
            }
            answers.push((gateway, Decided { user, number, granted }));
        }
        (changes, answers)
    }

    /// Lets go of what holders of this kind said. Returns who has gone by that.
    fn lose(&mut self, lost: impl Fn(Incarnation, Session) -> bool) -> Vec<MemberChange> {
        self.holders.retain(|holder| !lost(holder.gateway, holder.session));
        self.roster.as_mut().map(|roster| roster.lose(lost)).unwrap_or_default()
    }

    fn is_idle(&self) -> bool {
        self.holders.is_empty()
            && self.expected.is_empty()
            && self.roster.as_ref().is_none_or(|roster| roster.users.is_empty() && roster.claims.is_empty())
    }
}

impl Roster {
    fn stand(
        &mut self,
        gateway: Incarnation,
        session: Session,
        member: &MemberChange,
    ) -> Option<MemberChange> {
        let MemberChange { user, info } = member;
        // What it says now takes the place of what it claimed.
        self.claims.remove(&(user.clone(), gateway));
        let Some(info) = info else {
            let standing = self.users.get_mut(user)?;
            standing.retain(|(one, _, _)| *one != gateway);
            if !standing.is_empty() {
                return None;
            }
            self.users.remove(user);
            return Some(member.clone());
        };
        let standing = self.users.entry(user.clone()).or_default();
        let first = standing.is_empty();
        standing.retain(|(one, _, _)| *one != gateway);
        standing.push((gateway, session, info.clone()));
        first.then(|| member.clone())
    }

    fn claim(&mut self, gateway: Incarnation, session: Session, claims: Vec<Claim>) {
        for claim in claims {
            self.order += 1;
            let key = (claim.user.clone(), gateway);
            let order = self.claims.get(&key).map_or(self.order, |waiting| waiting.order);
            self.claims.insert(key, Waiting { order, session, claim });
        }
    }

    fn lose(&mut self, lost: impl Fn(Incarnation, Session) -> bool) -> Vec<MemberChange> {
        self.claims.retain(|(_, gateway), waiting| !lost(*gateway, waiting.session));
        let mut gone = Vec::new();
        self.users.retain(|user, standing| {
            standing.retain(|(gateway, session, _)| !lost(*gateway, *session));
            if standing.is_empty() {
                gone.push(MemberChange { user: user.clone(), info: None });
            }
            !standing.is_empty()
        });
        gone
    }

    /// Everybody, each with what was said of it last.
    pub(super) fn all(&self) -> Vec<MemberChange> {
        self.page(usize::MAX, "").map(|(user, info)| MemberChange { user, info: Some(info) }).collect()
    }

    pub(super) fn page(&self, limit: usize, after: &str) -> impl Iterator<Item = (Arc<str>, Arc<str>)> {
        let from = (Bound::Excluded(after), Bound::Unbounded);
        let told =
            |standing: &Vec<Said>| standing.last().map_or_else(|| "".into(), |(_, _, info)| info.clone());
        self.users
            .range::<str, _>(from)
            .take(limit)
            .map(move |(user, standing)| (user.clone(), told(standing)))
    }

    pub(super) fn has(&self, user: &str) -> bool {
        self.users.contains_key(user)
    }

    pub(super) fn len(&self) -> usize {
        self.users.len()
    }
}

/// All topics whose home this gateway is and that anybody holds.
#[derive(Debug, Default)]
pub(super) struct Homes(HashMap<Topic, Home>);

impl Homes {
    pub(super) fn get(&self, topic: &Topic) -> Option<&Home> {
        self.0.get(topic)
    }

    pub(super) fn get_mut(&mut self, topic: &Topic) -> Option<&mut Home> {
        self.0.get_mut(topic)
    }

    pub(super) fn topics(&self) -> impl Iterator<Item = Topic> {
        self.0.keys().cloned()
    }

    pub(super) fn take(&mut self, topic: &Topic, tenure: Epoch) -> &mut Home {
        self.0.entry(topic.clone()).or_insert_with(|| Home {
            tenure,
            holders: Vec::new(),
            expected: Vec::new(),
            roster: None,
        })
    }

    pub(super) fn forget_if_idle(&mut self, topic: &Topic) {
        if self.0.get(topic).is_some_and(Home::is_idle) {
            self.0.remove(topic);
        }
    }

    /// Keeps only these topics. After a gap in the views, what is kept is taken over anew.
    pub(super) fn retain(&mut self, mut stays: impl FnMut(&Topic) -> bool, anew: Option<Epoch>) {
        self.0.retain(|topic, _| stays(topic));
        if let Some(tenure) = anew {
            self.0.values_mut().for_each(|home| home.take_over(tenure));
        }
    }

    /// Lets go of what holders of this kind said, everywhere. Returns the topics that they held, with who
    /// has gone by that.
    pub(super) fn lose(
        &mut self,
        lost: impl Fn(Incarnation, Session) -> bool,
    ) -> Vec<(Topic, Vec<MemberChange>)> {
        let mut gone = Vec::new();
        self.0.retain(|topic, home| {
            let before = home.holders.len();
            let changes = home.lose(&lost);
            if home.holders.len() < before || !changes.is_empty() {
                gone.push((topic.clone(), changes));
            }
            !home.is_idle()
        });
        gone.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        gone
    }

    /// Topics whose roster the holders have not been told yet.
    pub(super) fn untold(&self) -> Vec<Topic> {
        self.with_roster(|_, roster| !roster.told)
    }

    /// Topics with claims that wait.
    pub(super) fn claimed(&self) -> Vec<Topic> {
        self.with_roster(|_, roster| !roster.claims.is_empty())
    }

    /// Topics whose holders have to be told that there is nobody else.
    pub(super) fn open_ended(&self) -> Vec<Topic> {
        self.with_roster(|_, roster| roster.told && roster.open_ended)
    }

    /// Topics of whose roster a gateway has to know.
    pub(super) fn told_to(&self, gateway: Incarnation) -> Vec<Topic> {
        self.with_roster(|home, roster| roster.told && home.holders().any(|holder| holder == gateway))
    }

    fn with_roster(&self, wanted: impl Fn(&Home, &Roster) -> bool) -> Vec<Topic> {
        let wanted = |home: &Home| home.roster.as_ref().is_some_and(|roster| wanted(home, roster));
        let mut topics: Vec<_> =
            self.0.iter().filter(|(_, home)| wanted(home)).map(|(topic, _)| topic.clone()).collect();
        topics.sort_unstable();
        topics
    }

    /// What a gateway holds, by what it said.
    pub(super) fn sum_of(&self, gateway: Incarnation) -> Sum {
        let mut sum = Sum::default();
        for (topic, home) in &self.0 {
            if let Some(holder) = home.holders.iter().find(|holder| holder.gateway == gateway) {
                sum.add(topic, holder.clients);
            }
        }
        sum
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
