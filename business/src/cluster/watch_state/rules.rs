//! What is believed of whom.

use broadgate_proto::v1::{GroupEvent, GroupState, Member, MemberState, Role};

use super::*;

const A: Incarnation = Incarnation::from_bits(1);
const B: Incarnation = Incarnation::from_bits(2);
const C: Incarnation = Incarnation::from_bits(3);

fn view(count: u64, gateways: &[Incarnation]) -> View {
    let member = |gateway: &Incarnation| Member {
        incarnation: gateway.to_string(),
        role: Role::Gateway.into(),
        state: MemberState::Ready.into(),
        ..Member::default()
    };
    View {
        epoch: Some(Epoch::new(1, count)),
        members: gateways.iter().map(member).collect(),
        before: Some(Epoch::new(1, count.saturating_sub(1))),
    }
}

/// A group that has this home among these gateways.
fn group_at(home: Incarnation, gateways: &[Incarnation], but_not: &str) -> String {
    let ring = Ring::new(gateways.iter().copied());
    let at_home =
        |name: &String| ring.pick(RingTopic::group("", name).key()) == Some(home) && name != but_not;
    (0..).map(|number| format!("g{number}")).find(at_home).unwrap()
}

fn is(users: &[&str]) -> Event {
    let member = |user: &&str| PresenceMember { user_id: (*user).to_owned(), info: format!("of {user}") };
    Event::Is(GroupState { members: users.iter().map(member).collect() })
}

fn joined(user: &str) -> Event {
    Event::Joined(PresenceMember { user_id: user.to_owned(), info: String::new() })
}

fn left(user: &str) -> Event {
    Event::Left(user.to_owned())
}

/// A watcher, and what it tells as text.
struct Watching(WatchState);

impl Watching {
    fn begins(count: u64, gateways: &[Incarnation]) -> Self {
        let mut watching = Self(WatchState::new(""));
        watching.sees(count, gateways);
        for gateway in gateways {
            watching.opens(*gateway);
        }
        watching
    }

    fn input(&mut self, input: Input) -> Vec<String> {
        let text = |effect| match effect {
            Effect::Reopen(gateway) => format!("reopen {gateway}"),
            Effect::Report(GroupChange { kind, .. }) => match kind {
                ChangeKind::Occupied => "occupied".to_owned(),
                ChangeKind::Vacated => "vacated".to_owned(),
                ChangeKind::Joined { user_id, .. } => format!("+{user_id}"),
                ChangeKind::Left { user_id } => format!("-{user_id}"),
            },
        };
        self.0.apply(input).into_iter().map(text).collect()
    }

    fn sees(&mut self, count: u64, gateways: &[Incarnation]) -> Vec<String> {
        self.input(Input::View(Arc::new(view(count, gateways))))
    }

    fn opens(&mut self, gateway: Incarnation) {
        assert!(self.input(Input::Opened(gateway)).is_empty());
    }

