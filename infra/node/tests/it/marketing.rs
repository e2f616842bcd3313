//! The walkthrough of the README for people who choose who gets a message, line by line as it stands there.

use std::{fs, path::Path, process::Command};

use crate::sandbox::{On, Sandbox};

/// The shell of the README's chapter.
fn walkthrough() -> String {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md")).unwrap();
    let (_, chapter) = readme.split_once("## Choose who gets it").expect("the chapter is there");
    let (_, shell) = chapter.split_once("```sh\n").expect("it begins with shell");
    shell.split_once("```").expect("which ends").0.to_owned()
}

async fn walk(back_ends: On) {
    let Some(sandbox) = Sandbox::on(back_ends) else { return };
    let server = sandbox.start().await;
    let shell = walkthrough().replace("127.0.0.1:8080", &sandbox.http.to_string());
    let key = sandbox.key.clone();
    let output = tokio::task::spawn_blocking(move || {
        Command::new("bash").args(["-uc", &shell]).env("FANFARE_KEY", key).output().unwrap()
    });
    let output = output.await.unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let excluded_by = r#""excluded_by":{"opt_outs":1,"suppressions":1,"tags":2}"#;
    for expected in [
        r#""rows":1000,"created":1000"#,
        r#""type":"newsletter","from":"22:00","to":"08:00","tz":"Asia/Shanghai""#,
        "column 26: attr.levle is not declared; did you mean attr.level?",
        r#""count":248"#,
        r#""estimate":{"targeted":246"#,
        excluded_by,
        r#""stats":{"targeted":246"#,
        r#""excluded_by":"suppressions""#,
        r#""clause":"app_version >= \"2.10\"""#,
    ] {
        assert!(said.contains(expected), "no {expected} in\n{said}");
    }
    assert_eq!(said.matches(excluded_by).count(), 2, "dry and for real:\n{said}");
    server.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_marketing_walkthrough_does_what_it_says() {
    walk(On::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_marketing_walkthrough_does_what_it_says_on_rabbitmq_and_redis() {
    walk(On::Servers).await;
}
