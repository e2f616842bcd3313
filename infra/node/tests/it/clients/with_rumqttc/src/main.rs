//! A device made of rumqttc as it comes: prints one JSON line for the connection and one for each message.
//!
//! usage: with_rumqttc URL 3|5 USERNAME CLIENT_ID TOKEN COUNT
//! URL is mqtt, mqtts, ws or wss; under TLS FANFARE_TEST_CA names the certificate to trust.
//! Ends when COUNT messages are there and none came for a second; exit code 1 after 20 s without them.

use std::{env, fs, process::ExitCode, time::Duration};

use rumqttc::{Transport, v5};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

struct Asked {
    url: String,
    host: String,
    port: u16,
    username: String,
    client_id: String,
    token: String,
}

impl Asked {
    /// With WebSocket rumqttc takes the whole URL for the host.
    fn address(&self) -> &str {
        if self.url.starts_with("ws") { &self.url } else { &self.host }
    }

    fn transport(&self) -> Transport {
        let ca = || fs::read(env::var("FANFARE_TEST_CA").expect("FANFARE_TEST_CA")).expect("a certificate to trust");
        match self.url.split_once("://").expect("a URL").0 {
            "mqtt" => Transport::Tcp,
            "mqtts" => Transport::tls(ca(), None, None),
            "ws" => Transport::Ws,
            "wss" => Transport::wss(ca(), None, None),
            other => panic!("rumqttc does not speak {other}"),
        }
    }
}

/// What one poll brought.
enum Came {
    Connected,
    Message { topic: String, payload: Vec<u8>, dup: bool, user: Option<Value> },
    Other,
}

enum Device {
    V3(rumqttc::EventLoop, #[expect(dead_code, reason = "the link ends with it")] rumqttc::AsyncClient),
    V5(v5::EventLoop, #[expect(dead_code, reason = "the link ends with it")] v5::AsyncClient),
}

impl Device {
    fn new(asked: &Asked, version: &str) -> Self {
        if version == "5" {
            let mut options = v5::MqttOptions::new(&asked.client_id, asked.address(), asked.port);
            options.set_credentials(&asked.username, &asked.token).set_transport(asked.transport());
            options.set_keep_alive(Duration::from_secs(30));
            let (client, events) = v5::AsyncClient::new(options, 10);
            Self::V5(events, client)
        } else {
            let mut options = rumqttc::MqttOptions::new(&asked.client_id, asked.address(), asked.port);
            options.set_credentials(&asked.username, &asked.token).set_transport(asked.transport());
            options.set_keep_alive(Duration::from_secs(30));
            let (client, events) = rumqttc::AsyncClient::new(options, 10);
            Self::V3(events, client)
        }
    }

    async fn poll(&mut self) -> Result<Came, String> {
        match self {
            Self::V3(events, _) => match events.poll().await.map_err(|error| error.to_string())? {
                rumqttc::Event::Incoming(rumqttc::Packet::ConnAck(_)) => Ok(Came::Connected),
                rumqttc::Event::Incoming(rumqttc::Packet::Publish(message)) => Ok(Came::Message {
                    topic: message.topic,
                    payload: message.payload.to_vec(),
                    dup: message.dup,
                    user: None,
                }),
                _ => Ok(Came::Other),
            },
            Self::V5(events, _) => match events.poll().await.map_err(|error| error.to_string())? {
                v5::Event::Incoming(v5::mqttbytes::v5::Packet::ConnAck(_)) => Ok(Came::Connected),
                v5::Event::Incoming(v5::mqttbytes::v5::Packet::Publish(message)) => Ok(Came::Message {
                    topic: String::from_utf8(message.topic.to_vec()).expect("a topic"),
                    payload: message.payload.to_vec(),
                    dup: message.dup,
                    user: message.properties.map(|properties| properties.user_properties.into_iter().collect()),
                }),
                _ => Ok(Came::Other),
            },
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [url, version, username, client_id, token, count] = arguments.try_into().expect("six arguments");
    let authority = url.split("://").nth(1).and_then(|rest| rest.split('/').next()).expect("a URL").to_owned();
    let (host, port) = authority.split_once(':').expect("a port");
    let (host, port, count) = (host.to_owned(), port.parse().expect("a port"), count.parse().expect("a count"));
    let mut device = Device::new(&Asked { url, host, port, username, client_id, token }, &version);
    let (tell, mut told) = mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let came = device.poll().await;
            if came.is_err() | tell.send(came).await.is_err() {
                return;
            }
        }
    });
    let (mut received, mut quiet_since, deadline) = (0_usize, Instant::now(), Instant::now() + Duration::from_secs(20));
    while Instant::now() < deadline && (received < count || quiet_since.elapsed() < Duration::from_secs(1)) {
        match timeout(Duration::from_millis(50), told.recv()).await {
            Err(_) | Ok(None | Some(Ok(Came::Other))) => {}
            Ok(Some(Ok(Came::Connected))) => println!("{}", json!({"event": "connected", "reason": "Success"})),
            Ok(Some(Ok(Came::Message { topic, payload, dup, user }))) => {
                received += 1;
                quiet_since = Instant::now();
                say(&topic, &payload, dup, user);
            }
            Ok(Some(Err(error))) => {
                println!("{}", json!({"event": "error", "reason": error}));
                return ExitCode::FAILURE;
            }
        }
    }
    if received >= count { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn say(topic: &str, payload: &[u8], dup: bool, user: Option<Value>) {
    let (user, payload) = match user {
        Some(user) => (user, String::from_utf8(payload.to_vec()).expect("text")),
        None => {
            let mut envelope: Value = serde_json::from_slice(payload).expect("an envelope");
            let payload = envelope["payload"].take().to_string();
            (envelope, payload)
        }
    };
    println!("{}", json!({"event": "message", "topic": topic, "dup": dup, "user": user, "payload": payload}));
}
