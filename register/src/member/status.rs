//! What a process sees of its membership: the views, and the register that it follows.

use std::sync::Arc;

use broadgate_proto::v1::{RefusedMember, View};
use tokio::sync::{broadcast, watch};

/// Which register is being followed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RegisterStatus {
    /// Its address as configured: the one that answers, or that is being tried.
    pub address: String,
    /// Does it answer now?
    pub heard: bool,
    /// Why it did not when it was last tried, or which other register is active as well; empty if all is
    /// well.
    pub trouble: String,
    /// Gateways that only another register knows: until members agree on one, no answer is complete.
    pub outside: Vec<String>,
    /// What keeps its list: "" is its memory.
    pub ledger: String,
    /// Whether it refused this member when that last asked, with the sentence in `trouble`.
    pub refuses: bool,
    /// Whom it has refused lately, if this is a gateway.
    pub refused: Arc<[RefusedMember]>,
    /// How long the oldest change that the ledger has not accepted had waited at the last beat.
    pub ledger_lag_ms: u32,
}

impl RegisterStatus {
    /// Before anything was tried.
    pub(super) fn first(registers: &[String]) -> Self {
        Self { address: registers.first().cloned().unwrap_or_default(), ..Self::default() }
    }
}

/// Publishes what the thread knows.
pub(super) struct StatusPublisher {
    pub views: watch::Sender<Arc<View>>,
    pub status: watch::Sender<RegisterStatus>,
    /// Every view, for members that must not miss one.
    pub every: Option<broadcast::Sender<Arc<View>>>,
}

impl StatusPublisher {
    pub fn view(&self, view: Arc<View>) {
        if let Some(every) = &self.every {
            // Nobody may be listening.
            let _ = every.send(view.clone());
        }
        self.views.send_replace(view);
    }

    pub fn heard(&self, register: &str) {
        self.publish(register, true, String::new(), Vec::new());
    }

    /// A register that is not configured has taken this member in.
    pub fn heard_at_another(&self, register: &str) {
        let trouble =
            "it is not among cluster.register, and one that is has stepped down for it: give every \
                       process its address"
                .to_owned();
        self.publish(register, true, trouble, Vec::new());
    }

    pub fn away(&self, register: &str, trouble: String) {
        // What another register knows is still not known here.
        let outside = self.status.borrow().outside.clone();
        self.publish(register, false, trouble, outside);
    }

    /// The register says that it does not take this member in.
    pub fn refused(&self, register: &str, sentence: String) {
        self.away(register, sentence);
        self.status.send_modify(|status| status.refuses = true);
    }

    /// Whom the followed register refuses.
    pub fn refused_members(&self, members: Vec<RefusedMember>) {
        self.status.send_if_modified(|status| {
            let differs = *status.refused != *members;
            status.refused = members.into();
            differs
        });
    }

    /// Another register is active, and knows of these gateways.
    pub fn split(&self, register: &str, trouble: String, outside: Vec<String>) {
        self.publish(register, true, trouble, outside);
    }

    /// What the followed register says of its ledger.
    pub fn ledger(&self, name: Option<&str>, lag_ms: u32) {
        self.status.send_if_modified(|status| {
            let same = name.is_none_or(|name| name == status.ledger) && status.ledger_lag_ms == lag_ms;
            if let Some(name) = name {
                name.clone_into(&mut status.ledger);
            }
            status.ledger_lag_ms = lag_ms;
            !same
        });
    }

    fn publish(&self, register: &str, heard: bool, trouble: String, outside: Vec<String>) {
        metrics::gauge!("broadgate_member_register_heard").set(if heard { 1.0 } else { 0.0 });
        metrics::gauge!("broadgate_member_register_outside").set(outside.len() as f64);
        self.status.send_if_modified(|old| {
            let (ledger, ledger_lag_ms) = (old.ledger.clone(), old.ledger_lag_ms);
            let address = register.to_owned();
            // Of another register nothing is known yet.
            let refused = if heard { old.refused.clone() } else { Arc::default() };
            let status = RegisterStatus {
                address,
                heard,
                trouble,
                outside,
                ledger,
                refuses: false,
                refused,
                ledger_lag_ms,
            };
            let differs = *old != status;
            *old = status;
            differs
        });
    }
}
