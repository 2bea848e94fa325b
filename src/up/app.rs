//! The app that `up` makes on its first start, so that Pusher clients and Laravel have one at once.

use std::path::{Path, PathBuf};

use broadgate_gateway::apps::{App, KeyPair};

use crate::{
    apps::{Source, fresh},
    failure::Failure,
    replaced_file,
};

/// Digits: some of the SDKs take no other ids.
const ID: &str = "1";
/// The app that the chat page connects to.
pub(super) const CHAT: &str = "default";

/// The file of apps that the gateways are given.
pub(super) struct DemoAppsFile {
    pub(super) path: PathBuf,
    /// One that takes Pusher clients.
    app: Option<App>,
}

impl DemoAppsFile {
    /// The user's file, or that in the state directory, which is made if it is not there. None if it
    /// cannot be made: a cluster runs without it.
    pub(super) fn open(
        given: Option<&Path>,
        state: &Path,
        config: Option<PathBuf>,
    ) -> Result<Option<Self>, Failure> {
        let path = given.map_or_else(|| state.join("apps.toml"), Path::to_owned);
        if given.is_none()
            && !path.exists()
            && let Err(error) = make(&path, &fresh(ID)?)
        {
            say!(
                "no app for Pusher clients: cannot create {}: {error}; choose another folder with --state",
                path.display()
            );
            return Ok(None);
        }
        // Read as the gateways will read it, so that a mistake is reported once.
        let source = Source { config, apps: Some(path.clone()), raw: vec![CHAT.to_owned()] };
        let apps = source.read(&mut Vec::new()).and_then(|reading| reading.open()).map_err(Failure::Usage)?;
        let table = apps.load();
        let mut with_key = table.iter().filter(|app| !app.keys.is_empty());
        let named = table.by_id(ID).filter(|app| !app.keys.is_empty());
        let app = named.or_else(|| with_key.next()).map(|app| App::clone(app));
        Ok(Some(Self { path, app }))
    }

    /// The app for Pusher clients and its first key; none if no app of the file has a key.
    pub(super) fn pusher_app(&self) -> Option<(&App, &KeyPair)> {
        let app = self.app.as_ref()?;
        Some((app, app.keys.first()?))
    }
}

fn make(path: &Path, app: &str) -> std::io::Result<()> {
    let text = format!("# Made by `broadgate up`; the gateways read it again when it changes.\n\n{app}");
    replaced_file::replace(path, &text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_app_is_made_once() {
        let dir = std::env::temp_dir().join(format!("broadgate-up-app-{}", std::process::id()));
        let first = DemoAppsFile::open(None, &dir, None).unwrap().unwrap();
        let mode = std::fs::metadata(&first.path).unwrap().permissions().mode();
        assert_eq!((mode & 0o777, std::fs::read_dir(&dir).unwrap().count()), (0o600, 1));
        assert_eq!(first.pusher_app().unwrap().0.id, ID);
        let again = DemoAppsFile::open(None, &dir, None).unwrap().unwrap();
        assert_eq!(again.app, first.app);
        std::fs::write(&first.path, "[[apps]]\nnmae = 1\n").unwrap();
        let Err(Failure::Usage(wrong)) = DemoAppsFile::open(None, &dir, None) else { panic!("it was taken") };
        assert!(wrong.contains("apps.toml:2: unknown field"), "{wrong}");
        std::fs::write(&first.path, "").unwrap();
        assert!(DemoAppsFile::open(None, &dir, None).unwrap().unwrap().pusher_app().is_none());
        std::fs::remove_dir_all(&dir).unwrap();
        std::fs::write(&dir, "").unwrap();
        assert!(DemoAppsFile::open(None, &dir, None).unwrap().is_none(), "a cluster runs without it");
        std::fs::remove_file(&dir).unwrap();
    }
}
