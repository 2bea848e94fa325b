use std::{net::IpAddr, sync::atomic::AtomicUsize, time::Duration};

use http::StatusCode;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::{
    apps::{App, AppAuth},
    backend::NoAnswer,
};

/// A backend that answers its connections in turn, then as the last time. "" is none: it breaks the connection;
/// "wait" never answers.
async fn backend(answers: &'static [&'static str]) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/broadcasting/auth", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let number = count.fetch_add(1, Ordering::Relaxed);
            let answer = answers[number.min(answers.len() - 1)];
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.windows(11).any(|bytes| bytes == b"&socket_id=") {
                    if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                if answer == "wait" {
                    tokio::time::sleep(Duration::from_secs(600)).await;
                }
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (url, asked)
}

fn question(url: &str, timeout: Duration) -> AuthQuestion {
    let auth = AppAuth { url: url.to_owned(), timeout, ..AppAuth::default() };
    AuthQuestion {
        app: Arc::new(App { auth: Some(auth), ..App::new("shop") }),
        channel: "private-orders.1".to_owned(),
        is_presence: false,
        socket_id: "1.2".to_owned(),
        address: IpAddr::from([127, 0, 0, 1]),
        origin: "".into(),
        cookie: "".into(),
        headers: Vec::new(),
    }
}

/// Asks for somebody who stays.
async fn ask(authorizer: &Authorizer, question: AuthQuestion) -> Result<Authorized, AuthRefusal> {
    let (asker, _stays) = oneshot::channel();
    authorizer.ask(question, asker).await
}

const PATIENT: Duration = Duration::from_secs(20);
const YES: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ntrue";
const NO: &str = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const BAD_GATEWAY: &str = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const LOGIN: &str =
    "HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const ERROR: &str = "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const PAGE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>";

#[tokio::test]
async fn what_is_answered_decides_and_only_silence_is_asked_again() {
    let yes = Ok(Authorized { member: None });
    for (answers, expected, questions) in [
        (&[YES][..], yes.clone(), 1),
        (&[NO], Err(AuthRefusal::Status(StatusCode::FORBIDDEN)), 1),
        (&[LOGIN], Err(AuthRefusal::Redirect(StatusCode::FOUND)), 1),
        (&[ERROR], Err(AuthRefusal::Status(StatusCode::INTERNAL_SERVER_ERROR)), 1),
        (&["", YES], yes.clone(), 2),
        (&[BAD_GATEWAY, YES], yes, 2),
        (&[BAD_GATEWAY, BAD_GATEWAY, YES], Err(AuthRefusal::Status(StatusCode::BAD_GATEWAY)), 2),
    ] {
        let (url, asked) = backend(answers).await;
        let answer = ask(&Authorizer::new(), question(&url, PATIENT)).await;
        assert_eq!((answer, asked.load(Ordering::Relaxed)), (expected, questions), "{answers:?}");
    }
    let (url, _) = backend(&[PAGE]).await;
    let answer = ask(&Authorizer::new(), question(&url, PATIENT)).await;
    assert!(matches!(answer, Err(AuthRefusal::Answer(_))), "{answer:?}");
}

#[tokio::test]
async fn a_backend_that_is_not_there_or_slow_refuses() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let answer = ask(&Authorizer::new(), question(&format!("http://{nobody}/"), PATIENT)).await;
    assert!(matches!(answer, Err(AuthRefusal::NoAnswer(NoAnswer::Connect(_)))), "{answer:?}");
    let (url, _) = backend(&["wait"]).await;
    let authorizer = Authorizer::new();
    let hasty = Duration::from_millis(300);
    assert_eq!(ask(&authorizer, question(&url, hasty)).await, Err(AuthRefusal::NoAnswer(NoAnswer::Timeout)));
    let none = question("", PATIENT);
    assert_eq!(ask(&authorizer, none).await, Err(AuthRefusal::NoBackend));
}

#[tokio::test]
async fn what_is_under_way_is_bounded_and_the_rest_waits_no_longer_than_it_may() {
    let (url, asked) = backend(&["wait"]).await;
    let authorizer = Authorizer::new();
    let under_way: Vec<_> = (0..AUTHORIZATIONS_UNDER_WAY_MAX)
        .map(|_| {
            let (authorizer, question) = (authorizer.clone(), question(&url, Duration::from_secs(4)));
            tokio::spawn(async move { ask(&authorizer, question).await })
        })
        .collect();
    while asked.load(Ordering::Relaxed) < AUTHORIZATIONS_UNDER_WAY_MAX {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let hasty = Duration::from_millis(100);
    assert_eq!(ask(&authorizer, question(&url, hasty)).await, Err(AuthRefusal::Busy));
    assert_eq!(asked.load(Ordering::Relaxed), AUTHORIZATIONS_UNDER_WAY_MAX);
    for answer in futures_util::future::join_all(under_way).await {
        assert_eq!(answer.unwrap(), Err(AuthRefusal::NoAnswer(NoAnswer::Timeout)));
    }
    // Every place is free again.
    let (url, _) = backend(&[YES]).await;
    assert_eq!(ask(&authorizer, question(&url, PATIENT)).await, Ok(Authorized { member: None }));
}

/// Who comes, asks and goes keeps nobody's turn; what is under way is finished, and counts until then.
#[tokio::test]
async fn a_question_of_a_client_that_is_gone_is_not_asked() {
    let (url, asked) = backend(&["wait"]).await;
    let authorizer = Authorizer::new();
    let put = |patience| {
        let (asker, stays) = oneshot::channel();
        let (authorizer, question) = (authorizer.clone(), question(&url, patience));
        (tokio::spawn(async move { authorizer.ask(question, asker).await }), stays)
    };
    let patience = Duration::from_secs(3);
    let under_way: Vec<_> = (0..AUTHORIZATIONS_UNDER_WAY_MAX).map(|_| put(patience)).collect();
    while asked.load(Ordering::Relaxed) < AUTHORIZATIONS_UNDER_WAY_MAX {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (waits, stays) = put(PATIENT);
    drop(stays);
    assert_eq!(waits.await.unwrap(), Err(AuthRefusal::Abandoned), "long before its time");
    for (question, stays) in under_way {
        drop(stays);
        assert_eq!(question.await.unwrap(), Err(AuthRefusal::NoAnswer(NoAnswer::Timeout)));
    }
    assert_eq!(asked.load(Ordering::Relaxed), AUTHORIZATIONS_UNDER_WAY_MAX, "and never again");
}
