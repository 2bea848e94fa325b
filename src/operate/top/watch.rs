//! `top` on a terminal: asks again and again, and draws what comes.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use broadgate_business::{Cluster, v1::TopRequest};
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use rustix::process::Signal;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::AbortHandle,
};

use crate::{
    failure::Failure,
    operate::{
        target::{ChosenCluster, ClusterTarget},
        top::{
            rates::TopPicture,
            screen,
            state::{KeyOutcome, TopState},
            terminal::TakenTerminal,
            view::TopView,
        },
    },
};

/// How long a look at the keyboard takes, and so how late an answer may be drawn.
const LOOK: Duration = Duration::from_millis(100);

/// What signals ask for.
const STOP: u8 = 1;
const SUSPEND: u8 = 2;

/// Asks a cluster, by the first of its gateways that answers.
pub(super) struct ClusterAsker {
    pub(super) target: ClusterTarget,
    pub(super) chosen: ChosenCluster,
    /// None until one has answered, and after it has failed.
    pub(super) cluster: Option<Cluster>,
    pub(super) started: Instant,
}

/// What is asked, for which view.
type AskedTop = (TopView, Option<TopRequest>);
type AnsweredTop = Result<(TopView, TopPicture), String>;

impl ClusterAsker {
    /// The cluster now.
    pub(super) async fn picture(&mut self, question: Option<TopRequest>) -> Result<TopPicture, Failure> {
        let cluster = match self.cluster.take() {
            Some(cluster) => cluster,
            None => {
                let reached = self.target.reach(&self.chosen).await?;
                if self.target.app.is_some() { reached.of_app()? } else { reached.cluster }
            }
        };
        let status = cluster.status();
        let top = async {
            match question {
                Some(question) => cluster.top(question).await.map(Some),
                None => Ok(None),
            }
        };
        let (status, top) = tokio::try_join!(status, top)?;
        let picture = TopPicture { at: self.started.elapsed(), status, top };
        // Else another gateway is tried.
        self.cluster = Some(cluster);
        Ok(picture)
    }

    /// Asks for as long as somebody takes the answers. No question is asked while paused.
    async fn run(
        mut self,
        interval: Duration,
        mut questions: watch::Receiver<Option<AskedTop>>,
        answers: mpsc::Sender<AnsweredTop>,
    ) {
        // The first rates come as soon as gateways have measured.
        let mut first = 2;
        loop {
            let Some((view, question)) = questions.borrow_and_update().clone() else {
                if questions.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let picture = self.picture(question).await;
            let answer = picture.map(|picture| (view, picture)).map_err(|failure| failure.to_string());
            if answers.send(answer).await.is_err() {
                return;
            }
            let wait = if first > 0 { interval.min(Duration::from_secs(1)) } else { interval };
            first -= i32::from(first > 0);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = questions.changed() => match changed {
                    Ok(()) => first = 2,
                    Err(_) => return,
                },
            }
        }
    }
}

/// Ends a task when this is dropped.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs until a key or a signal ends it; returns the state then.
pub(super) async fn watch(asker: ClusterAsker, mut state: TopState) -> Result<TopState, Failure> {
    let started = asker.started;
    let (ask, questions) = watch::channel(Some((state.view, state.question())));
    let (answer, answers) = mpsc::channel(1);
    let asking = asker.run(state.interval, questions, answer);
    let _asking = AbortOnDrop(broadgate_tasks::spawn("questions of top", asking));
    let signals = Arc::new(AtomicU8::new(0));
    let noting = note_signals(Arc::clone(&signals))?;
    let _noting = AbortOnDrop(broadgate_tasks::spawn("signals of top", noting));
    tokio::task::block_in_place(|| run(&mut state, started, answers, &ask, &signals))?;
    Ok(state)
}

/// The last one counts.
fn note_signals(noted: Arc<AtomicU8>) -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut suspend = signal(SignalKind::from_raw(Signal::TSTP.as_raw()))?;
    Ok(async move {
        loop {
            let what = tokio::select! {
                _ = terminate.recv() => STOP,
                _ = interrupt.recv() => STOP,
                _ = hangup.recv() => STOP,
                _ = suspend.recv() => SUSPEND,
            };
            noted.fetch_max(what, Ordering::SeqCst);
        }
    })
}

fn run(
    state: &mut TopState,
    started: Instant,
    mut answers: mpsc::Receiver<AnsweredTop>,
    ask: &watch::Sender<Option<AskedTop>>,
    signals: &AtomicU8,
) -> Result<(), Failure> {
    let mut terminal = TakenTerminal::take()?;
    let mut drawn = None;
    loop {
        let now = started.elapsed();
        match signals.swap(0, Ordering::SeqCst) {
            0 => {}
            SUSPEND => {
                terminal.suspend()?;
                drawn = None;
            }
            _ => return Ok(()),
        }
        match answers.try_recv() {
            Ok(Ok((view, picture))) => {
                state.answered(picture, view);
                drawn = None;
            }
            Ok(Err(why)) => {
                state.failed(why, now);
                drawn = None;
            }
            Err(mpsc::error::TryRecvError::Empty) => {}
            Err(mpsc::error::TryRecvError::Disconnected) => {
                return Err(Failure::Failed("the questions have ended by a panic: see above".to_owned()));
            }
        }
        // Ages are in seconds.
        if drawn != Some(now.as_secs()) {
            terminal.draw(|frame| screen::render(frame, state, now))?;
            drawn = Some(now.as_secs());
        }
        if !event::poll(LOOK)? {
            continue;
        }
        let outcome = match event::read()? {
            Event::Key(key) if key.kind != KeyEventKind::Release => state.key(key),
            Event::Resize(..) => KeyOutcome::Redraw,
            _ => KeyOutcome::Nothing,
        };
        match outcome {
            KeyOutcome::Nothing => continue,
            KeyOutcome::Redraw => {}
            KeyOutcome::Clear => terminal.clear()?,
            KeyOutcome::Ask => {
                let question = (!state.paused).then(|| (state.view, state.question()));
                ask.send_replace(question);
            }
            KeyOutcome::Quit => return Ok(()),
            KeyOutcome::Suspend => terminal.suspend()?,
        }
        drawn = None;
    }
}
