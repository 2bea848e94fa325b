//! One name has one meaning: two types of the production code do not share a name, and none takes the name of
//! a message of the contract.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use syn::{Attribute, Item};

/// The crates' roots. The load generator is a program of its own and not part of this check.
const ROOTS: [&str; 13] = [
    "proto/src/lib.rs",
    "proto/port/src/lib.rs",
    "proto/tasks/src/lib.rs",
    "proto/tls/src/lib.rs",
    "register/etcd/src/lib.rs",
    "register/src/lib.rs",
    "gateway/topics/src/lib.rs",
    "gateway/pusher/src/lib.rs",
    "gateway/socketio/src/lib.rs",
    "gateway/src/lib.rs",
    "business/src/lib.rs",
    "src/lib.rs",
    "proto/src/gen/broadgate.v1.rs",
];

/// Names that may occur more than once, with the one meaning that they have.
const SHARED: [(&str, &str); 11] = [
    ("Core", "a pure state machine"),
    ("Input", "what a pure state machine is given"),
    ("Effect", "what a pure state machine wants done"),
    ("Config", "the settings of a crate's entry point"),
    ("Client", "a client of the cluster, as a shard and as a worker know it"),
    ("Audience", "the contract's message, and how the SDK's callers build it"),
    ("Message", "a message of a client, in the contract and as a handler gets it"),
    ("Closed", "a disconnect, in the contract and as a handler gets it"),
    ("Decision", "an answer to authorize, in the contract and as a handler gives it"),
    ("PusherEvent", "an event of a Pusher client, in the contract and as the SDK gives it"),
    ("Delivery", "whether a message arrived, in the contract and in the homes' ledger"),
];

#[derive(Default)]
struct Declared(BTreeMap<String, Vec<String>>);

impl Declared {
    /// Adds the types of a file and of its modules, except those of tests and benchmarks.
    fn file(&mut self, path: &Path) {
        let source =
            std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let syntax = syn::parse_file(&source).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        self.items(&syntax.items, path, &modules_of(path));
    }

    fn items(&mut self, items: &[Item], path: &Path, modules: &Path) {
        for item in items {
            let (name, attributes) = match item {
                Item::Struct(item) => (&item.ident, &item.attrs),
                Item::Enum(item) => (&item.ident, &item.attrs),
                Item::Type(item) => (&item.ident, &item.attrs),
                Item::Trait(item) => (&item.ident, &item.attrs),
                Item::Mod(item) if !is_conditional(&item.attrs) && !is_generated(path) => {
                    let name = item.ident.to_string();
                    match &item.content {
                        Some((_, items)) => self.items(items, path, &modules.join(name)),
                        None => self.module(&modules.join(name)),
                    }
                    continue;
                }
                _ => continue,
            };
            if !is_conditional(attributes) {
                let folder = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(path);
                self.0.entry(name.to_string()).or_default().push(folder.display().to_string());
            }
        }
    }

    fn module(&mut self, module: &Path) {
        let file = module.with_extension("rs");
        let path = if file.exists() { file } else { module.join("mod.rs") };
        // What a build includes from elsewhere (the generated contract) has no file of its own here.
        if path.exists() {
            self.file(&path);
        }
    }
}

/// The folder of a file's modules.
fn modules_of(path: &Path) -> PathBuf {
    let is_folder =
        path.file_stem().is_some_and(|name| ["mod", "lib", "main"].iter().any(|one| name == *one));
    if is_folder { path.parent().unwrap().to_owned() } else { path.with_extension("") }
}

fn is_conditional(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| attribute.path().is_ident("cfg"))
}

/// The modules of the generated contract hold the services' plumbing.
fn is_generated(path: &Path) -> bool {
    path.parent().is_some_and(|folder| folder.ends_with("gen"))
}

fn declared() -> BTreeMap<String, Vec<String>> {
    let mut declared = Declared::default();
    for root in ROOTS {
        declared.file(&Path::new(env!("CARGO_MANIFEST_DIR")).join(root));
    }
    declared.0
}

#[test]
fn no_two_types_share_a_name() {
    let declared = declared();
    assert!(declared.len() > 500, "too few types were read: {}", declared.len());
    let twice: Vec<String> = declared
        .iter()
        .filter(|(name, places)| places.len() > 1 && !SHARED.iter().any(|(shared, _)| shared == name))
        .map(|(name, places)| format!("{name}: {}", places.join(", ")))
        .collect();
    assert!(twice.is_empty(), "these names have more than one meaning:\n{}", twice.join("\n"));
    let once = |name: &str| declared.get(name).is_none_or(|places| places.len() < 2);
    let unneeded: Vec<&str> = SHARED.iter().map(|(name, _)| *name).filter(|name| once(name)).collect();
    assert!(unneeded.is_empty(), "these need not be listed any more: {unneeded:?}");
}
