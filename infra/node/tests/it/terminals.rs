//! The terminal SDKs, as their examples use them, against a node that is killed; and their own tests.
//!
//! `infra/test` installs what they stand on; without it these tests are skipped, loudly.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use lab::{
    Api, Audience,
    api::{Profile, Send},
};
use model::{DeviceId, MessageId};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{sleep, timeout},
};

use crate::{
    clients::{Via, acked, tools},
    sandbox::Sandbox,
};

/// The same test for both SDKs, JavaScript first.
macro_rules! both_sdks {
    ($($test:ident: $js:ident $python:ident;)+) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $js() {
            $test(Sdk::Js).await;
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn $python() {
            $test(Sdk::Python).await;
        })+
    };
}

mod gentle;

/// How long a line of a device may take: it may be pausing before it connects again, for longer after each failure.
const LINE_PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
enum Sdk {
    Js,
    Python,
}

/// The example of an SDK that is running, and what it has printed.
struct Device {
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    /// The names that senders gave the messages, in the order in which they came, behind the name of an app that shares the
    /// link.
    names: Vec<String>,
    /// Everything else.
    events: Vec<Value>,
}

impl Sdk {
    fn folder(self) -> PathBuf {
        let name = match self {
            Self::Js => "js",
            Self::Python => "python",
        };
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../access-point/sdk").join(name)
    }

    fn command(self, tools: &Path) -> Command {
        let mut command = match self {
            Self::Js => Command::new("node"),
            Self::Python => Command::new(tools.join("python/bin/python")),
        };
        command.current_dir(self.folder()).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// Its example as the device `dev-1`, which remembers in `memory`.
    fn example(self, tools: &Path, platform: &str, token: &str, memory: &Path) -> Command {
        let example = match self {
            Self::Js => "example/device.mjs",
            Self::Python => "example/device.py",
        };
        let mut command = self.command(tools);
        command.args([example, platform, "demo", "dev-1", token]).arg(memory);
        command
    }

    /// Starts its example.
    fn start(self, tools: &Path, platform: &str, token: &str, memory: &Path) -> Device {
        Device::run(self.example(tools, platform, token, memory))
    }
}

impl Device {
    fn run(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let (input, output) = (child.stdin.take(), child.stdout.take().unwrap());
        Self { child, input, lines: BufReader::new(output).lines(), names: Vec::new(), events: Vec::new() }
    }

    /// Reads what it prints until that is enough.
    async fn until(&mut self, enough: impl Fn(&Self) -> bool) {
        while !enough(self) {
            let line = timeout(LINE_PATIENCE, self.lines.next_line()).await;
            let line = line.unwrap_or_else(|_| panic!("nothing more than {:?} {:?}", self.names, self.events)).unwrap();
            let line: Value = serde_json::from_str(&line.expect("the device ended")).unwrap();
            let name = || line["payload"]["msg"].as_str().unwrap().to_owned();
            match (line["event"] == "message", line["app"].as_str()) {
                (true, None) => self.names.push(name()),
                (true, Some(app)) => self.names.push(format!("{app} {}", name())),
                (false, _) => self.events.push(line),
            }
        }
    }

    fn told(&self, event: &str) -> usize {
        self.events.iter().filter(|line| line["event"] == event).count()
    }

