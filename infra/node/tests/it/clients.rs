//! MQTT clients of others, as they come: paho-mqtt, mqtt.js, rumqttc, gmqtt and mosquitto_sub, in MQTT 3.1.1 and 5, over
//! every transport that each of them speaks.
//!
//! `infra/test` installs them and says where in `FANFARE_TEST_CLIENTS`; without it these tests are skipped, loudly.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use lab::{
    Api, Audience,
    api::{Profile, Send, Token},
};
use model::{DeviceId, MessageId, Stage};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::sandbox::{On, Sandbox};

/// How long one line of a client may take.
const LINE_PATIENCE: Duration = Duration::from_secs(30);

/// mosquitto_sub stays this long, in seconds: told to end with the last message it would cut its link before its acks.
const MOSQUITTO_S: &str = "10";

/// What it then exits with: MOSQ_ERR_TIMEOUT.
const MOSQUITTO_TIMEOUT: i32 = 27;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Paho,
    MqttJs,
    Rumqttc,
    Gmqtt,
    Mosquitto,
}

/// A way to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    Tcp,
    Tls,
    WebSocket,
    Wss,
}

impl Via {
    pub(crate) const ALL: [Self; 4] = [Self::Tcp, Self::Tls, Self::WebSocket, Self::Wss];

    pub(crate) fn url(self, sandbox: &Sandbox) -> String {
        match self {
            Self::Tcp => format!("mqtt://{}", sandbox.mqtt),
            Self::Tls => format!("mqtts://{}", sandbox.tls),
            Self::WebSocket => format!("ws://{}/mqtt", sandbox.mqtt),
            Self::Wss => format!("wss://{}/mqtt", sandbox.tls),
        }
    }
}

impl Kind {
    /// What it speaks: gmqtt and mosquitto_sub know no WebSocket.
    fn transports(self) -> &'static [Via] {
        match self {
            Self::Paho | Self::MqttJs | Self::Rumqttc => &Via::ALL,
            Self::Gmqtt | Self::Mosquitto => &[Via::Tcp, Via::Tls],
        }
    }
}

/// One of others' clients, as one device.
struct Guise<'a> {
    kind: Kind,
    v5: bool,
    via: Via,
    tools: &'a Path,
    sandbox: &'a Sandbox,
    device: DeviceId,
    token: Token,
}

/// A client that is running.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    kind: Kind,
}

/// What a client said of a message.
#[derive(Debug)]
struct Heard {
    id: MessageId,
    seq: String,
    topic: String,
    payload: Value,
}

/// Where the clients of others are installed; `None` when nobody says so.
pub(crate) fn tools() -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "how infra/test says where it installed the clients")]
    let tools = env::var("FANFARE_TEST_CLIENTS").ok().map(PathBuf::from);
    if tools.is_none() {
        println!("skipped: FANFARE_TEST_CLIENTS is not set; infra/test sets it");
    }
    tools
}

