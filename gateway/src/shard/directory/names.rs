//! The names of groups and uids in order, for lists by pages. Pure.

use std::ops::Bound;

use super::Directory;
use crate::shard::directory::entries::EntryKind;

impl Directory {
    /// The uids of an app in order, from behind this one, with how many clients each has.
    pub(crate) fn uids_after<'a>(
        &'a self,
        app: &'a str,
        after: &'a str,
    ) -> impl Iterator<Item = (&'a str, u64)> {
        self.names(app, EntryKind::Uid, Bound::Excluded(after))
    }

    /// The groups of an app that begin with this, in order, from behind that one, with how many clients each
    /// has.
    pub(crate) fn groups_after<'a>(
        &'a self,
        app: &'a str,
        prefix: &'a str,
        after: &'a str,
    ) -> impl Iterator<Item = (&'a str, u64)> {
        let from = if prefix > after { Bound::Included(prefix) } else { Bound::Excluded(after) };
        self.names(app, EntryKind::Group, from).take_while(move |(name, _)| name.starts_with(prefix))
    }

    fn names<'a>(
        &'a self,
        app: &'a str,
        kind: EntryKind,
        from: Bound<&'a str>,
    ) -> impl Iterator<Item = (&'a str, u64)> {
        self.app_id(app).into_iter().flat_map(move |id| {
            let app = &self.apps[id as usize];
            let names = kind.names(app).range::<str, _>((from, Bound::Unbounded));
            names.filter_map(move |name| {
                let &topic = kind.index(app).get(name)?;
                Some((&**name, self.topics[topic as usize].members.len() as u64))
            })
        })
    }
}
