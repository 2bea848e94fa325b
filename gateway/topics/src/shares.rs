//! Bytes that apps use of a shared budget. Pure.
//!
//! No app is refused before the budget is used up; then the app above an equal share loses first, so that one
//! app's flood costs no other app its entries.

use std::collections::HashMap;

/// What each app uses, and all of them together.
#[derive(Debug, Default)]
pub(super) struct Shares {
    apps: HashMap<Box<str>, usize>,
    total: usize,
}

impl Shares {
    pub(super) fn add(&mut self, app: &str, bytes: usize) {
        self.total += bytes;
        match self.apps.get_mut(app) {
            Some(used) => *used += bytes,
            None => {
                self.apps.insert(app.into(), bytes);
            }
        }
    }

    pub(super) fn sub(&mut self, app: &str, bytes: usize) {
        let Some(used) = self.apps.get_mut(app) else { return };
        *used = used.saturating_sub(bytes);
        self.total = self.total.saturating_sub(bytes);
        if *used == 0 {
            self.apps.remove(app);
        }
    }

    pub(super) const fn total(&self) -> usize {
        self.total
    }

    pub(super) fn of(&self, app: &str) -> usize {
        self.apps.get(app).copied().unwrap_or(0)
    }

    /// The app that loses when the budget is used up and `app` has just added something: `app` itself if it
    /// uses more than an equal share, else the app that uses most. Looking at every app is the rare case.
    pub(super) fn giver(&self, app: &str) -> Option<Box<str>> {
        if self.of(app) * self.apps.len() > self.total {
            return Some(app.into());
        }
        let most = self.apps.iter().max_by(|one, other| one.1.cmp(other.1).then_with(|| other.0.cmp(one.0)));
        most.map(|(app, _)| app.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_app_over_its_share_gives() {
        let mut shares = Shares::default();
        shares.add("small", 10);
        assert_eq!(shares.giver("small").as_deref(), Some("small"), "alone");
        shares.add("large", 90);
        assert_eq!(shares.giver("small").as_deref(), Some("large"));
        assert_eq!(shares.giver("large").as_deref(), Some("large"));
        shares.sub("large", 90);
        assert_eq!((shares.total(), shares.of("large")), (10, 0));
        assert_eq!(shares.giver("none").as_deref(), Some("small"));
    }
}
