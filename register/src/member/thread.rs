//! Threads of the membership.

use broadgate_tasks::Tasks;

/// Runs a future on a thread and runtime of its own, so that a busy process never delays it. The tasks notice the
/// end of the thread.
pub(super) fn start(
    tasks: &mut Tasks,
    name: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let end = tasks.thread_end(name);
    let strike = broadgate_tasks::strike(name);
    let run = move || {
        let _end = end;
        runtime.block_on(async {
            tokio::select! {
                () = work => {}
                never = strike => match never {},
            }
        });
    };
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
    tasks.keep_thread(name, thread);
    Ok(())
}
