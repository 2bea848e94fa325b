//! What the register's logs and metrics say.

use broadgate_proto::v1::{Member, MemberState, Role, View};
use metrics::{counter, gauge, histogram};

use super::{step::Happened, view_stream::OutgoingView};

/// Counts a view that goes to one member or watcher.
pub(super) fn sent(view: &OutgoingView) {
    let form = match view {
        OutgoingView::Whole(_) => "whole",
        OutgoingView::Change(_) => "changes",
    };
    counter!("broadgate_register_views_sent_total", "form" => form).increment(1);
}

/// Logs and counts one event.
pub(super) fn happened(happened: &Happened) {
    match happened {
        Happened::Joined(member) => {
            counter!("broadgate_register_joins_total").increment(1);
            log(member, "joined");
        }
        Happened::Redialled(member) => {
            counter!("broadgate_register_redials_total").increment(1);
            log(member, "redialled");
        }
        Happened::Removed(member, reason) => {
            let reason = reason.label();
            counter!("broadgate_register_removed_total", "reason" => reason).increment(1);
            let Member { name, incarnation, .. } = member;
            tracing::info!(%name, %incarnation, role = role(member), reason, "removed");
        }
        Happened::SteppedDown { from, higher, members } => {
            counter!("broadgate_register_step_downs_total").increment(1);
            tracing::error!(
                %from, %higher, members,
                "another register is active under a higher term: this one steps down, and its members go there; \
                 run only one register"
            );
        }
        Happened::Led { stored, members } => {
            leads(true);
            counter!("broadgate_register_elections_total").increment(1);
            tracing::info!(%stored, members, "this register leads");
        }
        Happened::Deposed { why } => {
            leads(false);
            tracing::warn!(why, "this register leads no more: its members go to the next leader");
        }
        Happened::Committed { took } => {
            histogram!("broadgate_register_ledger_commit_seconds").record(took.as_secs_f64());
        }
        Happened::WriteUnknown { why } => {
            tracing::warn!(why, "nobody knows whether the ledger has taken a write: repeating it");
        }
        Happened::LedgerBehind { ledger, reported } => {
            counter!("broadgate_register_ledger_behind_total").increment(1);
            tracing::error!(
                %ledger, %reported,
                "a member knows a view that the ledger has not: the members' knowledge is taken over; expected                  after a move from memory to etcd and after etcd was restored from a backup, else etcd has lost data"
            );
        }
        Happened::TookOver { from, term, members } => {
            counter!("broadgate_register_takeovers_total").increment(1);
            tracing::info!(%from, term, members, "took over the view of another register");
        }
    }
}

/// Whether this register leads.
pub(super) fn leads(leads: bool) {
    gauge!("broadgate_register_leads").set(if leads { 1.0 } else { 0.0 });
}

/// Sets the gauges that describe the view.
pub(super) fn view(view: &View) {
    for (role, role_label) in [(Role::Gateway, "gateway"), (Role::Worker, "worker")] {
        for (state, state_label) in [
            (MemberState::Joining, "joining"),
            (MemberState::Ready, "ready"),
            (MemberState::Draining, "draining"),
            (MemberState::Leaving, "leaving"),
        ] {
            let counted =
                view.members.iter().filter(|one| one.role() == role && one.state() == state).count();
            gauge!("broadgate_register_members", "role" => role_label, "state" => state_label)
                .set(counted as f64);
        }
    }
    let epoch = view.epoch.unwrap_or_default();
    gauge!("broadgate_register_epoch_term").set(epoch.term as f64);
    gauge!("broadgate_register_epoch_number").set(epoch.count as f64);
}

fn log(member: &Member, what: &str) {
    let Member { name, incarnation, address, version, .. } = member;
    tracing::info!(%name, %incarnation, role = role(member), %address, %version, "{what}");
}

fn role(member: &Member) -> &'static str {
    match member.role() {
        Role::Gateway => "gateway",
        Role::Worker => "worker",
        Role::Unspecified => "unknown",
    }
}
