//! Whom an audience reaches. Pure.

use super::Directory;
use crate::{
    command::ClientFilter,
    shard::{group_traffic::SentNow, slots::Slot},
};

impl Directory {
    /// Whom an audience reaches here, each once. `clients` are its listed clients that live here; `sent` is
    /// what they are sent.
    pub(crate) fn select(
        &mut self,
        audience: &ClientFilter,
        (clients, except): (&[Slot], &[Slot]),
        sent: SentNow,
        out: &mut Vec<Slot>,
    ) {
        out.clear();
        let app = &*audience.app;
        if audience.is_one_topic() && clients.is_empty() && except.is_empty() {
            if audience.all {
                out.extend_from_slice(self.all_of(app));
            }
            for uid in &audience.uids {
                out.extend_from_slice(self.uid_members(app, uid));
            }
            for group in &audience.groups {
                out.extend_from_slice(self.sent_to_group(app, group, sent));
            }
            return;
        }
        let mut marks = std::mem::take(&mut self.marks);
        marks.start(self.places.len());
        for &slot in except {
            marks.first(slot);
        }
        for uid in &audience.except_uids {
            marks.all(self.uid_members(app, uid));
        }
        for group in &audience.except_groups {
            marks.all(self.group_members(app, group));
        }
        out.extend(clients.iter().copied().filter(|&slot| marks.first(slot)));
        for uid in &audience.uids {
            out.extend(self.uid_members(app, uid).iter().copied().filter(|&slot| marks.first(slot)));
        }
        for group in &audience.groups {
            out.extend(
                self.sent_to_group(app, group, sent).iter().copied().filter(|&slot| marks.first(slot)),
            );
        }
        if audience.all {
            out.extend(self.all_of(app).iter().copied().filter(|&slot| marks.first(slot)));
        }
        self.marks = marks;
    }

    /// The members of a group that is sent to.
    fn sent_to_group(&mut self, app: &str, group: &str, sent: SentNow) -> &[Slot] {
        let Some(app) = self.app_id(app) else { return &[] };
        let Some(&topic) = self.apps[app as usize].groups.get(group) else { return &[] };
        let topic = &mut self.topics[topic as usize];
        topic.sent.add(sent, topic.members.len());
        &topic.members
    }
}
