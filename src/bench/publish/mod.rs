//! Who sends what the clients hear.

mod api;
pub(super) mod by;
mod ceiling;
mod sdk;
pub(super) mod to;

use broadgate::failure::Failure;

use crate::{
    engine::Engine,
    load::Sender,
    publish::{
        by::By,
        to::{Publisher, To},
    },
    target::Kind,
};

/// Opens a publisher; on the thread that will use it.
pub(super) fn open<'a>(to: To<'a>) -> Result<Box<dyn Publisher + 'a>, Failure> {
    let by = to.sender.publish.unwrap_or(if to.target.kind == Kind::Ceiling { By::Ceiling } else { By::Sdk });
    Ok(match by {
        By::Sdk => Box::new(sdk::Sdk::open(to, false)?),
        By::Receipt => Box::new(sdk::Sdk::open(to, true)?),
        By::Api => Box::new(api::Api::open(to, true)?),
        By::Events => Box::new(api::Api::open(to, false)?),
        By::Ceiling => Box::new(ceiling::Ceiling::open(to)?),
    })
}

/// Joins raw clients to their groups.
pub(super) async fn join(sender: &Sender, engine: &Engine) -> Result<(), Failure> {
    use broadgate_business::Who;
    if engine.plan.targets.iter().any(|target| target.kind != Kind::Raw) {
        return Ok(());
    }
    let cluster = sender.cluster().await?;
    let locals = engine.locals();
    let ids = crate::load::ids_of(&cluster, &locals).await?;
    let mut by_group = vec![Vec::new(); engine.plan.groups as usize];
    for (id, group) in ids {
        by_group[group as usize].push(id);
    }
    for (ids, name) in by_group.iter().zip(&engine.plan.group_names) {
        for some in ids.chunks(1000) {
            cluster.join(Who::clients(some.to_vec()), [name.clone()]).await?;
        }
    }
    Ok(())
}
