//! The house's floors: imports go down only, between crates, between the rooms of the gateway, and between files.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use syn::visit::Visit;

/// The sources of every crate of the workspace.
const CRATES: [&str; 13] = [
    "proto/src",
    "proto/port/src",
    "proto/tasks/src",
    "proto/tls/src",
    "register/etcd/src",
    "register/src",
    "gateway/topics/src",
    "gateway/pusher/src",
    "gateway/socketio/src",
    "gateway/src",
    "business/src",
    "src",
    "src/bench",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A module, as the path of its names below the crate.
type Module = Vec<String>;

/// Every file of a crate, with the modules that it imports from the same crate.
struct Sources {
    files: BTreeMap<Module, PathBuf>,
    imports: BTreeMap<Module, BTreeSet<Module>>,
}

impl Sources {
    fn read(folder: &str) -> Self {
        let mut files = BTreeMap::new();
        collect(&root().join(folder), &mut Vec::new(), &mut files);
        // The second executable of the root package is a crate of its own.
        if folder == "src" {
            files.retain(|module, _| module.first().is_none_or(|first| first != "bench"));
        }
        Self::of(files)
    }

    fn of(files: BTreeMap<Module, PathBuf>) -> Self {
        let mut imports = BTreeMap::new();
        for (module, path) in &files {
            let syntax = syn::parse_file(&std::fs::read_to_string(path).unwrap()).unwrap();
            let mut paths = Paths::default();
            paths.visit_file(&syntax);
            let found = paths.0.iter().filter_map(|path| resolve(&files, module, path));
            imports.insert(module.clone(), found.filter(|found| found != module).collect());
        }
        Self { files, imports }
    }

    /// Files that import each other, directly or over others.
    fn circles(&self) -> Vec<Vec<&Module>> {
        let reached: BTreeMap<&Module, BTreeSet<&Module>> =
            self.imports.keys().map(|module| (module, self.reached_from(module))).collect();
        let mut circles: BTreeSet<Vec<&Module>> = BTreeSet::new();
        for (module, from_here) in &reached {
            if from_here.contains(module) {
                circles.insert(
                    from_here.iter().filter(|other| reached[*other].contains(module)).copied().collect(),
                );
            }
        }
        circles.into_iter().collect()
    }

    fn reached_from(&self, module: &Module) -> BTreeSet<&Module> {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&Module> = self.imports[module].iter().collect();
        while let Some(module) = next.pop() {
            if reached.insert(module) {
                next.extend(&self.imports[module]);
            }
        }
        reached
    }
}

fn collect(folder: &Path, module: &mut Module, files: &mut BTreeMap<Module, PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && name != "gen" {
            module.push(name);
            collect(&path, module, files);
            module.pop();
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let is_folder = ["mod", "lib", "main"].contains(&&*name);
            let own = if is_folder { module.clone() } else { [&module[..], &[name]].concat() };
            // An executable beside a library only calls it.
            if path.file_name().is_none_or(|name| name != "main.rs") || path.ends_with("bench/main.rs") {
                files.insert(own, path);
            }
        }
    }
}

/// The paths that a file names, outside of its tests.
#[derive(Default)]
struct Paths(Vec<Vec<String>>);

impl Paths {
    fn tree(&mut self, tree: &syn::UseTree, before: &[String]) {
        let with = |ident: &proc_macro2::Ident| [before, &[ident.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.tree(&path.tree, &with(&path.ident)),
            syn::UseTree::Name(name) => self.0.push(with(&name.ident)),
            syn::UseTree::Rename(name) => self.0.push(with(&name.ident)),
            syn::UseTree::Glob(_) => self.0.push(before.to_vec()),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(tree, before)),
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_of_tests(&item.attrs) {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() && path.segments.len() > 1 {
            self.0.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        syn::visit::visit_path(self, path);
    }
}

fn is_of_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|condition| condition == "test")
    })
}

/// The file in which a path of this file leads, if it stays in the crate.
fn resolve(files: &BTreeMap<Module, PathBuf>, from: &Module, path: &[String]) -> Option<Module> {
    let ups = path.iter().take_while(|name| *name == "super").count();
    let mut module = match path[0].as_str() {
        "crate" => path[1..].to_vec(),
        "super" => [&from[..from.len().checked_sub(ups)?], &path[ups..]].concat(),
        "self" => [&from[..], &path[1..]].concat(),
        // A module that this file declares.
        _ => {
            let below = [&from[..], &path[..1]].concat();
            files.get(&below)?;
            [&from[..], path].concat()
        }
    };
    while !files.contains_key(&module) {
        module.pop()?;
    }
    Some(module)
}

#[test]
fn no_files_import_each_other() {
    for folder in CRATES {
        let sources = Sources::read(folder);
        assert!(sources.files.len() > 1, "{folder}");
        let circles: Vec<_> = sources
            .circles()
            .iter()
            .map(|circle| circle.iter().map(|module| module.join("/")).collect::<Vec<_>>())
            .collect();
        assert!(circles.is_empty(), "files of {folder} import each other: {circles:?}");
    }
}

