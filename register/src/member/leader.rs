//! Which worker does what only one in the cluster should do.
//!
//! This is a rule about views, not a lock: while views differ between two workers (a change that
//! has reached only one of them, or a worker cut off from the register), both may believe that
//! they lead, or neither.

use broadgate_proto::{
    id::Incarnation,
    v1::{MemberState, View},
};

use broadgate_proto::view::workers;

/// Is this the ready worker of the service with the lowest incarnation?
#[must_use]
pub fn leads(view: &View, service: &str, worker: Incarnation) -> bool {
    // Texts of one length in this alphabet order as their numbers do, but a view from the wire
    // need not be ordered.
    workers(view, service)
        .filter(|member| member.state() == MemberState::Ready)
        .filter_map(|member| member.incarnation.parse::<Incarnation>().ok())
        .min()
        == Some(worker)
}

#[cfg(test)]
mod tests {
    use broadgate_proto::v1::{Member, Role};

    use super::*;

    #[test]
    fn the_lowest_ready_worker_of_the_service_leads() {
        let worker = |bits, state: MemberState, service: &str| Member {
            incarnation: Incarnation::from_bits(bits).to_string(),
            role: Role::Worker.into(),
            state: state.into(),
            services: vec![service.to_owned()],
            ..Member::default()
        };
        let view = View {
            epoch: None,
            before: None,
            members: vec![
                worker(9, MemberState::Ready, "chat"),
                worker(1, MemberState::Draining, "chat"),
                worker(2, MemberState::Ready, "mail"),
                worker(5, MemberState::Ready, "chat"),
            ],
        };
        let leads_chat = |bits| leads(&view, "chat", Incarnation::from_bits(bits));
        assert!(leads_chat(5));
        assert!(!leads_chat(1) && !leads_chat(2) && !leads_chat(9));
        assert!(leads(&view, "mail", Incarnation::from_bits(2)));
        assert!(!leads(&view, "none", Incarnation::from_bits(2)));
    }
}
