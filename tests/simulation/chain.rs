//! (16) What registers over a ledger show is committed, and what is committed is one chain.

use std::collections::BTreeSet;

use super::{
    checker::Found,
    history::{Fact, Record},
};

pub fn check(history: &[Record], found: &mut Found) {
    let (mut committed, mut newest, mut forgotten) = (BTreeSet::new(), None, false);
    for record in history {
        match &record.fact {
            Fact::Committed { epoch, before } => {
                if let Some(newest) = newest.filter(|newest| newest != before && !forgotten) {
                    found.add(16, format!("view {epoch} is made from {before}, but the ledger had {newest}"));
                }
                committed.insert(*epoch);
                newest = Some(*epoch);
            }
            Fact::Shown { no, epoch } if !committed.contains(epoch) => {
                found.add(16, format!("register {no} shows view {epoch}, which is not committed"));
            }
            // From now on members may know more than the ledger, whose views are made from theirs then.
            Fact::Forgotten => forgotten = true,
            _ => {}
        }
    }
}
