//! The app that `up` makes on its first start, so that Pusher clients and Laravel have one at once.

use std::{
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use broadgate_gateway::apps::App;

use crate::{
    apps::{Reach, Source, fresh, laravel_settings},
    failure::Failure,
};

/// Digits: some of the SDKs take no other ids.
const ID: &str = "1";
/// The app that the chat page connects to.
pub(super) const CHAT: &str = "default";

/// The file of apps that the gateways are given.
pub(super) struct AppsFile {
    pub(super) path: PathBuf,
    /// It was made just now.
    made: bool,
    /// One that takes Pusher clients.
    app: Option<App>,
}

impl AppsFile {
    /// The user's file, or that in the state directory, which is made if it is not there. None if it
    /// cannot be made: a cluster runs without it.
    pub(super) fn open(
        given: Option<&Path>,
        state: &Path,
        config: Option<PathBuf>,
    ) -> Result<Option<Self>, Failure> {
        let (path, mut made) = (given.map_or_else(|| state.join("apps.toml"), Path::to_owned), false);
        if given.is_none() && !path.exists() {
            if let Err(error) = make(&path, &fresh(ID)?) {
                say!(
                    "no app for Pusher clients: {} cannot be made: {error}; say with --state where it may be",
                    path.display()
                );
                return Ok(None);
            }
            made = true;
        }
        // As the gateways will read it: what is wrong is told once.
        let source = Source { config, apps: Some(path.clone()), raw: vec![CHAT.to_owned()] };
        let apps = source.read(&mut Vec::new()).and_then(|reading| reading.open()).map_err(Failure::Usage)?;
        let table = apps.load();
        let mut with_key = table.iter().filter(|app| !app.keys.is_empty());
        let named = table.by_id(ID).filter(|app| !app.keys.is_empty());
        let app = named.or_else(|| with_key.next()).map(|app| App::clone(app));
        Ok(Some(Self { path, made, app }))
    }

    /// What is told of it: everything to a newcomer at a terminal, else where it stands.
    pub(super) fn told(&self, reach: &Reach, is_terminal: bool) -> String {
        let path = self.path.display();
        let Some((app, key)) = self.app.as_ref().and_then(|app| Some((app, app.keys.first()?))) else {
            return format!("\nNo app with a key is in {path}: broadgate apps new ID prints one to paste\n");
        };
        let url = match reach.port {
            8080 if reach.host == "127.0.0.1" => String::new(),
            port => format!(" --url {}://{}:{port}", reach.scheme, reach.host),
        };
        let text = format!(
            "\nFor Laravel and pusher-js: app {:?}, key {}, its secret is in {path}\n\
             What to put into .env and Echo: broadgate apps env {}{url} --apps {path}\n\
             Try it: {}://{}:{}/console#app={}&key={}\n",
            app.id, key.key, app.id, reach.scheme, reach.host, reach.port, app.id, key.key
        );
        if self.made && is_terminal {
            return format!("{text}\n{}", laravel_settings(app, key, reach));
        }
        text
    }
}

/// Whole or not at all, and for nobody else's eyes.
fn make(path: &Path, app: &str) -> std::io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let text = format!("# Made by `broadgate up`; the gateways read it again when it changes.\n\n{app}");
    let unfinished = path.with_extension(format!("{}.new", std::process::id()));
    let mut file =
        std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_app_is_made_once_and_told() {
        let dir = std::env::temp_dir().join(format!("broadgate-up-app-{}", std::process::id()));
        let reach = Reach::parse("http://127.0.0.1:8080").unwrap();
        let first = AppsFile::open(None, &dir, None).unwrap().unwrap();
        let mode = std::fs::metadata(&first.path).unwrap().permissions().mode();
        assert_eq!((mode & 0o777, std::fs::read_dir(&dir).unwrap().count()), (0o600, 1));
        let key = &first.app.as_ref().unwrap().keys[0];
        let (short, long) = (first.told(&reach, false), first.told(&reach, true));
        assert!(short.contains(&key.key) && !short.contains(key.secret.reveal()), "{short}");
        assert!(
            short.contains("apps env 1 --apps")
                && short.lines().count() == 4
                && short.contains("/console#app=1&key="),
            "{short}"
        );
        assert!(long.starts_with(&short) && long.contains(key.secret.reveal()), "{long}");
        let again = AppsFile::open(None, &dir, None).unwrap().unwrap();
        assert_eq!(again.app, first.app);
        let moved = Reach::parse("http://127.0.0.1:8081").unwrap();
        assert!(again.told(&moved, true).contains("--url http://127.0.0.1:8081"));
        assert!(!again.told(&reach, true).contains(key.secret.reveal()), "only a newcomer is told all");
        std::fs::write(&first.path, "[[apps]]\nnmae = 1\n").unwrap();
        let Err(Failure::Usage(wrong)) = AppsFile::open(None, &dir, None) else { panic!("it was taken") };
        assert!(wrong.contains("apps.toml:2: unknown field"), "{wrong}");
        std::fs::write(&first.path, "").unwrap();
        assert!(AppsFile::open(None, &dir, None).unwrap().unwrap().told(&reach, true).contains("apps new"));
        std::fs::remove_dir_all(&dir).unwrap();
        std::fs::write(&dir, "").unwrap();
        assert!(AppsFile::open(None, &dir, None).unwrap().is_none(), "a cluster runs without it");
        std::fs::remove_file(&dir).unwrap();
    }
}
