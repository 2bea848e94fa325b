//! The apps of a shard's clients.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use crate::{
    apps::{App, AppTable},
    shard::pusher::client::PusherTenant,
};

/// By the apps' ids.
#[derive(Default)]
pub(crate) struct Tenants(HashMap<Box<str>, Rc<PusherTenant>>);

impl Tenants {
    /// An app as its clients here share it.
    pub(crate) fn of(&mut self, app: &Arc<App>) -> Rc<PusherTenant> {
        if let Some(known) = self.0.get(&*app.id).filter(|known| Arc::ptr_eq(&known.app, app)) {
            return Rc::clone(known);
        }
        let tenant = Rc::new(PusherTenant::new(app));
        self.0.insert(app.id.as_str().into(), Rc::clone(&tenant));
        tenant
    }

    /// Forgets those that are not in the table.
    pub(super) fn retain(&mut self, table: &AppTable) {
        self.0.retain(|id, _| table.by_id(id).is_some());
    }
}
