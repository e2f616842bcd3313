//! The client against a server of a few lines, which says what it is told to.

use std::sync::Arc;

use http_body_util::Full;
use hyper::{Request, Response, StatusCode, service::service_fn};
use hyper_util::{rt::TokioIo, server::conn::auto};
use parking_lot::Mutex;
use tokio::net::TcpListener;

use super::*;
use crate::error::Problem;

type Answers = Arc<Mutex<Vec<(u16, &'static str)>>>;
type Asked = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// Gives the answers in turn (the last one for ever) and notes what was asked, with which idempotency key.
async fn scripted(answers: &[(u16, &'static str)]) -> (Api, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/", listener.local_addr().unwrap());
    let answers: Answers = Arc::new(Mutex::new(answers.to_vec()));
    let asked = Asked::default();
    let noted = asked.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (answers, noted) = (answers.clone(), noted.clone());
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let key = request.headers().get("idempotency-key").map(|key| key.to_str().unwrap().to_owned());
                noted.lock().push((format!("{} {}", request.method(), request.uri().path()), key));
                let mut answers = answers.lock();
                let (status, body) = if answers.len() > 1 { answers.remove(0) } else { answers[0] };
                let answer = Response::builder().status(StatusCode::from_u16(status).unwrap());
                std::future::ready(answer.body(Full::new(Bytes::from(body))))
            });
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                drop(server.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    (Api::new(&base, "ak_test_x"), asked)
}

const ACCEPTED: &str = r#"{"id":"msg_01JD7Q2Z4M8V6T3K5N9R0WXYEC","mode":"broadcast","status":"queued"}"#;
const REFUSED: &str = r#"{"type":"about:blank","status":422,"code":"invalid_request"}"#;
const TOKEN: &str = r#"{"token":"eyJhbGciOiJIUzI1NiIsImtpZCI6ImRlbW8iLCJ0eXAiOiJKV1QifQ.eyJzdWIiOiJkZXYtMSIsImFwcCI6ImRlbW8iLCJnZW4iOjMsImV4cCI6MTc5NTMzNjIwMH0.38pY4ecJaMwwYWoPWcW1AwqEAw7UrhjAxG25_mxMYM0"}"#;

#[tokio::test]
async fn an_unknown_outcome_is_asked_again_under_the_same_key_and_a_refusal_is_not() {
    let (api, asked) = scripted(&[(503, ""), (500, ""), (202, ACCEPTED), (422, REFUSED)]).await;
    let send = Send::named("k-1", Audience::All, 60);
    let accepted = api.send_until_known(&send, 10).await.unwrap();
    assert_eq!(accepted.id.to_string(), "msg_01JD7Q2Z4M8V6T3K5N9R0WXYEC");
    let Err(Error::Rejected(Problem { status, code, body })) = api.send_until_known(&send, 10).await else {
        panic!("a refusal is an error");
    };
    assert_eq!((status, code.as_str(), body.as_str()), (Some(422), "invalid_request", REFUSED));
    let expected = ("POST /v1/messages".to_owned(), Some("\"k-1\"".to_owned()));
    assert_eq!(*asked.lock(), vec![expected; 4]);
}

#[tokio::test]
async fn nobody_listening_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = Api::new(&format!("http://{}", listener.local_addr().unwrap()), "k");
    drop(listener);
    assert!(matches!(api.send(&Send::named("k", Audience::All, 1)).await, Err(Error::Unavailable(_))));
    assert!(!api.is_ready().await);
}

#[tokio::test]
async fn a_retry_goes_to_another_server() {
    let (well, asked) = scripted(&[(202, ACCEPTED)]).await;
    let api = Api::among(&["http://127.0.0.1:1", &well.bases[0]], "k");
    for _ in 0..2 {
        api.send_until_known(&Send::named("k-1", Audience::All, 60), 2).await.unwrap();
    }
    assert_eq!(asked.lock().len(), 2);
}

#[tokio::test]
async fn a_token_tells_its_app() {
    let (api, asked) = scripted(&[(201, TOKEN), (201, r#"{"token":"x"}"#)]).await;
    let device = "dev-1".parse().unwrap();
    assert_eq!(api.token(&device, 60).await.unwrap().app.as_str(), "demo");
    assert!(matches!(api.token(&device, 60).await, Err(Error::Corrupt(_))));
    assert_eq!(asked.lock()[0].0, "POST /v1/devices/dev-1/tokens");
}

#[test]
fn a_named_payload_tells_its_name() {
    let send = Send::named("k-1", Audience::All, 60);
    assert_eq!(Send::name_in(send.payload.to_string().as_bytes()), Some("k-1"));
    assert_eq!(Send::name_in(b"{}"), None);
    assert_eq!(Send::name_in(b"no json"), None);
}