    fn receives<const N: usize>(
        &mut self,
        gateway: Incarnation,
        events: [(&str, Event); N],
        complete_as_of: Option<u64>,
    ) -> Vec<String> {
        let event =
            |(group, event): (&str, Event)| GroupEvent { group: group.to_owned(), event: Some(event) };
        let events = events.into_iter().map(event).collect();
        let complete_as_of = complete_as_of.map(|count| Epoch::new(1, count));
        self.input(Input::Received(gateway, GroupEvents { events, complete_as_of }))
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn only_differences_are_reported() {
    let mut watching = Watching::begins(1, &[A]);
    assert_eq!(watching.receives(A, [("g", is(&["ann", "bob"]))], Some(1)), ["occupied", "+ann", "+bob"]);
    assert_eq!(watching.receives(A, [("g", is(&["bob", "cid"]))], Some(1)), ["-ann", "+cid"]);
    assert_eq!(watching.receives(A, [("g", joined("cid")), ("g", left("ann"))], None), NOTHING);
    assert_eq!(watching.receives(A, [("g", left("bob")), ("h", joined("bob"))], None), ["-bob"]);
    assert_eq!(watching.receives(A, [("g", Event::Vacated(true))], None), ["-cid", "vacated"]);
    assert_eq!(watching.receives(A, [("g", is(&[]))], None), ["occupied"]);
}

#[test]
fn info_is_reported_with_its_user() {
    let mut state = WatchState::new("");
    state.apply(Input::View(Arc::new(view(1, &[A]))));
    state.apply(Input::Opened(A));
    let event = GroupEvent { group: "g".into(), event: Some(is(&["ann"])) };
    let complete_as_of = Some(Epoch::new(1, 1));
    let effects = state.apply(Input::Received(A, GroupEvents { events: vec![event], complete_as_of }));
    let kind = ChangeKind::Joined { user_id: "ann".into(), info: "of ann".into() };
    assert_eq!(effects[1], Effect::Report(GroupChange { group: "g".into(), kind }));
}

#[test]
fn reopened_stream_is_compared() {
    let mut watching = Watching::begins(1, &[A]);
    watching.receives(A, [("g", is(&["ann", "bob"])), ("h", is(&["ann"]))], Some(1));
    watching.opens(A);
    let before = [("g", joined("cid")), ("k", is(&["cid"]))];
    assert_eq!(watching.receives(A, before, None), NOTHING, "of the stream before");
    assert_eq!(watching.receives(A, [("g", is(&["bob"]))], Some(1)), ["-ann", "-ann", "vacated"]);
}

#[test]
fn a_dead_home_is_replaced_by_what_the_next_one_tells() {
    let (two, one) = ([A, B], [B]);
    let mut watching = Watching::begins(1, &two);
    let (kept, gone) = (group_at(A, &two, ""), group_at(A, &two, &group_at(A, &two, "")));
    watching.receives(A, [(&kept, is(&["ann", "bob"])), (&gone, is(&["bob"]))], Some(1));
    watching.receives(B, [], Some(1));
    assert_eq!(watching.sees(2, &one), NOTHING, "it is not known yet");
    assert_eq!(watching.receives(B, [(&kept, is(&["ann"]))], Some(2)), ["-bob", "-bob", "vacated"]);
    assert_eq!(watching.receives(A, [(&kept, joined("dan"))], None), NOTHING, "it is not in the view");
}

#[test]
fn what_a_gateway_ahead_of_our_view_does_not_tell_waits_for_the_view() {
    let two = [A, B];
    let mut watching = Watching::begins(1, &two);
    let group = group_at(A, &two, "");
    watching.receives(A, [(&group, is(&["ann"]))], Some(1));
    assert_eq!(watching.receives(B, [], Some(2)), NOTHING);
    assert_eq!(watching.sees(2, &[B]), ["-ann", "vacated"]);
}

#[test]
fn late_gateway_does_not_override_a_later_home() {
    let two = [A, B];
    let mut watching = Watching::begins(1, &two);
    let group = group_at(A, &two, "");
    assert_eq!(watching.receives(B, [(&group, is(&["ann"]))], Some(2)), ["occupied", "+ann"]);
    assert_eq!(watching.receives(A, [], Some(1)), NOTHING);
    assert_eq!(watching.sees(2, &[B]), NOTHING);
}

#[test]
fn the_next_home_may_have_told_before_the_former_one_had() {
    let (one, two) = ([A], [A, B]);
    let mut watching = Watching::begins(1, &one);
    let group = group_at(B, &two, "");
    watching.receives(A, [(&group, is(&["ann"]))], Some(1));
    watching.sees(2, &two);
    watching.opens(B);
    watching.sees(3, &two);
    assert_eq!(watching.receives(A, [(&group, Event::Moved(true))], Some(3)), NOTHING);
    assert_eq!(watching.receives(B, [(&group, is(&["ann", "bob"]))], Some(2)), ["+bob"]);
    assert_eq!(watching.receives(B, [], Some(3)), NOTHING);
}

#[test]
fn the_last_words_of_a_former_home_come_too_late() {
    let (one, two) = ([A], [A, B]);
    let mut watching = Watching::begins(1, &two);
    let group = group_at(B, &two, "");
    watching.sees(2, &one);
    watching.opens(A);
    assert_eq!(watching.receives(A, [(&group, is(&["ann"]))], Some(2)), ["occupied", "+ann"]);
    watching.sees(3, &two);
    watching.opens(B);
    assert_eq!(watching.receives(B, [(&group, is(&["bob"]))], Some(3)), ["-ann", "+bob"]);
    let late = [(&*group, joined("cid")), (&*group, is(&["ann"])), (&*group, Event::Moved(true))];
    assert_eq!(watching.receives(A, late.clone(), None), NOTHING);
    assert_eq!(watching.receives(B, [(&group, Event::Vacated(true))], None), ["-bob", "vacated"]);
    assert_eq!(watching.receives(A, late, Some(3)), NOTHING, "nobody is there");
}

#[test]
fn a_group_on_its_way_keeps_its_users() {
    let two = [A, B];
    let mut watching = Watching::begins(1, &[A]);
    let group = group_at(B, &two, "");
    let gone = group_at(B, &two, &group);
    watching.receives(A, [(&group, is(&["ann"])), (&gone, is(&["ann"]))], Some(1));
    let moved = [(&*group, Event::Moved(true)), (&*gone, Event::Moved(true))];
    assert_eq!(watching.receives(A, moved, None), NOTHING);
    assert_eq!(
        watching.receives(A, [(&group, left("ann"))], None),
        NOTHING,
        "it says nothing of it any more"
    );
    assert_eq!(watching.receives(A, [], Some(2)), NOTHING, "nor is what it does not tell of gone");
    assert_eq!(watching.sees(2, &two), NOTHING);
    watching.opens(B);
    assert_eq!(watching.receives(B, [(&group, is(&["ann", "bob"]))], Some(2)), ["+bob", "-ann", "vacated"]);
}

#[test]
fn a_group_that_may_have_moved_and_come_back_is_asked_about() {
    let mut watching = Watching::begins(1, &[A]);
    watching.receives(A, [("g", is(&["ann"]))], Some(1));
    watching.sees(2, &[A, B]);
    watching.sees(3, &[A]);
    let again = format!("reopen {A}");
    assert_eq!(watching.receives(A, [("g", Event::Moved(true))], Some(3)), [&*again]);
    watching.opens(A);
    assert_eq!(watching.receives(A, [], Some(3)), ["-ann", "vacated"]);
}

#[test]
fn missed_view_reopens_streams() {
    let two = [A, B];
    let mut watching = Watching::begins(5, &two);
    let again = format!("reopen {A}");
    assert_eq!(watching.receives(A, [], Some(4)), [&*again], "it may be of another ring");
    assert_eq!(watching.receives(A, [], Some(4)), NOTHING, "once");
    watching.opens(A);
    assert_eq!(watching.receives(A, [], Some(5)), NOTHING);
    assert_eq!(watching.sees(6, &two), NOTHING, "the same ring");
    assert_eq!(watching.sees(7, &[A, B, C]), NOTHING, "they will tell by themselves");
    assert_eq!(watching.sees(9, &[A, B, C]), NOTHING, "what is settled is settled");
    assert_eq!(watching.receives(A, [], Some(7)), [&*again]);
}

#[test]
fn restarted_cluster_is_believed() {
    let mut watching = Watching::begins(100, &[A]);
    watching.receives(A, [("g", is(&["ann"])), ("h", is(&["ann"]))], Some(100));
    assert_eq!(watching.sees(1, &[B]), NOTHING);
    watching.opens(B);
    assert_eq!(watching.receives(B, [("g", is(&["bob"]))], Some(1)), ["-ann", "+bob", "-ann", "vacated"]);
    assert_eq!(watching.sees(0, &[B]).len(), 1, "a surviving gateway is asked again");
}
