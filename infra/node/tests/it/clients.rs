//! MQTT clients of others, as they come: paho-mqtt, mqtt.js and mosquitto_sub, in MQTT 3.1.1 and 5.
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
const MOSQUITTO_S: &str = "4";

/// What it then exits with: MOSQ_ERR_TIMEOUT.
const MOSQUITTO_TIMEOUT: i32 = 27;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Paho,
    MqttJs,
    Mosquitto,
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

impl Running {
    /// Starts a client that will end once it has `count` messages and a quiet second.
    fn start(
        kind: Kind,
        tools: &Path,
        sandbox: &Sandbox,
        v5: bool,
        device: &DeviceId,
        token: &Token,
        count: usize,
    ) -> Self {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clients");
        let (host, port) = (sandbox.mqtt.ip().to_string(), sandbox.mqtt.port().to_string());
        let version = if v5 { "5" } else { "3" };
        let count = count.to_string();
        let arguments = [&host, &port, version, "demo", device.as_str(), &token.token, &count];
        let mut command = match kind {
            Kind::Paho => {
                let mut command = Command::new(tools.join("python/bin/python"));
                command.arg(scripts.join("with_paho.py")).args(arguments);
                command
            }
            Kind::MqttJs => {
                let mut command = Command::new("node");
                command.arg(scripts.join("with_mqttjs.mjs")).args(arguments);
                command
            }
            Kind::Mosquitto => {
                // On a pipe it would keep its lines to itself until the end.
                let mut command = Command::new("stdbuf");
                command.args(["-oL", "mosquitto_sub"]);
                command.args(["-h", &host, "-p", &port, "-V", if v5 { "mqttv5" } else { "mqttv311" }]);
                command.args(["-i", device.as_str(), "-u", "demo", "-P", &token.token, "-q", "1"]);
                command.args(["-t", "push/demo/#", "-F", "%t %p", "-d", "-W", MOSQUITTO_S]);
                command
            }
        };
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, kind }
    }

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
                Kind::Paho | Kind::MqttJs => line.contains("\"message\""),
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
            Kind::Paho | Kind::MqttJs => {
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

/// The client is online for one message of each lane, then away for three, and gets exactly what it missed.
async fn online_then_offline(back_ends: On, kind: Kind, v5: bool) {
    let Some(tools) = tools() else { return };
    let Some(sandbox) = Sandbox::on(back_ends) else { return };
    let server = sandbox.start().await;
    let api = sandbox.api();
    let (device, other): (DeviceId, DeviceId) = ("dev-1".parse().unwrap(), "dev-2".parse().unwrap());
    for id in [&device, &other] {
        api.register(id, &Profile::default()).await.unwrap();
    }
    let token = api.token(&device, 600).await.unwrap();
    let start = |count| Running::start(kind, &tools, &sandbox, v5, &device, &token, count);

    let mut client = start(3);
    client.connected().await;
    let mut sent = vec![send(&api, "on-1-unicast", Audience::device(&device)).await];
    sent.push(send(&api, "on-2-multicast", Audience::Devices(vec![device.clone(), other.clone()])).await);
    sent.push(send(&api, "on-3-broadcast", Audience::All).await);
    let heard = client.heard().await;
    assert_eq!(names(kind, v5, &heard), ["on-1-unicast", "on-2-multicast", "on-3-broadcast"]);
    acked(&sandbox, &sent, &device).await;

    let mut missed = vec![send(&api, "off-1", Audience::device(&device)).await];
    missed.push(send(&api, "off-2", Audience::Devices(vec![other.clone(), device.clone()])).await);
    missed.push(send(&api, "off-3", Audience::All).await);
    send(&api, "not-for-you", Audience::device(&other)).await;
    let heard = start(3).heard().await;
    assert_eq!(names(kind, v5, &heard), ["off-1", "off-2", "off-3"], "exactly what it missed");
    acked(&sandbox, &missed, &device).await;
    server.kill().await.unwrap();
}

/// Waits until every message counts as acked by the device.
pub(crate) async fn acked(sandbox: &Sandbox, messages: &[MessageId], device: &DeviceId) {
    let api = &sandbox.api();
    for message in messages {
        let asked = async {
            while api.stage(*message, device).await.unwrap() != Stage::Acked {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert!(api.message(*message).await.unwrap().stats.balances());
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
    mosquitto_in_mqtt_5 Mosquitto true;
    mosquitto_in_mqtt_3_1_1 Mosquitto false;
}

every_client! {
    Servers:
    paho_in_mqtt_5_on_rabbitmq_and_redis Paho true;
    paho_in_mqtt_3_1_1_on_rabbitmq_and_redis Paho false;
    mqtt_js_in_mqtt_5_on_rabbitmq_and_redis MqttJs true;
    mqtt_js_in_mqtt_3_1_1_on_rabbitmq_and_redis MqttJs false;
    mosquitto_in_mqtt_5_on_rabbitmq_and_redis Mosquitto true;
    mosquitto_in_mqtt_3_1_1_on_rabbitmq_and_redis Mosquitto false;
}
