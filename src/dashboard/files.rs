//! The files of the page, in the executable. It loads nothing from elsewhere.

use std::{borrow::Cow, sync::LazyLock};

/// A file that is served.
pub(super) struct PageFile {
    pub(super) path: &'static str,
    pub(super) content_type: &'static str,
    pub(super) body: Cow<'static, str>,
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// What others have written, as they publish it. Licences lie beside them.
const PREACT: &str = include_str!("page/vendor/preact.js");
const HOOKS: &str = include_str!("page/vendor/hooks.js");
const HTM: &str = include_str!("page/vendor/htm.js");

const OWN: [(&str, &str, &str); 20] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/icon.svg", IMAGE, include_str!("page/icon.svg")),
    ("/look.css", STYLE, include_str!("page/look.css")),
    ("/parts.css", STYLE, include_str!("page/parts.css")),
    ("/app.js", SCRIPT, include_str!("page/app.js")),
    ("/base.js", SCRIPT, include_str!("page/base.js")),
    ("/words.js", SCRIPT, include_str!("page/words.js")),
    ("/live.js", SCRIPT, include_str!("page/live.js")),
    ("/rates.js", SCRIPT, include_str!("page/rates.js")),
    ("/parts.js", SCRIPT, include_str!("page/parts.js")),
    ("/login.js", SCRIPT, include_str!("page/login.js")),
    ("/orders.js", SCRIPT, include_str!("page/orders.js")),
    ("/tap.js", SCRIPT, include_str!("page/tap.js")),
    ("/overview.js", SCRIPT, include_str!("page/overview.js")),
    ("/clients.js", SCRIPT, include_str!("page/clients.js")),
    ("/groups.js", SCRIPT, include_str!("page/groups.js")),
    ("/apps.js", SCRIPT, include_str!("page/apps.js")),
    ("/workers.js", SCRIPT, include_str!("page/workers.js")),
    ("/events.js", SCRIPT, include_str!("page/events.js")),
    ("/doctor.js", SCRIPT, include_str!("page/doctor.js")),
];

static ALL: LazyLock<Vec<PageFile>> = LazyLock::new(|| {
    let own = OWN.map(|(path, content_type, body)| PageFile { path, content_type, body: body.into() });
    let vendored = |path, body: Cow<'static, str>| PageFile { path, content_type: SCRIPT, body };
    // It names its package, which a browser finds only by a path. An import map would have to be an inline script.
    let hooks = HOOKS.replace("from\"preact\"", "from\"/vendor/preact.js\"");
    let mut all: Vec<PageFile> = own.into();
    all.push(vendored("/vendor/preact.js", PREACT.into()));
    all.push(vendored("/vendor/hooks.js", hooks.into()));
    all.push(vendored("/vendor/htm.js", HTM.into()));
    all
});

/// The file of a path.
pub(super) fn find(path: &str) -> Option<&'static PageFile> {
    ALL.iter().find(|file| file.path == path)
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use sha2::{Digest as _, Sha256};

    use super::*;

    /// Vendored files are those of the packages, byte by byte.
    #[test]
    fn vendored_files_are_as_published() {
        // Of the npm packages preact 11.2.0 (MIT): dist/preact.mjs, hooks/dist/hooks.mjs; and htm 3.1.1
        // (Apache-2.0): dist/htm.module.js.
        for (name, body, sum) in [
            ("preact", PREACT, "bdcbd9abdf2c77c5c45326eab42191e949222d479d0d5f69467387a77040cb55"),
            ("hooks", HOOKS, "e862ab2973aa6455eaa0f77c5d832d2157d6be59a17c8ba546550a575b58c6b4"),
            ("htm", HTM, "ab33dd3f38059b9be4d5f5350128eefb2356639c4e0bbe9d9e8b3ba75847e9e4"),
        ] {
            assert_eq!(HEXLOWER.encode(&Sha256::digest(body)), sum, "{name}");
        }
        let licences = [include_str!("page/vendor/preact.LICENCE"), include_str!("page/vendor/htm.LICENCE")];
        assert!(licences[0].contains("The MIT License") && licences[1].contains("Apache License"));
    }

    /// Every module that a script imports is served, and nothing is asked of other hosts.
    #[test]
    fn pages_need_nothing_that_is_not_served() {
        for file in ALL.iter() {
            for part in file.body.split("from").skip(1) {
                let Some(quoted) = part.trim_start().strip_prefix(['"', '\'']) else { continue };
                let path = quoted.split(['"', '\'']).next().unwrap_or_default();
                if path.starts_with('/') {
                    assert!(find(path).is_some(), "{} imports {path}", file.path);
                }
            }
            for host in ["https://", "http://", "//cdn"] {
                let named = file.body.match_indices(host).filter(|(at, _)| {
                    let rest = &file.body[*at..];
                    // The names of XML's vocabularies are no addresses.
                    !rest.starts_with("http://www.w3.org/")
                });
                assert_eq!(named.count(), 0, "{} names {host}", file.path);
            }
        }
        let page = &find("/").unwrap().body;
        for path in ["/app.js", "/look.css", "/parts.css", "/icon.svg"] {
            assert!(page.contains(path), "{path}");
        }
        assert!(find("/vendor/hooks.js").unwrap().body.contains("from\"/vendor/preact.js\""));
        assert!(find("/nothing").is_none() && find("").is_none());
    }
}
