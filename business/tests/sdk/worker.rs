use std::sync::Arc;

use broadgate_business::{
    Client, Context, Decision, Handler, Message, Once, Worker, WorkerConfig,
    worker::{Cause, Closed, Handshake},
};
use broadgate_proto::v1::{
    self, MemberState, decision, event, register_client::RegisterClient, worker_frame::Frame,
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::fake::{Attachment, Fake, Register, event, message, soon};

/// Tells the test what it hears, and does what messages say.
struct Recorder {
    heard: mpsc::UnboundedSender<String>,
    go_on: Arc<Semaphore>,
}

impl Recorder {
    fn tell(&self, what: impl Into<String>) -> anyhow::Result<()> {
        self.heard.send(what.into())?;
        Ok(())
    }
}

impl Handler for Recorder {
    async fn authorize(&self, _: &Context, handshake: Handshake) -> Decision {
        match handshake.path.as_str() {
            "/in" => Decision::accept().uid("ada").group("g"),
            "/panic" => panic!("on purpose"),
            _ => Decision::refuse(401, "who are you?"),
        }
    }

    async fn opened(&self, client: &Client, _: Handshake) -> anyhow::Result<()> {
        self.tell(format!("opened {}", client.uid().unwrap_or_default()))
    }

    async fn message(&self, client: &Client, message: Message) -> anyhow::Result<()> {
        let text = message.as_str().unwrap_or_default().to_owned();
        self.tell(format!("{text}{}", if client.redelivered() { " again" } else { "" }))?;
        match text.as_str() {
            "panic" => panic!("on purpose"),
            "fail" => anyhow::bail!("on purpose"),
            "wait" => self.go_on.acquire().await?.forget(),
            "echo" => drop(client.send(message).await?),
            _ => {}
        }
        Ok(())
    }

    async fn closed(&self, client: &Client, closed: Closed) -> anyhow::Result<()> {
        assert_eq!(closed.uid, client.uid());
        self.tell(format!("closed {:?} {} {}", closed.cause, closed.uid.unwrap_or_default(), closed.session))
    }

    async fn gateway_lost(&self, _: &Context, name: &str, _: &str) -> anyhow::Result<()> {
        self.tell(format!("lost {name}"))
    }

    async fn stopping(&self, _: &Context) -> anyhow::Result<()> {
        self.tell("stopping")
    }
}

struct Scene {
    gateway: Fake,
    heard: mpsc::UnboundedReceiver<String>,
    go_on: Arc<Semaphore>,
    shutdown: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
    _register: Register,
}

async fn scene() -> (Scene, Attachment) {
    let register = Register::start().await;
    let mut gateway = Fake::start(&register, "a").await;
    // What the test notes down; the test itself bounds it.
    let (sender, heard) = mpsc::unbounded_channel();
    let go_on = Arc::new(Semaphore::new(0));
    let shutdown = CancellationToken::new();
    let config = WorkerConfig {
        registers: vec![register.address.clone()],
        name: "w".into(),
        ..WorkerConfig::default()
    };
    let recorder = Recorder { heard: sender, go_on: go_on.clone() };
    let running = tokio::spawn(Worker::new(config).run(recorder, shutdown.clone().cancelled_owned()));
    let attachment = gateway.attached().await;
    (Scene { gateway, heard, go_on, shutdown, running, _register: register }, attachment)
}

impl Scene {
    async fn hears(&mut self, expected: &[&str]) {
        for one in expected {
            let heard = soon(one, self.heard.recv()).await.unwrap();
            assert_eq!(heard, *one);
        }
    }
}

#[tokio::test]
async fn events_of_a_client_are_handled_in_turn_and_acknowledged() {
    let (mut scene, mut attachment) = scene().await;
    assert_eq!((attachment.hello.name.as_str(), attachment.hello.events_max), ("w", 1024));
    assert_eq!(attachment.hello.services, ["default"]);
    let client = scene.gateway.client(1);
    let opened = event(1, &client, event::Event::Opened(v1::Handshake::default()));
    let again = v1::Event { redelivered: true, ..message(4, &client, "three") };
    let two = message(3, &client, "two");
    attachment.give(vec![opened, message(2, &client, "one"), two, again]).await;
    scene.hears(&["opened ada", "one", "two", "three again"]).await;
    assert_eq!(attachment.acks(4).await, [1, 2, 3, 4]);
}

#[tokio::test]
async fn clients_do_not_wait_for_each_other() {
    let (mut scene, mut attachment) = scene().await;
    let (slow, quick) = (scene.gateway.client(1), scene.gateway.client(2));
    attachment.give(vec![message(1, &slow, "wait"), message(2, &slow, "after")]).await;
    scene.hears(&["wait"]).await;
    attachment.give(vec![message(3, &quick, "quick")]).await;
    scene.hears(&["quick"]).await;
    assert_eq!(attachment.acks(1).await, [3]);
    scene.go_on.add_permits(1);
    scene.hears(&["after"]).await;
    assert_eq!(attachment.acks(3).await, [3, 1, 2]);
}

#[tokio::test]
async fn panics_and_errors_answer_their_event_and_end_nothing() {
    let (mut scene, mut attachment) = scene().await;
    let client = scene.gateway.client(1);
    let texts = ["panic", "fail", "fine"];
    let events = texts.iter().zip(1..).map(|(text, seq)| message(seq, &client, text)).collect();
    attachment.give(events).await;
    scene.hears(&texts).await;
    assert_eq!(attachment.acks(3).await, [1, 2, 3]);
    // What no version of this worker knows is answered, too.
    attachment.give(vec![v1::Event { seq: 9, client_id: client, ..v1::Event::default() }]).await;
    assert_eq!(attachment.acks(4).await[3], 9);
}

#[tokio::test]
async fn handshakes_are_decided() {
    let (scene, mut attachment) = scene().await;
    let ask = |seq, path: &str| {
        let handshake = v1::Handshake { path: path.to_owned(), ..v1::Handshake::default() };
        event(seq, &scene.gateway.client(1), event::Event::Handshake(handshake))
    };
    for (seq, path, status) in [(1, "/in", 0), (2, "/out", 401), (3, "/panic", 500)] {
        attachment.give(vec![ask(seq, path)]).await;
        let Frame::Decision(said) = attachment.said().await else { panic!("no decision") };
        assert_eq!(said.seq, seq);
        match said.decision.unwrap() {
            decision::Decision::Accept(accept) => {
                assert_eq!((accept.uid.as_str(), status), ("ada", 0));
                assert_eq!(accept.groups, ["g"]);
            }
            decision::Decision::Refuse(refuse) => assert_eq!(refuse.status, status),
        }
    }
}

#[tokio::test]
async fn a_handler_commands_the_gateway_of_its_client() {
    let (mut scene, mut attachment) = scene().await;
    let client = scene.gateway.client(1);
    attachment.give(vec![message(1, &client, "echo")]).await;
    scene.hears(&["echo"]).await;
    assert_eq!(attachment.acks(1).await, [1]);
    let commands = scene.gateway.commands();
    let v1::command::Command::Send(send) = &commands[0] else { panic!("{commands:?}") };
    assert_eq!(send.to.as_ref().unwrap().clients, [client]);
}

#[tokio::test]
async fn a_broken_stream_is_no_loss_and_what_waits_is_left_to_the_gateway() {
    let (mut scene, attachment) = scene().await;
    let client = scene.gateway.client(1);
    attachment.give(vec![message(1, &client, "wait"), message(2, &client, "two")]).await;
    scene.hears(&["wait"]).await;
    drop(attachment);
    let mut attachment = scene.gateway.attached().await;
    let again = |seq, text| v1::Event { redelivered: true, ..message(seq, &client, text) };
    attachment.give(vec![again(1, "wait"), again(2, "two")]).await;
    // The first one is still at work: nothing of the client may overtake it.
    let other = scene.gateway.client(2);
    attachment.give(vec![message(3, &other, "other")]).await;
    scene.hears(&["other"]).await;
    scene.go_on.add_permits(2);
    scene.hears(&["wait again", "two again"]).await;
    assert_eq!(attachment.acks(3).await, [3, 1, 2]);
}

#[tokio::test]
async fn when_a_gateway_is_lost_each_client_is_closed_once_after_what_waited() {
    let (mut scene, attachment) = scene().await;
    let (busy, gone) = (scene.gateway.client(1), scene.gateway.client(2));
    let closed = v1::Closed { cause: Cause::Client.into(), ..v1::Closed::default() };
    attachment.give(vec![event(1, &gone, event::Event::Closed(closed))]).await;
    scene.hears(&["closed Client ada {\"seq\":1}"]).await;
    attachment.give(vec![message(2, &busy, "wait"), message(3, &busy, "two")]).await;
    scene.hears(&["wait"]).await;
    scene.gateway.lose().await;
    scene.hears(&["lost a"]).await;
    scene.go_on.add_permits(1);
    scene.hears(&["two", "closed GatewayLost ada {\"seq\":3}"]).await;
    drop(attachment);
    scene.shutdown.cancel();
    scene.hears(&["stopping"]).await;
    soon("the worker's end", scene.running).await.unwrap().unwrap();
    assert!(scene.heard.recv().await.is_none(), "nothing is reported twice");
}

#[tokio::test]
async fn a_stopping_worker_says_so_and_goes_on_until_it_is_released() {
    let (mut scene, mut attachment) = scene().await;
    let client = scene.gateway.client(1);
    attachment.give(vec![message(1, &client, "wait"), message(2, &client, "two")]).await;
    scene.hears(&["wait"]).await;
    scene.shutdown.cancel();
    assert!(matches!(attachment.said().await, Frame::Leaving(_)));
    scene.go_on.add_permits(1);
    scene.hears(&["two"]).await;
    assert_eq!(attachment.acks(2).await, [1, 2]);
    assert!(!scene.running.is_finished());
    attachment.release().await;
    scene.hears(&["stopping"]).await;
    soon("the worker's end", &mut scene.running).await.unwrap().unwrap();
    let mut views = scene.gateway.view();
    let alone = views.wait_for(|view| view.members.len() == 1);
    soon("the view without the worker", alone).await.unwrap();
}

#[tokio::test]
async fn a_new_gateway_is_attached_to() {
    let (mut scene, _first) = scene().await;
    let mut second = Fake::start(&scene._register, "b").await;
    let mut attachment = second.attached().await;
    attachment.give(vec![message(1, &second.client(1), "hello")]).await;
    scene.hears(&["hello"]).await;
    assert_eq!(attachment.acks(1).await, [1]);
}

#[tokio::test]
async fn a_worker_that_was_removed_comes_back_as_another_incarnation() {
    let (mut scene, first) = scene().await;
    let mut registers = RegisterClient::connect(format!("http://{}", scene._register.address)).await.unwrap();
    let gone = v1::LeaveRequest { incarnation: first.hello.incarnation.clone() };
    registers.leave(gone).await.unwrap();
    let mut second = scene.gateway.attached().await;
    assert_ne!(second.hello.incarnation, first.hello.incarnation);
    second.give(vec![message(1, &scene.gateway.client(1), "hello")]).await;
    scene.hears(&["hello"]).await;
    assert_eq!(second.acks(1).await, [1]);
    let mut views = scene.gateway.view();
    let back = |member: &v1::Member| {
        member.incarnation == second.hello.incarnation && member.state() == MemberState::Ready
    };
    let wait = views.wait_for(|view| view.members.len() == 2 && view.members.iter().any(back));
    soon("the worker in the view", wait).await.unwrap();
}

#[tokio::test]
async fn a_timer_ticks_on_after_a_panic() {
    let (scene, _attachment) = scene().await;
    // What the test notes down; the test itself bounds it.
    let (tick, mut ticks) = mpsc::unbounded_channel();
    let config = WorkerConfig { registers: vec![scene._register.address.clone()], ..WorkerConfig::default() };
    // What the test notes down; the test itself bounds it.
    let (sender, _heard) = mpsc::unbounded_channel();
    let other = Recorder { heard: sender, go_on: scene.go_on.clone() };
    let period = std::time::Duration::from_millis(20);
    let worker = Worker::new(config).every(period, Once::PerWorker, move |_| {
        let tick = tick.clone();
        async move {
            tick.send(()).unwrap();
            panic!("on purpose");
        }
    });
    let running = tokio::spawn(worker.run(other, std::future::pending()));
    for _ in 0..3 {
        soon("a tick", ticks.recv()).await.unwrap();
    }
    running.abort();
}
