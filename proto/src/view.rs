//! Reading views.

use crate::{
    id::Incarnation,
    v1::{Epoch, Member, MemberState, Role, View},
};

/// The epoch of a view; 0.0 if it names none.
#[must_use]
pub fn epoch(view: &View) -> Epoch {
    view.epoch.unwrap_or_default()
}

/// The gateways of a view, in order of incarnation, in whatever state.
pub fn gateways(view: &View) -> impl Iterator<Item = &Member> {
    view.members.iter().filter(|member| member.role() == Role::Gateway)
}

/// The gateways that are ready: those that own topics.
pub fn ready_gateways(view: &View) -> impl Iterator<Item = &Member> {
    gateways(view).filter(|member| member.state() == MemberState::Ready)
}

/// What a register says to a member that it removes for its silence.
pub const LEASE_ENDED: &str = "not heard for a lease";

/// Whether a member announces that it goes: in any state but joining and ready, also in one that this version does
/// not know.
#[must_use]
pub fn goes(member: &Member) -> bool {
    !matches!(member.state(), MemberState::Joining | MemberState::Ready)
}

/// Whether a gateway has announced that it has no clients any more.
#[must_use]
pub fn is_leaving(member: &Member) -> bool {
    member.state() == MemberState::Leaving
}

/// The workers of a service, in order of incarnation, in whatever state.
pub fn workers<'a>(view: &'a View, service: &'a str) -> impl Iterator<Item = &'a Member> {
    view.members.iter().filter(move |member| {
        member.role() == Role::Worker && member.services.iter().any(|own| own == service)
    })
}

/// A member's size in an encoded view, in bytes.
#[must_use]
pub fn member_bytes(member: &Member) -> usize {
    let bytes = prost::Message::encoded_len(member);
    // Its tag is one byte.
    1 + prost::length_delimiter_len(bytes) + bytes
}

/// The member of this incarnation.
#[must_use]
pub fn find(view: &View, incarnation: Incarnation) -> Option<&Member> {
    let wanted = incarnation.to_string();
    view.members.iter().find(|member| member.incarnation == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(bits: u64, role: Role, state: MemberState, services: &[&str]) -> Member {
        Member {
            incarnation: Incarnation::from_bits(bits).to_string(),
            role: role.into(),
            state: state.into(),
            services: services.iter().map(|&s| s.to_owned()).collect(),
            ..Member::default()
        }
    }

    #[test]
    fn state_of_a_later_version_is_that_of_a_member_that_goes() {
        let later = Member { state: 77, ..member(1, Role::Gateway, MemberState::Ready, &[]) };
        assert!(goes(&later) && !is_leaving(&later));
        let view = View { members: vec![later], ..View::default() };
        assert_eq!((gateways(&view).count(), ready_gateways(&view).count()), (1, 0));
        let leaving = member(2, Role::Gateway, MemberState::Leaving, &[]);
        assert!(goes(&leaving) && is_leaving(&leaving));
    }

    #[test]
    fn a_view_is_read_by_role_state_and_service() {
        let view = View {
            epoch: Some(Epoch::new(1, 4)),
            members: vec![
                member(1, Role::Gateway, MemberState::Ready, &[]),
                member(2, Role::Gateway, MemberState::Draining, &[]),
                member(3, Role::Worker, MemberState::Ready, &["chat", "mail"]),
                member(4, Role::Worker, MemberState::Ready, &["mail"]),
            ],
            before: None,
        };
        assert_eq!(gateways(&view).count(), 2);
        assert_eq!(ready_gateways(&view).count(), 1);
        assert_eq!(view.members.iter().map(goes).collect::<Vec<_>>(), [false, true, false, false]);
        assert_eq!(workers(&view, "mail").count(), 2);
        assert_eq!(workers(&view, "chat").count(), 1);
        assert!(find(&view, Incarnation::from_bits(4)).is_some());
        assert!(find(&view, Incarnation::from_bits(5)).is_none());
        assert_eq!(epoch(&view), Epoch::new(1, 4));
        assert_eq!(epoch(&View::default()), Epoch::new(0, 0));
    }
}
