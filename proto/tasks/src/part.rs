//! Tasks that end by themselves: those without whose work the process cannot go on, and those that concern one
//! stream or one request. A panic of the first ends the process, a panic of the second only what it concerns; it is
//! counted and logged.

use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    thread::{self, JoinHandle},
};

use futures_util::FutureExt as _;
use metrics::counter;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinError},
};

use crate::fault;

/// The end of a thread, or the panic of a task or thread that may end.
#[derive(Debug)]
pub(crate) enum End {
    /// Why is known when the thread of this name is joined.
    Thread {
        name: String,
    },
    Panic {
        kind: &'static str,
        name: String,
        panic: String,
    },
}

/// Starts tasks and threads that may end, but without whose work the process cannot go on.
#[derive(Debug, Clone)]
pub struct Spawner {
    pub(crate) ended: mpsc::Sender<End>,
}

impl Spawner {
    /// Starts one. If it panics, [`crate::Tasks::failed`] returns an error with this name.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let ended = self.ended.clone();
        tokio::spawn(async move {
            let strike = fault::strike(name);
            let struck = async {
                tokio::select! {
                    biased;
                    never = strike => match never {},
                    () = task => {}
                }
            };
            if let Err(panic) = AssertUnwindSafe(struck).catch_unwind().await {
                report(&ended, "task", name, &*panic);
            }
        });
    }

    /// Starts a thread that may end. If it panics, [`crate::Tasks::failed`] returns an error with this name.
    ///
    /// # Errors
    /// If the system does not start another thread.
    pub fn thread(
        &self,
        name: &'static str,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let ended = self.ended.clone();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
                report(&ended, "thread", name, &*panic);
            }
        })
    }
}

fn report(ended: &mpsc::Sender<End>, kind: &'static str, name: &str, panic: &(dyn Any + Send)) {
    // The first one suffices: it ends the process.
    let _ = ended.try_send(End::Panic { kind, name: name.to_owned(), panic: text_of(panic).to_owned() });
}

/// Starts a task that concerns one stream or one request.
pub fn spawn(part: &'static str, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
    tokio::spawn(contain(part, task).map(Option::unwrap_or_default)).abort_handle()
}

/// The same on the thread of a `LocalSet`.
pub fn spawn_local(part: &'static str, task: impl Future<Output = ()> + 'static) {
    tokio::task::spawn_local(contain(part, task).map(Option::unwrap_or_default));
}

/// What this work results in; none if it panicked, which is counted and logged.
///
/// No `async fn`: each would hold the work twice, once as its argument and once while it awaits it, and every
/// client has a task of these.
pub fn contain<T>(part: &'static str, work: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
    let work = AssertUnwindSafe(fault::strike_once(part, work)).catch_unwind();
    work.map(move |result| result.map_err(|panic| note(part, &*panic)).ok())
}

/// Does work that waits for the disk without holding up the runtime.
///
/// # Errors
/// The text of its panic, which is counted and logged.
pub async fn blocking<T: Send + 'static>(
    part: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| match error.try_into_panic() {
        Ok(panic) => {
            note(part, &*panic);
            text_of(&*panic).to_owned()
        }
        Err(stopped) => JoinError::to_string(&stopped),
    })
}

/// Counts and logs a panic that was caught.
pub fn note(part: &'static str, panic: &(dyn Any + Send)) {
    counter!("broadgate_task_panics_total", "task" => part).increment(1);
    let why = text_of(panic);
    tracing::error!(
        task = part,
        why,
        "a task panicked: what it served has ended; please report this with the log"
    );
}

/// The message of a panic.
#[must_use]
pub fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Tasks;

    #[tokio::test]
    async fn a_vital_task_may_end_but_not_panic() {
        let mut tasks = Tasks::default();
        let spawner = tasks.spawner();
        let held = Arc::new(());
        let holds = Arc::clone(&held);
        spawner.spawn("brief", async move { drop(holds) });
        while Arc::strong_count(&held) > 1 {
            tokio::task::yield_now().await;
        }
        spawner.spawn("rash", async { panic!("no way out") });
        assert_eq!(format!("{:#}", tasks.failed().await), "task \"rash\" failed: it panicked: no way out");
    }

    #[tokio::test]
    async fn vital_thread_may_end_but_not_panic() {
        let mut tasks = Tasks::default();
        let spawner = tasks.spawner();
        spawner.thread("brief", || {}).unwrap().join().unwrap();
        spawner.thread("rash", || panic!("no way out")).unwrap().join().unwrap();
        let error = format!("{:#}", tasks.failed().await);
        assert_eq!(error, "thread \"rash\" failed: it panicked: no way out");
    }

    #[tokio::test]
    async fn a_panic_of_one_stream_is_contained() {
        assert_eq!(contain("stream", async { 7 }).await, Some(7));
        assert_eq!(contain("stream", async { panic!("one frame") }).await, None::<()>);
        assert_eq!(blocking("file", || 7).await, Ok(7));
        assert_eq!(blocking("file", || -> u8 { panic!("one file") }).await, Err("one file".to_owned()));
    }
}
