//! A register and two gateways in one process, with real sockets between them: the short way to see
//! that the rooms of this crate fit together. Whole processes are tested at the top level.

#![allow(clippy::unwrap_used)]

use std::{net::SocketAddr, time::Duration};

use broadgate_gateway::{
    apps::{App, Apps},
    config::{Config, GatewaySettings, Listener},
};
use broadgate_proto::{
    secret::Secret,
    v1::{self, Audience, SendRequest, gateway_client::GatewayClient, send_request::Payload},
};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

struct Gateway {
    internal: SocketAddr,
    web: SocketAddr,
}

async fn cluster(stop: &CancellationToken) -> [Gateway; 2] {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let register = listener.local_addr().unwrap();
    let config = broadgate_register::server::Config::default();
    tokio::spawn(broadgate_register::server::run(listener, config, stop.clone().cancelled_owned()));
    let mut gateways = Vec::new();
    for name in ["left", "right"] {
        let mut settings = GatewaySettings { name: name.to_owned(), ..GatewaySettings::default() };
        settings.internal.bind = "127.0.0.1:0".parse().unwrap();
        let mut web = Listener::web("127.0.0.1:0".parse().unwrap());
        web.service = String::new();
        settings.listeners = vec![web];
        settings.stop.ready_delay = Duration::ZERO;
        let app = App { raw: true, ..App::new("default") };
        let config = Config {
            registers: vec![register.to_string()],
            credentials: Secret::default().into(),
            settings,
            apps: Apps::new(vec![app]).unwrap(),
            tokens: broadgate_gateway::callers::Tokens::default(),
            events: broadgate_gateway::events::EventLog::default(),
            other_connections: 0,
            pages: &[],
        };
        let bound = broadgate_gateway::bind(config).unwrap();
        gateways.push(Gateway { internal: bound.internal_address(), web: bound.client_addresses()[0].1 });
        tokio::spawn(bound.run(stop.clone()));
    }
    let Ok(gateways) = gateways.try_into() else { unreachable!() };
    gateways
}

async fn caller(gateway: &Gateway) -> GatewayClient<Channel> {
    let mut client = GatewayClient::connect(format!("http://{}", gateway.internal)).await.unwrap();
    loop {
        let status = client.status(v1::StatusRequest::default()).await.unwrap().into_inner();
        if status.gateways.len() == 2 && status.gateways.iter().all(|gateway| gateway.peers.len() == 1) {
            return client;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn connect(gateway: &Gateway) -> Socket {
    connect_async(format!("ws://{}/ws", gateway.web)).await.unwrap().0
}

async fn text(socket: &mut Socket) -> String {
    loop {
        if let Message::Text(text) = socket.next().await.unwrap().unwrap() {
            return text.as_str().to_owned();
        }
    }
}

fn send(to: Audience, text: &str) -> SendRequest {
    SendRequest { to: Some(to), payload: Some(Payload::Text(text.into())), ..SendRequest::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_at_one_gateway_is_heard_at_the_other() {
    let stop = CancellationToken::new();
    let [left, right] = cluster(&stop).await;
    let mut caller = caller(&left).await;
    let mut here = connect(&left).await;
    let mut there = connect(&right).await;
    let everybody = Audience { all: true, ..Audience::default() };
    let mut ids = Vec::new();
    while ids.len() < 2 {
        let list = v1::ListClientsRequest { of: Some(everybody.clone()), ..Default::default() };
        let page = caller.list_clients(list).await.unwrap().into_inner();
        assert!(page.coverage.unwrap().complete);
        ids = page.clients.into_iter().map(|client| client.client_id).collect();
    }
    let receipt = caller.send(send(everybody.clone(), "to all")).await.unwrap().into_inner();
    assert_eq!((receipt.clients, receipt.gateways), (2, 2));
    assert_eq!((text(&mut here).await, text(&mut there).await), ("to all".into(), "to all".into()));

    let join =
        v1::JoinGroupsRequest { clients: ids.clone(), groups: vec!["room".into()], ..Default::default() };
    assert_eq!(caller.join(join).await.unwrap().into_inner().clients, 2);
    let room = Audience { groups: vec!["room".into()], ..Audience::default() };
    let receipt = caller.send(send(room, "to the room")).await.unwrap().into_inner();
    assert_eq!(receipt.clients, 2);
    assert_eq!(text(&mut there).await, "to the room");

    let nobody = Audience { groups: vec!["nobody".into()], ..Audience::default() };
    let receipt = caller.send(send(nobody, "x")).await.unwrap().into_inner();
    assert_eq!((receipt.clients, receipt.coverage.unwrap().complete), (0, true));

    here.send(Message::Close(None)).await.unwrap();
    while caller.count(v1::CountRequest::default()).await.unwrap().into_inner().app.unwrap().clients != 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.cancel();
    let closed = loop {
        if let Some(Ok(Message::Close(frame))) = there.next().await {
            break frame.unwrap();
        }
    };
    assert_eq!(u16::from(closed.code), 1012);
}
