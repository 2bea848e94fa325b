//! The keys of a cluster in etcd; `register/etcd/proto/ledger.proto` says what they hold. Pure.

use broadgate_proto::v1::Epoch;

/// The keys below a prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    pub leader: String,
    pub state: String,
    views: String,
}

impl Keys {
    pub fn below(prefix: &str) -> Self {
        Self {
            leader: format!("{prefix}leader"),
            state: format!("{prefix}state"),
            views: format!("{prefix}views/"),
        }
    }

    /// Keys are ordered as epochs are.
    pub fn view(&self, epoch: Epoch) -> String {
        format!("{}{:016x}.{:016x}", self.views, epoch.term, epoch.count)
    }

    /// Before the first and behind the last view.
    pub fn views(&self) -> (String, String) {
        (self.view(Epoch::new(0, 0)), format!("{}~", self.views))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_ordered_as_their_epochs() {
        let keys = Keys::below("b/");
        let epochs = [Epoch::new(0, 0), Epoch::new(9, 10), Epoch::new(10, 9), Epoch::new(1 << 47, 1)];
        let all: Vec<_> = epochs.iter().map(|epoch| keys.view(*epoch)).collect();
        assert!(all.is_sorted() && all[0] == keys.views().0 && keys.views().1 > all[3]);
        assert!(!(keys.views().0..keys.views().1).contains(&keys.leader));
        assert!(!(keys.views().0..keys.views().1).contains(&keys.state));
    }
}