    async fn send(&mut self, line: &str) {
        self.input.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// Ends it as its user would; what it received.
    async fn end(mut self) -> Vec<String> {
        self.input = None;
        self.until(|device| device.told("stopped") > 0).await;
        assert!(self.child.wait().await.unwrap().success());
        self.names
    }
}

/// The device of the examples, registered, and a token of it.
async fn enrolled(api: &Api) -> (DeviceId, String) {
    let id: DeviceId = "dev-1".parse().unwrap();
    api.register(&id, &Profile::default()).await.unwrap();
    let token = api.token(&id, 600).await.unwrap().token;
    (id, token)
}

async fn send(api: &Api, name: &str, to: Audience) -> MessageId {
    api.send(&Send::named(name, to, 3_600)).await.unwrap().id
}

/// The server is killed, then the device; the application gets each message once and in order, and what it sends up
/// while the server is gone arrives.
async fn each_message_once_and_in_order(sdk: Sdk) {
    let Some(tools) = tools() else { return };
    let sandbox = Sandbox::new();
    let server = sandbox.start().await;
    let (api, platform) = (sandbox.api(), format!("http://{}", sandbox.http));
    let (id, token) = enrolled(&api).await;
    let memory = sandbox.dir.path().join("device");

    let mut device = sdk.start(&tools, &platform, &token, &memory);
    device.until(|device| device.told("online") == 1).await;
    send(&api, "1", Audience::device(&id)).await;
    device.until(|device| device.names.len() == 1).await;
    let mut sent = vec![send(&api, "2", Audience::All).await];
    device.send(r#"gps {"n":1}"#).await;
    device.until(|device| device.names.len() == 2 && device.told("taken") == 1).await;

    server.kill().await.unwrap();
    device.until(|device| device.told("waiting") > 0).await;
    device.send(r#"gps {"n":2}"#).await;
    let server = sandbox.start().await;
    sent.push(send(&api, "3", Audience::device(&id)).await);
    device.until(|device| device.names.len() == 3 && device.told("taken") == 2).await;
    // What it acked it remembers; what it only printed it would print again.
    acked(&sandbox, &api, &sent, &id).await;
    device.child.kill().await.unwrap();
    assert_eq!(device.names, ["1", "2", "3"]);

    sent.push(send(&api, "4", Audience::All).await);
    let mut device = sdk.start(&tools, &platform, &token, &memory);
    device.until(|device| device.names.len() == 1).await;
    acked(&sandbox, &api, &sent, &id).await;
    assert_eq!(device.end().await, ["4"]);
    uplinks(&api, "/v1/uplink", &[json!({"n": 1}), json!({"n": 2})]).await;
    server.kill().await.unwrap();
}

/// Waits until products can read exactly these, however often they were sent.
async fn uplinks(api: &Api, path: &str, wanted: &[Value]) {
    let read = async {
        loop {
            let page = api.get(path).await.unwrap();
            let payloads: Vec<Value> =
                page["data"].as_array().unwrap().iter().map(|uplink| uplink["payload"].clone()).collect();
            if payloads == wanted {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LINE_PATIENCE, read).await.expect("what the device sent up cannot be read");
}

/// It carries out what it is commanded, and is answered what it asks.
async fn both_ways(sdk: Sdk) {
    let Some(tools) = tools() else { return };
    let sandbox = Sandbox::new();
    let server = sandbox.start().await;
    let (api, platform) = (sandbox.api(), format!("mqtt://{}", sandbox.mqtt));
    let (id, token) = enrolled(&api).await;
    let mut device = sdk.start(&tools, &platform, &token, &sandbox.dir.path().join("device"));
    let order = json!({"class": "command", "to": {"devices": [id]}, "ttl_s": 60, "payload": {"msg": "open"}});
    let command = api.post("/v1/messages", &order).await.unwrap()["id"].clone();
    let result = format!("/v1/messages/{}/result?wait_s=5", command.as_str().unwrap());
    device.until(|device| device.names.len() == 1).await;
    let outcome = api.get(&result).await.unwrap();
    assert_eq!((&outcome["state"], &outcome["result"]), (&json!("succeeded"), &json!({"msg": "open"})));

    device.send(r#"price/r-1 {"item":7}"#).await;
    device.until(|device| device.told("taken") == 1).await;
    uplinks(&api, "/v1/uplink?type=price", &[json!({"item": 7})]).await;
    let asked = api.get("/v1/uplink?type=price").await.unwrap()["data"][0].clone();
    let answer = json!({"to": {"devices": [id]}, "reply": asked["reply"], "payload": {"msg": "42"}});
    api.post("/v1/messages", &answer).await.unwrap();
    device.until(|device| device.names.len() == 2).await;
    assert_eq!(device.end().await, ["open", "42"]);
    server.kill().await.unwrap();
}

/// The address decides the transport.
async fn every_transport(sdk: Sdk) {
    let Some(tools) = tools() else { return };
    let mut sandbox = Sandbox::new();
    sandbox.secure();
    let server = sandbox.start().await;
    let api = sandbox.api();
    let (id, token) = enrolled(&api).await;
    let memory = sandbox.dir.path().join("device");
    for via in Via::ALL {
        let mut command = sdk.example(&tools, &via.url(&sandbox), &token, &memory);
        let ca = sandbox.dir.path().join("tls/ca.pem");
        command.env("NODE_EXTRA_CA_CERTS", &ca).env("SSL_CERT_FILE", &ca);
        let mut device = Device::run(command);
        let name = format!("{via:?}");
        send(&api, &name, Audience::device(&id)).await;
        device.until(|device| device.names.len() == 1).await;
        assert_eq!(device.end().await, [name]);
    }
    server.kill().await.unwrap();
}

/// A terminal whose token is no good does not hammer the platform: it stops and says why.
async fn a_refused_token_stops_it(sdk: Sdk) {
    let Some(tools) = tools() else { return };
    let sandbox = Sandbox::new();
    let server = sandbox.start().await;
    for platform in [format!("http://{}", sandbox.http), format!("mqtt://{}", sandbox.mqtt)] {
        let mut device = sdk.start(&tools, &platform, "made-up", &sandbox.dir.path().join("device"));
        device.until(|device| device.told("stopped") == 1).await;
        assert_eq!(device.told("waiting"), 0, "{:?}", device.events);
        assert_eq!(device.child.wait().await.unwrap().code(), Some(1));
    }
    server.kill().await.unwrap();
}

both_sdks! {
    each_message_once_and_in_order: the_js_sdk_gives_each_message_once_and_in_order the_python_sdk_gives_each_message_once_and_in_order;
    both_ways: the_js_sdk_carries_out_commands_and_is_answered the_python_sdk_carries_out_commands_and_is_answered;
    every_transport: the_js_sdk_speaks_over_every_transport the_python_sdk_speaks_over_every_transport;
    a_refused_token_stops_it: a_refused_token_stops_the_js_sdk a_refused_token_stops_the_python_sdk;
}

/// The demo page has two devices: one speaks MQTT over WebSocket, the other listens to server-sent events.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_chromium_gets_each_message_once_by_websocket_and_by_events() {
    let Some(tools) = tools() else { return };
    let sandbox = Sandbox::new();
    let server = sandbox.start().await;
    let api = sandbox.api();
    let devices: [DeviceId; 2] = ["web-1", "web-2"].map(|id| id.parse().unwrap());
    let mut tokens = Vec::new();
    for device in &devices {
        api.register(device, &Profile::default()).await.unwrap();
        tokens.push(api.token(device, 600).await.unwrap().token);
    }
    let mut command = Sdk::Js.command(&tools);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clients/in_chromium.mjs");
    command.arg(script).arg(Sdk::Js.folder()).arg(sandbox.mqtt.to_string()).args(tokens);
    let mut page = Device::run(command);
    page.until(|page| page.told("online") == 2).await;
    let first = send(&api, "1", Audience::device(&devices[0])).await;
    let second = send(&api, "2", Audience::device(&devices[1])).await;
    let all = send(&api, "3", Audience::All).await;
    page.until(|page| page.names.len() == 4).await;
    for (device, messages) in devices.iter().zip([[first, all], [second, all]]) {
        acked(&sandbox, &api, &messages, device).await;
    }

    page.send("reload").await;
    page.until(|page| page.told("online") == 4).await;
    send(&api, "4", Audience::All).await;
    page.until(|page| page.names.len() == 6).await;
    server.kill().await.unwrap();
    page.until(|page| page.told("waiting") >= 2).await;
    let server = sandbox.start().await;
    send(&api, "5", Audience::All).await;
    page.until(|page| page.names.len() == 8).await;

    page.input = None;
    page.until(|page| page.told("stopped") > 0).await;
    page.names.sort();
    assert_eq!(page.names, ["1", "2", "3", "3", "4", "4", "5", "5"]);
    let shown = page.events.iter().find(|line| line["event"] == "shown").unwrap();
    assert_eq!((&shown["mqtt"], &shown["sse"]), (&json!(2), &json!(2)), "since the page was loaded");
    assert_eq!(page.told("broken"), 0, "{:?}", page.events);
    server.kill().await.unwrap();
}

#[tokio::test]
async fn the_sdks_pass_their_own_tests() {
    let Some(tools) = tools() else { return };
    for (sdk, arguments) in [(Sdk::Js, ["--test", "test/"]), (Sdk::Python, ["-m", "unittest"])] {
        let ended = sdk.command(&tools).args(arguments).output().await.unwrap();
        assert!(ended.status.success(), "{sdk:?}: {}", String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()));
    }
}