/// The check finds what it is for.
#[test]
fn circle_is_found() {
    let folder = std::env::temp_dir().join(format!("broadgate-floors-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("lib.rs"), "mod a; mod b; mod c;").unwrap();
    std::fs::write(folder.join("a.rs"), "use crate::b::B; pub struct A;").unwrap();
    std::fs::write(folder.join("b.rs"), "use super::c::C; pub struct B;").unwrap();
    std::fs::write(folder.join("c.rs"), "fn c() { crate::a::A; }").unwrap();
    let mut files = BTreeMap::new();
    collect(&folder, &mut Vec::new(), &mut files);
    let sources = Sources::of(files);
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(sources.circles(), [[&vec!["a".to_owned()], &vec!["b".to_owned()], &vec!["c".to_owned()]]]);
}

/// The rooms of a table in ARCHITECTURE.md whose head is `head`, row by row.
fn rows(head: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let table = &text[text.find(head).unwrap_or_else(|| panic!("ARCHITECTURE.md has no table {head:?}"))..];
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let rooms = row.split('|').nth(1).unwrap();
        rooms.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    })
    .collect()
}

/// Rooms stand above those that they import, and no room is forgotten.
#[test]
fn rooms_of_the_gateway_import_downwards() {
    let rows = rows("| rooms of `gateway/src`");
    let floor = |room: &str| rows.iter().position(|row| row.iter().any(|own| own == room));
    let sources = Sources::read("gateway/src");
    for (module, imports) in &sources.imports {
        let Some(room) = module.first() else { continue };
        let own =
            floor(room).unwrap_or_else(|| panic!("ARCHITECTURE.md has no floor for gateway/src/{room}"));
        for imported in imports.iter().filter_map(|module| module.first()).filter(|other| *other != room) {
            let below = floor(imported).unwrap_or_else(|| panic!("no floor for gateway/src/{imported}"));
            assert!(
                own < below,
                "gateway/src/{} imports {imported}, which is not below {room}",
                module.join("/")
            );
        }
    }
    for room in rows.iter().flatten() {
        assert!(
            sources.files.keys().any(|module| module.first() == Some(room)),
            "ARCHITECTURE.md names gateway/src/{room}, which does not exist"
        );
    }
}

/// What decides knows no runtime, no socket and no clock.
#[test]
fn pure_files_import_no_runtime() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let start = text.find("What decides is pure").expect("ARCHITECTURE.md lists what is pure");
    let listed = text[start..].lines().next().unwrap();
    let paths: Vec<&str> = listed.split('`').skip(1).step_by(2).filter(|path| path.contains('/')).collect();
    assert!(paths.len() > 8, "{paths:?}");
    for path in paths {
        let path = root().join(path);
        let mut files = BTreeMap::new();
        if path.is_dir() {
            collect(&path, &mut Vec::new(), &mut files);
        } else {
            files.insert(Vec::new(), path);
        }
        for path in files.values().filter(|path| !path.to_str().unwrap().contains("_tests")) {
            let syntax = syn::parse_file(&std::fs::read_to_string(path).unwrap()).unwrap();
            let mut paths = Paths::default();
            paths.visit_file(&syntax);
            for named in paths.0 {
                let bad = named[0] == "tokio"
                    || named.iter().any(|part| part == "SystemTime" || part == "TcpStream");
                assert!(!bad, "{} is listed as pure and names {}", path.display(), named.join("::"));
            }
        }
    }
}

/// Files that start tasks without `broadgate_tasks`, and why they may.
const OWN_SPAWNS: [(&str, &str); 4] = [
    (
        "gateway/src/shard/thread.rs",
        "a shard's thread, which has a `ThreadEnd`, and its loop, which the thread joins",
    ),
    ("gateway/src/webhooks/receiver.rs", "a receiver of tests"),
    (
        "src/operate/completions/names.rs",
        "a thread that may hang; its process does not wait for it, and ends",
    ),
    ("register/src/member/thread.rs", "a thread with a runtime of its own, which has a `ThreadEnd`"),
];

/// A task whose panic nobody notices leaves others waiting: all are started by `proto/tasks`, or by a set or tracker
/// that joins them.
#[test]
fn every_task_is_watched() {
    let mut own = BTreeSet::new();
    // The load generator is a program of its own, which somebody watches while it measures.
    for folder in CRATES.iter().filter(|folder| !matches!(**folder, "proto/tasks/src" | "src/bench")) {
        for path in Sources::read(folder).files.values().filter(|path| !path.ends_with("tests.rs")) {
            let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            let source = std::fs::read_to_string(root().join(&path)).unwrap();
            if !path.ends_with("_tests.rs") && starts_tasks(&source) {
                own.insert(path);
            }
        }
    }
    let listed = OWN_SPAWNS.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(own, listed, "start tasks by broadgate_tasks, or list the file with its reason");
}

fn starts_tasks(source: &str) -> bool {
    let mut paths = Paths::default();
    paths.visit_file(&syn::parse_file(source).unwrap());
    paths.0.iter().any(|path| {
        let (last, before) = path.split_last().unwrap();
        let is_builder = before.ends_with(&["thread".to_owned(), "Builder".to_owned()]);
        is_builder
            || matches!(last.as_str(), "spawn" | "spawn_local" | "spawn_blocking")
                && before.iter().any(|part| matches!(part.as_str(), "tokio" | "task" | "thread"))
    })
}

/// The check finds what it is for.
#[test]
fn unwatched_task_is_found() {
    assert!(starts_tasks("fn f() { tokio::spawn(async {}); }"));
    assert!(starts_tasks("use tokio::task; fn f() { task::spawn_blocking(|| {}); }"));
    assert!(starts_tasks("use std::thread; fn f() { thread::spawn(|| {}); }"));
    assert!(starts_tasks("fn f() { std::thread::Builder::new().spawn(|| {}); }"));
    assert!(!starts_tasks("fn f() { broadgate_tasks::spawn(\"part\", async {}); }"));
    assert!(!starts_tasks("#[cfg(test)] mod tests { fn f() { tokio::spawn(async {}); } }"));
}
