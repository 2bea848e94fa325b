//! The tasks and threads of a process, in one place. Each has a name and must run until it is stopped; one that
//! ends or panics before makes [`Tasks::failed`] return an error with its name, so that the process ends and its
//! supervisor starts it again. Tasks that end by themselves are started here as well ([`Spawner`], [`spawn`]).

pub mod bounded_read;
mod fault;
mod part;

use std::{collections::HashMap, thread, time::Duration};

use tokio::{
    sync::mpsc,
    task::{Id, JoinError, JoinSet},
    time::timeout,
};

use self::part::End;
pub use self::{
    fault::{arm, strike, strike_now, strike_once_now},
    part::{Spawner, blocking, contain, note, spawn, spawn_local, text_of},
};

/// The tasks and threads of a process. Tasks that still run when this is dropped are aborted.
#[derive(Debug)]
pub struct Tasks {
    tasks: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, String>,
    threads: Vec<(String, thread::JoinHandle<()>)>,
    /// Threads report their end here, and tasks and threads of [`Spawner`] their panic.
    ended: (mpsc::Sender<End>, mpsc::Receiver<End>),
}

/// Reports on drop that a thread has ended.
pub struct ThreadEnd {
    name: String,
    ended: mpsc::Sender<End>,
}

impl Drop for ThreadEnd {
    fn drop(&mut self) {
        // The first one suffices: it ends the process.
        let _ = self.ended.try_send(End::Thread { name: std::mem::take(&mut self.name) });
    }
}

impl Default for Tasks {
    fn default() -> Self {
        Self { tasks: JoinSet::new(), names: HashMap::new(), threads: Vec::new(), ended: mpsc::channel(1) }
    }
}

impl Tasks {
    /// Starts a task that must not end before the process stops.
    pub fn spawn(&mut self, name: &str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_fallible(name, async move {
            task.await;
            Ok(())
        });
    }

    /// The same for a task that may return why it ended.
    pub fn spawn_fallible(
        &mut self,
        name: &str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let strike = fault::strike(name);
        let handle = self.tasks.spawn(async move {
            tokio::select! {
                result = task => result,
                never = strike => match never {},
            }
        });
        self.names.insert(handle.id(), name.to_owned());
    }

    /// Starts tasks and threads that may end, but whose panic ends the process.
    #[must_use]
    pub fn spawner(&self) -> Spawner {
        Spawner { ended: self.ended.0.clone() }
    }

    /// A guard that a new thread holds until it ends, so that its end is noticed.
    #[must_use]
    pub fn thread_end(&self, name: &str) -> ThreadEnd {
        ThreadEnd { name: name.to_owned(), ended: self.ended.0.clone() }
    }

    /// Keeps a thread that was given a [`ThreadEnd`], to be joined by [`Tasks::join`].
    pub fn keep_thread(&mut self, name: &str, thread: thread::JoinHandle<()>) {
        self.threads.push((name.to_owned(), thread));
    }

    /// Waits for the first task or thread that ends before it should; cancel safe.
    pub async fn failed(&mut self) -> anyhow::Error {
        tokio::select! {
            Some(joined) = self.tasks.join_next_with_id() => {
                let (id, result) = match joined {
                    Ok((id, result)) => (id, result),
                    Err(error) => (error.id(), Err(panicked(error))),
                };
                let name = self.names.remove(&id).unwrap_or_default();
                match result {
                    Ok(()) => anyhow::anyhow!("task {name:?} ended unexpectedly"),
                    Err(error) => error.context(format!("task {name:?} failed")),
                }
            }
            Some(end) = self.ended.1.recv() => match end {
                End::Thread { name } => self.thread_failed(&name),
                End::Panic { kind, name, panic } => {
                    anyhow::anyhow!("it panicked: {panic}").context(format!("{kind} {name:?} failed"))
                }
            },
        }
    }

    fn thread_failed(&mut self, name: &str) -> anyhow::Error {
        let index = self.threads.iter().position(|(known, _)| known == name);
        let joined = index.map(|index| self.threads.swap_remove(index).1.join());
        match joined {
            Some(Err(panic)) => anyhow::anyhow!("thread {name:?} panicked: {}", text_of(&*panic)),
            _ => anyhow::anyhow!("thread {name:?} ended unexpectedly"),
        }
    }

    /// Waits until every task and thread has ended, at most `within`; names those that have not.
    pub async fn join(mut self, within: Duration) -> Result<(), Vec<String>> {
        let all = async {
            while let Some(joined) = self.tasks.join_next_with_id().await {
                let id = joined.map_or_else(|error| error.id(), |(id, _)| id);
                self.names.remove(&id);
            }
        };
        let _ = timeout(within, all).await;
        let mut late: Vec<String> = self.names.into_values().collect();
        let began = tokio::time::Instant::now();
        for (name, thread) in self.threads {
            let left = within.saturating_sub(began.elapsed());
            // A thread that hangs is left behind: the process ends all the same.
            let joined = tokio::task::spawn_blocking(move || thread.join());
            if timeout(left, joined).await.is_err() {
                late.push(name);
            }
        }
        if late.is_empty() { Ok(()) } else { Err(late) }
    }
}

fn panicked(error: JoinError) -> anyhow::Error {
    match error.try_into_panic() {
        Ok(panic) => anyhow::anyhow!("it panicked: {}", text_of(&*panic)),
        Err(error) => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_failure_is_named() {
        let mut tasks = Tasks::default();
        tasks.spawn("steady", std::future::pending());
        tasks.spawn("brief", async {});
        assert_eq!(tasks.failed().await.to_string(), "task \"brief\" ended unexpectedly");
        tasks.spawn("rash", async { panic!("no way out") });
        assert_eq!(format!("{:#}", tasks.failed().await), "task \"rash\" failed: it panicked: no way out");
        tasks.spawn_fallible("broken", async { anyhow::bail!("no disk") });
        assert_eq!(format!("{:#}", tasks.failed().await), "task \"broken\" failed: no disk");
    }

    #[tokio::test]
    async fn a_panicking_thread_is_named() {
        let mut tasks = Tasks::default();
        let end = tasks.thread_end("worker-1");
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            let _end = end;
            let _ = wait.recv();
            panic!("a broken invariant");
        });
        tasks.keep_thread("worker-1", thread);
        drop(go);
        assert_eq!(tasks.failed().await.to_string(), "thread \"worker-1\" panicked: a broken invariant");
    }

    #[tokio::test]
    async fn join_names_what_does_not_end() {
        let mut tasks = Tasks::default();
        tasks.spawn("brief", async {});
        tasks.spawn("stuck", std::future::pending());
        assert_eq!(tasks.join(Duration::from_millis(50)).await, Err(vec!["stuck".to_owned()]));
    }
}
