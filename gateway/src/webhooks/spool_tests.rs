use std::time::{Duration, Instant};

use broadgate_tasks::Tasks;

use super::*;
use crate::webhooks::journal::Journal;

/// A folder of its own for each test.
pub(in crate::webhooks) struct Folder(pub(in crate::webhooks) PathBuf);

impl Folder {
    pub(in crate::webhooks) fn new() -> Self {
        let name = format!("broadgate-spool-{}-{:x}", std::process::id(), getrandom::u64().unwrap());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What was put aside of a file, sorted; it is removed.
pub(in crate::webhooks) fn take_aside(path: &Path) -> Vec<String> {
    let name = format!("{}.unreadable-", path.file_name().unwrap().to_str().unwrap());
    let files = std::fs::read_dir(path.parent().unwrap()).unwrap().flatten().map(|entry| entry.path());
    let mut aside: Vec<String> = files
        .filter(|path| path.file_name().unwrap().to_str().is_some_and(|file| file.starts_with(&name)))
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::remove_file(path).unwrap();
            text
        })
        .collect();
    aside.sort_unstable();
    aside
}

const ENDPOINT: EndpointId = EndpointId(7);

fn event(seq: u64, json: &str) -> Arc<EndpointEvent> {
    Arc::new(EndpointEvent { seq, channel: "c".into(), at_ms: 1, json: json.into(), arrival: None })
}

fn open(folder: &Folder) -> (Spool, Vec<u64>) {
    let (spool, kept) = Spool::open(&folder.0, "gw/1:é", &Tasks::default().spawner()).unwrap();
    (
        spool,
        kept.iter()
            .map(|(id, event)| {
                assert_eq!(*id, ENDPOINT);
                event.seq
            })
            .collect(),
    )
}

fn file(folder: &Folder) -> PathBuf {
    folder.0.join("gw%2F1%3A%C3%A9.webhooks")
}

#[test]
fn what_is_not_done_is_there_again() {
    let folder = Folder::new();
    let (spool, kept) = open(&folder);
    assert!(kept.is_empty());
    (0..5).for_each(|seq| spool.add(ENDPOINT, &event(seq, "{}")));
    [1, 3, 3, 99].into_iter().for_each(|seq| spool.done(seq));
    drop(spool);
    let (spool, kept) = open(&folder);
    assert_eq!(kept, [0, 2, 4]);
    spool.done(0);
    spool.add(ENDPOINT, &event(5, "{}"));
    drop(spool);
    assert_eq!(open(&folder).1, [2, 4, 5]);
}

