//! What people meet at the shell.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use crate::sandbox::{FANFARE, Sandbox};

/// A child process that goes with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn settings_that_do_not_exist_or_cannot_work_are_named() {
    for (variable, value, named) in [
        ("FANFARE__INGEST__LISTNE", "127.0.0.1:1", "listne"),
        ("FANFARE__ACCESS_POINT__LISTEN", "somewhere", "listen"),
        ("FANFARE__BROKER", "amqp://localhost", "broker"),
    ] {
        let refused = Command::new(FANFARE).env(variable, value).arg("check-config").output().unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(78), "{said}");
        assert!(said.contains(named), "{said}");
    }
}

#[test]
fn the_environment_sets_lists_with_commas() {
    for (variable, value) in [
        ("FANFARE__INGEST__CALLBACK_HOSTS", "members.example.com,.example.org"),
        ("FANFARE__ACCESS_POINT__PROXIES", "10.0.0.0/24,192.168.0.1"),
    ] {
        let checked = Command::new(FANFARE).env(variable, value).arg("check-config").output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
}

#[test]
fn a_public_listener_without_any_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = Command::new(FANFARE)
        .env("FANFARE__DATA_DIR", dir.path())
        .env("FANFARE__INGEST__LISTEN", "0.0.0.0:0")
        .output()
        .unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("fanfare app create"), "{said}");
}

#[tokio::test]
async fn a_second_process_on_the_same_data_is_told_what_to_do() {
    let sandbox = Sandbox::new();
    let _server = sandbox.start().await;
    let refused = sandbox.run(&["app", "list"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("in use by another process"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_send_sends_listen_prints() {
    let sandbox = Sandbox::new();
    let _server = sandbox.start().await;
    let (url, mqtt) = (format!("http://{}", sandbox.http), sandbox.mqtt.to_string());
    let mut listen = sandbox
        .command(&["listen", "--device", "me", "--key", &sandbox.key, "--url", &url, "--mqtt", &mqtt])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (heard, told) = (listen.stdout.take().unwrap(), listen.stderr.take().unwrap());
    let _listen = Killed(listen);
    assert_eq!(BufReader::new(told).lines().next().unwrap().unwrap(), "connected");
    let send = ["send", "--to", "device:me", "--key", &sandbox.key, "--url", &url, r#"{"title":"Hello"}"#];
    let sent = sandbox.run(&send);
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    assert_eq!(BufReader::new(heard).lines().next().unwrap().unwrap(), r#"{"title":"Hello"}"#);
}

#[test]
fn the_demo_keeps_its_promises_and_its_curl_line_works_as_printed() {
    let sandbox = Sandbox::new();
    let demo = sandbox.command(&["demo", "--devices", "60"]).stdout(Stdio::piped()).spawn();
    let mut demo = Killed(demo.unwrap());
    let lines = BufReader::new(demo.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut printed = Vec::new();
    for line in lines {
        let curl = line.trim_start().starts_with("curl ");
        printed.push(line);
        if curl {
            break;
        }
    }
    let all = printed.join("\n");
    assert!(all.contains("every promise was kept"), "{all}");
    let curl = printed.last().unwrap();
    let answer = Command::new("sh").args(["-c", &format!("{curl} --silent --include")]).output().unwrap();
    let answer = String::from_utf8(answer.stdout).unwrap();
    assert!(answer.starts_with("HTTP/1.1 202"), "{curl}\n{answer}");
}
