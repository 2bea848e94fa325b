use std::sync::Arc;

use rustls::{RootCertStore, ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::webhooks::receiver::{Mood, TestReceiver};

fn request(url: &str) -> Request<Full<Bytes>> {
    Request::post(url).body(Full::from("{}")).unwrap()
}

fn sender() -> PostSender {
    PostSender::trusting(RootCertStore::empty()).unwrap().within(Duration::from_millis(300))
}

#[tokio::test]
async fn only_2xx_is_success_and_the_reason_of_a_failure_is_told() {
    let receiver = TestReceiver::start(&[Mood::Takes]).await;
    for (mood, label, word) in [
        (Mood::Takes, "", ""),
        (Mood::Answers(204), "", ""),
        (Mood::Answers(301), "redirect", "301 Moved Permanently, and redirects are not followed"),
        (Mood::Answers(404), "status", "404"),
        (Mood::Answers(500), "status", "only 2xx"),
        (Mood::Hangs, "timeout", "within 10 s"),
        (Mood::Breaks, "broken", "connection"),
    ] {
        receiver.turns(mood);
        let result = sender().post(request(&receiver.url())).await;
        let told = result.as_ref().err().map(|failure| (failure.label(), failure.to_string()));
        let told = told.unwrap_or_default();
        assert!(told.0 == label && told.1.contains(word), "{mood:?}: {told:?}");
    }
    assert_eq!(receiver.posts().len(), 7, "none was followed or repeated");
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let failure = sender().post(request(&format!("http://{nobody}/"))).await.unwrap_err();
    assert!(failure.label() == "connect" && failure.to_string().contains("refused"), "{failure}");
}

#[tokio::test]
async fn a_connection_serves_many_posts() {
    let receiver = TestReceiver::start(&[Mood::Takes, Mood::Answers(500), Mood::Takes]).await;
    let sender = sender();
    for arrives in [true, false, true, true] {
        assert_eq!(sender.post(request(&receiver.url())).await.is_ok(), arrives);
    }
    assert_eq!(receiver.connections(), 1);
}

/// The receiver's bytes cost the gateway time: also those that the HTTP client forgets.
#[tokio::test]
async fn answer_without_end_is_read_to_a_limit() {
    let patient = PostSender::trusting(RootCertStore::empty()).unwrap().within(Duration::from_secs(20));
    let long_head = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(1000));
    for (begin, again, fails) in [
        ("", "HTTP/1.1 100 Continue\r\n\r\n", true),
        ("", "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", true),
        (&*long_head, "xxxxxxxxxxxxxxxx", true),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n", "x", false),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "1\r\nx\r\n", false),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (begin, again) = (begin.to_owned(), again.repeat(1000));
        let endless = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut sent = 0;
            // What comes before the request is an error of another kind.
            stream.read_exact(&mut [0; 16]).await.unwrap();
            stream.write_all(begin.as_bytes()).await.unwrap();
            while stream.write_all(again.as_bytes()).await.is_ok() {
                sent += again.len();
            }
            sent
        });
        let posted = patient.post(request(&url)).await;
        assert_eq!(posted, if fails { Err(PostFailure::NoAnswer(NoAnswer::TooLong)) } else { Ok(()) });
        // The connection ends: what the system's buffers took is far less than went on for ever.
        let sent =
            tokio::time::timeout(Duration::from_secs(30), endless).await.expect("it is closed").unwrap();
        assert!(sent < 64 << 20, "{sent}");
    }
    assert!(PostFailure::NoAnswer(NoAnswer::TooLong).to_string().contains("more than 131072 bytes"));
}

#[tokio::test]
async fn https_needs_a_certificate_that_is_trusted() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let receiver = TestReceiver::listen(&[Mood::Takes], Some(acceptor)).await;
    let url = format!("https://{}/hook", receiver.address());
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let patient = |sender: PostSender| sender.within(Duration::from_secs(10));
    assert_eq!(patient(PostSender::trusting(roots).unwrap()).post(request(&url)).await, Ok(()));
    let failure = patient(sender()).post(request(&url)).await.unwrap_err();
    assert!(failure.label() == "connect" && failure.to_string().contains("SSL_CERT_FILE"), "{failure}");
    let failure = patient(PostSender::new().unwrap()).post(request(&url)).await.unwrap_err();
    assert!(failure.to_string().contains("certificate"), "{failure}");
    assert_eq!(receiver.posts().len(), 1);
}
