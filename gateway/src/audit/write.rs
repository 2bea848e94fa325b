//! Writes the audit's lines.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use broadgate_proto::limits::AUDIT_QUEUE_LINES_MAX;
use metrics::gauge;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::lost::{AuditTrouble, lost};
use crate::events::{EventKind, EventLog};

/// Lines that are written together at most.
const BATCH_LINES_MAX: usize = AUDIT_QUEUE_LINES_MAX / 4;

/// The file, and whether its last line is whole.
struct AuditFile {
    path: PathBuf,
    file: Option<File>,
    is_broken_off: bool,
}

/// The task that writes lines until nobody sends any. With a file, which is opened again on SIGHUP, so that it can be
/// rotated; else to the log, target `audit`.
pub(super) fn run(
    path: Option<PathBuf>,
    mut lines: mpsc::Receiver<String>,
    trouble: AuditTrouble,
    events: EventLog,
) -> anyhow::Result<impl Future<Output = ()> + Send> {
    let mut hangups = signal(SignalKind::hangup())?;
    // What could not be written later is refused at the start.
    let mut file = path.map(AuditFile::open).transpose()?;
    gauge!("broadgate_gateway_audit_failing").set(0.0);
    Ok(async move {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                _ = hangups.recv() => {
                    if let Some(file) = &mut file {
                        file.file = None;
                    }
                }
                count = lines.recv_many(&mut batch, BATCH_LINES_MAX) => {
                    if count == 0 {
                        return;
                    }
                    let Some(open) = file.take() else {
                        batch.drain(..).for_each(|line| tracing::info!(target: "audit", "{line}"));
                        continue;
                    };
                    let (back, failed) = write(open, std::mem::take(&mut batch)).await;
                    report(failed, count, &trouble, &events);
                    file = Some(back);
                }
            }
        }
    })
}

/// Lines that are not written are lost: the queue must go on, and memory is bounded.
fn report(failed: Option<String>, count: usize, trouble: &AuditTrouble, events: &EventLog) {
    let (was, why) = (trouble.get(), failed.unwrap_or_default());
    if !why.is_empty() {
        lost("unwritable", count);
    }
    if was.is_empty() != why.is_empty() {
        gauge!("broadgate_gateway_audit_failing").set(f64::from(u8::from(!why.is_empty())));
        if why.is_empty() {
            tracing::info!("the audit is written again");
            events.note(EventKind::Alarm, "audit_written", "the audit is written again");
        } else {
            tracing::error!("lines of the audit are lost: {why}");
            events.note(EventKind::Alarm, "audit_lost", format!("lines of the audit are lost: {why}"));
        }
    }
    trouble.set(why);
}

/// Waits for the disk elsewhere.
async fn write(mut file: AuditFile, lines: Vec<String>) -> (AuditFile, Option<String>) {
    let path = file.path.clone();
    let written = broadgate_tasks::blocking("audit", move || {
        let written = file.write(&lines);
        (file, written.err().map(|error| error.to_string()))
    });
    match written.await {
        Ok((file, failed)) => {
            let failed = failed.map(|error| format!("{}: {error}", file.path.display()));
            (file, failed)
        }
        Err(panic) => {
            (AuditFile { path, file: None, is_broken_off: true }, Some(format!("writing panicked: {panic}")))
        }
    }
}

impl AuditFile {
    fn open(path: PathBuf) -> anyhow::Result<Self> {
        let file =
            open(&path).map_err(|error| anyhow::anyhow!("gateway.audit.file {}: {error}", path.display()))?;
        Ok(Self { path, file: Some(file), is_broken_off: false })
    }

    fn write(&mut self, lines: &[String]) -> std::io::Result<()> {
        let mut text = if self.is_broken_off { "\n".to_owned() } else { String::new() };
        for line in lines {
            text += line;
            text.push('\n');
        }
        if self.file.is_none() {
            self.file = Some(open(&self.path)?);
        }
        let written = self.file.as_mut().map_or(Ok(()), |file| file.write_all(text.as_bytes()));
        self.is_broken_off = written.is_err();
        if written.is_err() {
            // The next try begins with the path: the disk may be another one.
            self.file = None;
        }
        written
    }
}

/// Its owner's alone.
fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn lines_are_appended_and_a_full_disk_is_named() {
        let path = std::env::temp_dir().join(format!("broadgate-audit-{}", std::process::id()));
        std::fs::write(&path, "before\n").unwrap();
        let lines = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>();
        let (file, failed) = write(AuditFile::open(path.clone()).unwrap(), lines(&["a", "b"])).await;
        assert_eq!(failed, None);
        // Rotated: the name is another file's now.
        let aside = path.with_extension("1");
        std::fs::rename(&path, &aside).unwrap();
        let (file, _) = write(AuditFile { file: None, ..file }, lines(&["c"])).await;
        assert_eq!(std::fs::read_to_string(&aside).unwrap(), "before\na\nb\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "c\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (full, failed) =
            write(AuditFile { path: "/dev/full".into(), file: None, ..file }, lines(&["d"])).await;
        assert!(failed.unwrap().contains("/dev/full: No space left"));
        let (_, failed) = write(AuditFile { path: path.clone(), ..full }, lines(&["e"])).await;
        assert_eq!(failed, None);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "c\n\ne\n", "a line that broke off is ended");
        let gone = AuditFile::open("/nonexistent/audit.log".into()).map(drop).unwrap_err();
        assert!(gone.to_string().contains("gateway.audit.file /nonexistent/audit.log"));
        std::fs::remove_file(&path).unwrap();
        std::fs::remove_file(&aside).unwrap();
    }

    #[test]
    fn trouble_is_counted_and_told_once() {
        let (trouble, events) = (AuditTrouble::default(), EventLog::default());
        let told = || {
            let question = crate::events::EventQuestion { limit: 10, ..Default::default() };
            events.find(&question, "g").events.into_iter().map(|event| event.what).collect::<Vec<_>>()
        };
        for _ in 0..3 {
            report(Some("full".to_owned()), 2, &trouble, &events);
        }
        assert_eq!((trouble.get(), told()), ("full".to_owned(), vec!["audit_lost".to_owned()]));
        report(None, 2, &trouble, &events);
        assert_eq!((trouble.get().as_str(), told().len()), ("", 2));
    }
}