impl Guise<'_> {
    /// Starts the client; it will end once it has `count` messages and a quiet second.
    fn start(&self, count: usize) -> Running {
        let mut command = match self.kind {
            Kind::Mosquitto => self.mosquitto(),
            _ => self.script(count),
        };
        command.env("FANFARE_TEST_CA", self.sandbox.dir.path().join("tls/ca.pem"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Running { child, lines, kind: self.kind }
    }

    fn script(&self, count: usize) -> Command {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clients");
        let (program, script) = match self.kind {
            Kind::MqttJs => (PathBuf::from("node"), Some("with_mqttjs.mjs")),
            Kind::Rumqttc => (self.tools.join("rumqttc/debug/with_rumqttc"), None),
            Kind::Gmqtt => (self.tools.join("python/bin/python"), Some("with_gmqtt.py")),
            _ => (self.tools.join("python/bin/python"), Some("with_paho.py")),
        };
        let (version, count) = (if self.v5 { "5" } else { "3" }, count.to_string());
        let mut command = Command::new(program);
        command.args(script.map(|script| scripts.join(script)));
        command.args([&self.via.url(self.sandbox), version, "demo", self.device.as_str(), &self.token.token, &count]);
        command
    }

    fn mosquitto(&self) -> Command {
        let address = if self.via == Via::Tls { self.sandbox.tls } else { self.sandbox.mqtt };
        // On a pipe it would keep its lines to itself until the end.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "mosquitto_sub", "-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
        command.args(["-V", if self.v5 { "mqttv5" } else { "mqttv311" }]);
        command.args(["-i", self.device.as_str(), "-u", "demo", "-P", &self.token.token, "-q", "1"]);
        command.args(["-t", "push/demo/#", "-F", "%t %p", "-d", "-W", MOSQUITTO_S]);
        if self.via == Via::Tls {
            command.arg("--cafile").arg(self.sandbox.dir.path().join("tls/ca.pem"));
        }
        command
    }
}

impl Running {
    async fn line(&mut self) -> Option<String> {
        timeout(LINE_PATIENCE, self.lines.next_line()).await.expect("the client says nothing").unwrap()
    }

    async fn connected(&mut self) {
        loop {
            let line = self.line().await.expect("the client ended before it was connected");
            if line.contains("connected") || line.contains("received CONNACK (0)") {
                return;
            }
        }
    }

    /// Reads to the end; what it printed of messages.
    async fn heard(mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.line().await {
            let message = match self.kind {
                Kind::Paho | Kind::MqttJs | Kind::Rumqttc | Kind::Gmqtt => line.contains("\"message\""),
                Kind::Mosquitto => line.starts_with("push/"),
            };
            if message {
                lines.push(line);
            }
        }
        let status = self.child.wait().await.unwrap();
        let ended = status.success() || status.code() == Some(MOSQUITTO_TIMEOUT);
        assert!(ended, "{:?} ended with {status}; it heard {lines:#?}", self.kind);
        lines
    }
}

/// What a script printed. mosquitto_sub does not print user properties, so ids of MQTT 5 are not to be had from it.
fn of_script(line: &str) -> Heard {
    let line: Value = serde_json::from_str(line).unwrap();
    Heard {
        id: line["user"]["id"].as_str().unwrap().parse().unwrap(),
        seq: line["user"]["seq"].as_str().unwrap().to_owned(),
        topic: line["topic"].as_str().unwrap().to_owned(),
        payload: serde_json::from_str(line["payload"].as_str().unwrap()).unwrap(),
    }
}

/// The names that senders gave the messages, as found in their payloads.
fn names(kind: Kind, v5: bool, lines: &[String]) -> Vec<String> {
    let name = |line: &String| {
        let payload = match kind {
            Kind::Paho | Kind::MqttJs | Kind::Rumqttc | Kind::Gmqtt => {
                let heard = of_script(line);
                assert_eq!(heard.topic, "push/demo/msg/default");
                assert!(heard.seq.starts_with(['i', 't']), "{heard:?}");
                assert!(heard.id.to_string().starts_with("msg_"));
                heard.payload
            }
            Kind::Mosquitto => {
                let body: Value = serde_json::from_str(line.split_once(' ').unwrap().1).unwrap();
                if v5 { body } else { body["payload"].clone() }
            }
        };
        payload["msg"].as_str().unwrap().to_owned()
    };
    let mut names: Vec<String> = lines.iter().map(name).collect();
    names.sort();
    names
}

async fn send(api: &Api, name: &str, to: Audience) -> MessageId {
    api.send(&Send::named(name, to, 3_600)).await.unwrap().id
}

/// A device of this client on each transport it speaks.
async fn guises<'a>(kind: Kind, v5: bool, tools: &'a Path, sandbox: &'a Sandbox) -> Vec<Guise<'a>> {
    let (api, mut guises) = (sandbox.api(), Vec::new());
    for via in kind.transports() {
        let device: DeviceId = format!("dev-{via:?}").parse().unwrap();
        api.register(&device, &Profile::default()).await.unwrap();
        let token = api.token(&device, 600).await.unwrap();
        guises.push(Guise { kind, v5, via: *via, tools, sandbox, device, token });
    }
    guises
}

/// Sends a message of each lane to every device; says which each device is to get.
async fn send_all(api: &Api, guises: &[Guise<'_>], other: &DeviceId, when: &str) -> Vec<Vec<MessageId>> {
    let devices = guises.iter().map(|guise| guise.device.clone()).chain([other.clone()]).collect();
    let multicast = send(api, &format!("{when}-2-multicast"), Audience::Devices(devices)).await;
    let broadcast = send(api, &format!("{when}-3-broadcast"), Audience::All).await;
    let mut sent = Vec::new();
    for guise in guises {
        let unicast = send(api, &format!("{when}-1-{}", guise.device), Audience::device(&guise.device)).await;
        sent.push(vec![unicast, multicast, broadcast]);
    }
    sent
}

/// Each client hears exactly what was sent to it, and its acks show.
async fn hear_all(clients: Vec<Running>, guises: &[Guise<'_>], sent: &[Vec<MessageId>], when: &str) {
    for ((client, guise), sent) in clients.into_iter().zip(guises).zip(sent) {
        let heard = client.heard().await;
        let wanted =
            [&format!("1-{}", guise.device), "2-multicast", "3-broadcast"].map(|name| format!("{when}-{name}"));
        assert_eq!(names(guise.kind, guise.v5, &heard), wanted, "{:?} over {:?}", guise.kind, guise.via);
        acked(guise.sandbox, &guise.sandbox.api(), sent, &guise.device).await;
    }
}

/// The client is online for one message of each lane, then away for three, and gets exactly what it missed.
async fn online_then_offline(back_ends: On, kind: Kind, v5: bool) {
    let Some(tools) = tools() else { return };
    let Some(mut sandbox) = Sandbox::on(back_ends) else { return };
    sandbox.secure();
    let server = sandbox.start().await;
    let api = sandbox.api();
    let other: DeviceId = "dev-other".parse().unwrap();
    api.register(&other, &Profile::default()).await.unwrap();
    let guises = guises(kind, v5, &tools, &sandbox).await;

    let mut clients: Vec<Running> = guises.iter().map(|guise| guise.start(3)).collect();
    for client in &mut clients {
        client.connected().await;
    }
    let sent = send_all(&api, &guises, &other, "on").await;
    hear_all(clients, &guises, &sent, "on").await;

    let missed = send_all(&api, &guises, &other, "off").await;
    send(&api, "not-for-you", Audience::device(&other)).await;
    let clients = guises.iter().map(|guise| guise.start(3)).collect();
    hear_all(clients, &guises, &missed, "off").await;
    server.kill().await.unwrap();
}

/// Waits until every message of an app counts as acked by the device.
pub(crate) async fn acked(sandbox: &Sandbox, api: &Api, messages: &[MessageId], device: &DeviceId) {
    for message in messages {
        let asked = async {
            // On a busy machine the store may not answer in time: that is told, and asked again.
            while !api.stage(*message, device).await.is_ok_and(|stage| stage == Stage::Acked) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            while let Err(error) = api.message(*message).await.map(|message| assert!(message.stats.balances())) {
                println!("asked again: {error}");
            }
        };
        if timeout(LINE_PATIENCE, asked).await.is_err() {
            let log = std::fs::read_to_string(sandbox.log()).unwrap_or_default();
            panic!("the ack of {message} does not show in the receipts\n{log}");
        }
    }
}

macro_rules! every_client {
    ($back_ends:ident: $($name:ident $kind:ident $v5:literal;)+) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            online_then_offline(On::$back_ends, Kind::$kind, $v5).await;
        })+
    };
}