/// A crash asks nobody to write what is left.
#[test]
fn what_comes_is_on_disk_within_moments_for_its_owner_alone() {
    let folder = Folder::new();
    let (spool, _) = open(&folder);
    let wait_for = |events| {
        let started = Instant::now();
        while load(&file(&folder)).unwrap().len() != events {
            assert!(started.elapsed() < Duration::from_secs(5), "{events} events");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    (0..9).for_each(|seq| spool.add(ENDPOINT, &event(seq, "{}")));
    wait_for(9);
    spool.done(4);
    wait_for(8);
    #[cfg(unix)]
    {
        let mode = std::fs::metadata(file(&folder)).unwrap().permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
    }
    drop(spool);
}

#[test]
fn a_torn_or_damaged_end_costs_what_stands_there() {
    let folder = Folder::new();
    let (spool, _) = open(&folder);
    (0..3).for_each(|seq| spool.add(ENDPOINT, &event(seq, "{}")));
    drop(spool);
    let whole = std::fs::read(file(&folder)).unwrap();
    std::fs::write(file(&folder), &whole[..whole.len() - 1]).unwrap();
    assert_eq!(open(&folder).1, [0, 1]);
    assert_eq!(open(&folder).1, [0, 1], "the file was rewritten");
    let mut damaged = whole.clone();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    damaged.extend([0; 40]);
    std::fs::write(file(&folder), &damaged).unwrap();
    let (spool, kept) = open(&folder);
    assert_eq!(kept, [0, 1]);
    spool.add(ENDPOINT, &event(7, "{}"));
    drop(spool);
    assert_eq!(open(&folder).1, [0, 1, 7]);
}

#[test]
fn what_another_version_wrote_is_kept() {
    let folder = Folder::new();
    drop(open(&folder));
    for other in ["something else", "broadgate webhooks 2\nxyz", ""] {
        std::fs::write(file(&folder), other).unwrap();
        let (spool, kept) = open(&folder);
        assert!(kept.is_empty());
        spool.add(ENDPOINT, &event(1, "{}"));
        drop(spool);
        assert_eq!(open(&folder).1, [1], "a new file is begun");
    }
    assert_eq!(take_aside(&file(&folder)), ["broadgate webhooks 2\nxyz", "something else"]);
}

#[test]
fn mostly_obsolete_spool_is_rewritten() {
    let folder = Folder::new();
    let (spool, _) = open(&folder);
    let json = "x".repeat(100_000);
    for seq in 0..100 {
        spool.add(ENDPOINT, &event(seq, &json));
        if seq > 0 {
            spool.done(seq);
        }
    }
    drop(spool);
    let size = std::fs::metadata(file(&folder)).unwrap().len();
    assert!(size < 2_000_000, "{size}");
    assert_eq!(open(&folder).1, [0]);
}

#[test]
fn the_spool_has_a_limit_and_one_user() {
    let folder = Folder::new();
    let (spool, _) = open(&folder);
    let json = "x".repeat(WEBHOOK_SPOOL_BYTES_MAX / 4);
    (0..5).for_each(|seq| spool.add(ENDPOINT, &event(seq, &json)));
    spool.done(0);
    spool.add(ENDPOINT, &event(9, "{}"));
    let error = Spool::open(&folder.0, "gw/1:é", &Tasks::default().spawner()).err().unwrap().to_string();
    assert!(error.contains("its own name"), "{error}");
    drop(Spool::open(&folder.0, "other", &Tasks::default().spawner()).unwrap());
    drop(spool);
    assert_eq!(open(&folder).1, [1, 2, 9]);
}

#[test]
fn unusable_folder_is_explained() {
    let folder = Folder::new();
    std::fs::write(&folder.0, "a file").unwrap();
    let error = format!("{:#}", Spool::open(&folder.0, "gw", &Tasks::default().spawner()).err().unwrap());
    assert!(error.contains("gateway.spool") && error.contains(folder.0.to_str().unwrap()), "{error}");
    std::fs::remove_file(&folder.0).unwrap();
}

#[test]
fn check_names_every_file_that_cannot_be_written() {
    let folder = Folder::new();
    let (spool, _) = open(&folder);
    let journal = Journal::open(&files(&folder.0, "gw/1:é")[2], &Tasks::default().spawner()).unwrap();
    let made = std::fs::read_dir(&folder.0).unwrap().flatten().map(|entry| entry.path());
    let mut made: Vec<PathBuf> = made.collect();
    drop((spool, journal));
    assert_eq!(made.len(), 3, "{made:?}");
    Spool::check(&folder.0, Some("gw/1:é")).unwrap();
    let beside: Vec<PathBuf> = made.iter().map(|path| rewritten(path)).collect();
    made.extend(beside.into_iter().filter(|path| !path.to_str().unwrap().ends_with("lock-new")));
    assert_eq!(made.len(), 5);
    for path in made {
        // The tests may run as root, who may write any file, but no folder.
        let _ = std::fs::remove_file(&path);
        std::fs::create_dir(&path).unwrap();
        let error = format!("{:#}", Spool::check(&folder.0, Some("gw/1:é")).unwrap_err());
        assert!(error.contains(&format!("{}: ", path.display())), "{error}");
        std::fs::remove_dir(&path).unwrap();
    }
}
