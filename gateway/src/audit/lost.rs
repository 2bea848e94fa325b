//! Lines that the audit lacks: how many, and why.

use std::sync::{Arc, Mutex, PoisonError};

use metrics::counter;

/// Why the audit lacks lines; empty if it has all.
#[derive(Debug, Clone, Default)]
pub(super) struct AuditTrouble(Arc<Mutex<String>>);

impl AuditTrouble {
    pub(super) fn set(&self, why: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    pub(super) fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Lines that are not in the audit, by why.
pub(super) fn lost(reason: &'static str, count: usize) {
    counter!("broadgate_gateway_audit_lost_total", "reason" => reason).increment(count as u64);
}