every_client! {
    Embedded:
    paho_in_mqtt_5 Paho true;
    paho_in_mqtt_3_1_1 Paho false;
    mqtt_js_in_mqtt_5 MqttJs true;
    mqtt_js_in_mqtt_3_1_1 MqttJs false;
    rumqttc_in_mqtt_5 Rumqttc true;
    rumqttc_in_mqtt_3_1_1 Rumqttc false;
    gmqtt_in_mqtt_5 Gmqtt true;
    gmqtt_in_mqtt_3_1_1 Gmqtt false;
    mosquitto_in_mqtt_5 Mosquitto true;
    mosquitto_in_mqtt_3_1_1 Mosquitto false;
}

every_client! {
    Servers:
    paho_in_mqtt_5_on_rabbitmq_and_redis Paho true;
    paho_in_mqtt_3_1_1_on_rabbitmq_and_redis Paho false;
    mqtt_js_in_mqtt_5_on_rabbitmq_and_redis MqttJs true;
    mqtt_js_in_mqtt_3_1_1_on_rabbitmq_and_redis MqttJs false;
    rumqttc_in_mqtt_5_on_rabbitmq_and_redis Rumqttc true;
    rumqttc_in_mqtt_3_1_1_on_rabbitmq_and_redis Rumqttc false;
    gmqtt_in_mqtt_5_on_rabbitmq_and_redis Gmqtt true;
    gmqtt_in_mqtt_3_1_1_on_rabbitmq_and_redis Gmqtt false;
    mosquitto_in_mqtt_5_on_rabbitmq_and_redis Mosquitto true;
    mosquitto_in_mqtt_3_1_1_on_rabbitmq_and_redis Mosquitto false;
}
