use std::{collections::HashSet, time::Duration};

use broadgate_business::{Audience, Cluster, ClusterConfig, CommandError, Secret, Who, cluster::Refusal};
use broadgate_proto::v1::{MemberState, command::Command};

use crate::fake::{Answers, Fake, Register, soon};

fn config(register: &Register) -> ClusterConfig {
    ClusterConfig { registers: vec![register.address.clone()], ..ClusterConfig::default() }
}

async fn both_ready(gateway: &Fake) {
    let mut views = gateway.view();
    let ready = |member: &broadgate_proto::v1::Member| member.state() == MemberState::Ready;
    let two = views.wait_for(|view| view.members.iter().filter(|member| ready(member)).count() == 2);
    soon("both gateways", two).await.unwrap();
}

#[tokio::test]
async fn commands_go_to_the_holder_and_others_to_one_gateway_in_order() {
    let register = Register::start().await;
    let (a, b) = (Fake::start(&register, "a").await, Fake::start(&register, "b").await);
    both_ready(&a).await;
    let cluster = Cluster::connect(config(&register)).await.unwrap();
    for n in 0..50 {
        let receipt = cluster.send(Audience::group("g"), n.to_string()).await.unwrap();
        assert_eq!(receipt.clients, 1);
    }
    let (by_a, by_b) = (a.commands().len(), b.commands().len());
    assert!((by_a, by_b) == (50, 0) || (by_a, by_b) == (0, 50), "one stream: {by_a} {by_b}");
    for gateway in [&a, &b] {
        let before = gateway.commands().len();
        let shop = cluster.in_app("shop");
        shop.join(Who::client(gateway.client(1)), ["g"]).await.unwrap();
        shop.bind(gateway.client(1), "ada").await.unwrap();
        let commands = gateway.commands();
        assert_eq!(commands.len(), before + 2);
        assert!(matches!(&commands[before], Command::Join(join) if join.app == "shop"));
    }
}

#[tokio::test]
async fn pipelined_commands_keep_their_order() {
    let register = Register::start().await;
    let gateway = Fake::start(&register, "a").await;
    let cluster = Cluster::connect(config(&register)).await.unwrap();
    for n in 0..1000 {
        cluster.post(Audience::all(), n.to_string()).await.unwrap();
    }
    cluster.send(Audience::all(), "last").await.unwrap();
    let texts: Vec<_> = gateway
        .commands()
        .into_iter()
        .filter_map(|command| match command {
            Command::Send(send) => match send.payload {
                Some(broadgate_proto::v1::send_request::Payload::Text(text)) => Some(text),
                _ => None,
            },
            _ => None,
        })
        .collect();
    let expected: Vec<_> = (0..1000).map(|n| n.to_string()).chain(["last".to_owned()]).collect();
    assert_eq!(texts, expected);
}

#[tokio::test]
async fn a_broken_stream_costs_a_repeat_and_in_the_end_says_unanswered() {
    let register = Register::start().await;
    let gateway = Fake::start(&register, "a").await;
    let timeout = Duration::from_millis(500);
    let cluster = Cluster::connect(ClusterConfig { timeout, ..config(&register) }).await.unwrap();
    gateway.answers(Answers::Break);
    let error = cluster.send(Audience::all(), "x").await.unwrap_err();
    assert!(matches!(&error, CommandError::Unanswered { gateway, .. } if gateway == "a"), "{error}");
    let ids: HashSet<_> = gateway.sent().into_iter().map(|(_, id)| id).collect();
    assert!(gateway.sent().len() > 1 && ids.len() == 1, "{ids:?}");
    gateway.answers(Answers::Receipts);
    cluster.send(Audience::all(), "y").await.unwrap();
}

#[tokio::test]
async fn refusals_are_typed() {
    let register = Register::start().await;
    let gateway = Fake::start(&register, "a").await;
    let cluster =
        Cluster::to_gateway(&gateway.address, Secret::default(), "", Duration::from_secs(5)).unwrap();
    gateway.answers(Answers::Refuse);
    let error = cluster.bind(gateway.client(1), "ada").await.unwrap_err();
    assert_eq!(error.refusal(), Some(Refusal::NotFound));
    gateway.answers(Answers::Receipts);
    let large = cluster.send(Audience::all(), vec![0_u8; 4 << 20]).await.unwrap_err();
    assert_eq!(large.refusal(), Some(Refusal::Invalid), "{large}");
    assert_eq!(cluster.status().await.unwrap_err().refusal(), Some(Refusal::Unknown));
}

#[tokio::test]
async fn what_was_not_sent_says_so() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = listener.local_addr().unwrap().to_string();
    drop(listener);
    let short = Duration::from_millis(500);
    let cluster = Cluster::to_gateway(&nobody, Secret::default(), "", short).unwrap();
    let error = cluster.send(Audience::all(), "x").await.unwrap_err();
    assert!(matches!(error, CommandError::NotReachable { .. }), "{error}");
    let config = ClusterConfig { registers: vec![nobody], timeout: short, ..ClusterConfig::default() };
    let error = Cluster::connect(config).await.unwrap_err();
    assert!(error.to_string().contains("no register"), "{error}");
}

#[tokio::test]
async fn another_gateway_is_taken_when_the_preferred_one_goes() {
    let register = Register::start().await;
    let mut gateways = [Fake::start(&register, "a").await, Fake::start(&register, "b").await];
    both_ready(&gateways[0]).await;
    let cluster = Cluster::connect(config(&register)).await.unwrap();
    cluster.send(Audience::all(), "one").await.unwrap();
    let first = usize::from(gateways[0].commands().is_empty());
    gateways[first].lose().await;
    let other = &gateways[1 - first];
    soon("the other gateway", async {
        while other.commands().is_empty() {
            cluster.send(Audience::all(), "more").await.unwrap();
        }
    })
    .await;
}
