//! What the documents say is so.

use std::path::Path;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn paths_that_are_named_exist() {
    for document in ["README.md", "ARCHITECTURE.md", "business/MIGRATING.md", "CHANGELOG.md"] {
        let text = read(document);
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let link = link.split('#').next().unwrap_or_default();
            if !link.is_empty() && !link.contains("://") {
                assert!(base.parent().unwrap().join(link).exists(), "{document}: {link}");
            }
        }
    }
    for path in read("ARCHITECTURE.md").split('`').skip(1).step_by(2) {
        let first = path.split('/').next().unwrap_or_default();
        let rooms = ["proto", "register", "gateway", "business", "src", "tests", "deploy"];
        if path.contains('/') && rooms.contains(&first) && !path.contains(' ') {
            assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists(), "ARCHITECTURE.md: {path}");
        }
    }
}

/// The tests that the migration guide names as proofs are there.
#[test]
fn proofs_that_are_named_exist() {
    let guide = read("business/MIGRATING.md");
    let mut proofs = 0;
    for named in guide.split('`').skip(1).step_by(2) {
        let Some((room, test)) = named.split_once("::") else { continue };
        let file = format!("tests/whole/{room}.rs");
        if Path::new(env!("CARGO_MANIFEST_DIR")).join(&file).exists() && test != "x" {
            assert!(read(&file).contains(&format!("fn {test}(")), "{file} has no test {test}");
            proofs += 1;
        }
    }
    assert!(proofs > 20, "{proofs}");
}

#[test]
fn the_readmes_worker_is_the_example() {
    let example = read("business/examples/readme.rs");
    let program = &example[example.find("use broadgate_business").unwrap()..];
    assert!(read("README.md").contains(program.trim()));
}

/// The body of the README's curl line.
pub fn readme_curl_body() -> String {
    read("README.md").split("-d '").nth(1).unwrap().split('\'').next().unwrap().to_owned()
}

/// Imports go down only.
#[test]
fn floors_go_down_only() {
    for (room, forbidden) in [
        ("proto", &["broadgate_register", "broadgate_gateway", "broadgate_business"][..]),
        ("proto/port", &["broadgate_register", "broadgate_gateway", "broadgate_business"]),
        ("register/src/member", &["crate::server", "broadgate_gateway", "broadgate_business"]),
        ("register", &["broadgate_gateway", "broadgate_business"]),
        ("gateway/topics", &["broadgate_register", "broadgate_gateway", "broadgate_pusher", "tokio"]),
        ("gateway/pusher", &["broadgate_register", "broadgate_gateway", "broadgate_topics", "tokio"]),
        ("gateway/src", &["broadgate_business", "broadgate_register::server"]),
        ("business/src", &["broadgate_gateway", "broadgate_register::server"]),
    ] {
        visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join(room), &mut |file, text| {
            for word in forbidden {
                assert!(!text.contains(word), "{} uses {word}", file.display());
            }
        });
    }
}

fn visit(folder: &Path, check: &mut impl FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            visit(&path, check);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            check(&path, &std::fs::read_to_string(&path).unwrap());
        }
    }
}
