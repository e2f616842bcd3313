//! What systemd hears of a process.

use std::{os::unix::net::UnixDatagram, process::Stdio, time::Duration};

use crate::sandbox::Sandbox;

/// Far more than a busy machine needs between two words.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn systemd_is_told_of_the_start_of_life_and_of_the_stop() {
    let sandbox = Sandbox::new();
    let path = sandbox.dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut word = [0; 64];
        let len = socket.recv(&mut word).unwrap();
        String::from_utf8(word[..len].to_vec()).unwrap()
    };

    let mut command = sandbox.command(&[]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "100000").stderr(Stdio::null());
    let mut process = command.spawn().unwrap();
    assert_eq!(hear(), "READY=1\n");
    assert!(std::net::TcpStream::connect(sandbox.http).is_ok(), "ready before it listens");
    assert_eq!([hear(), hear()], ["WATCHDOG=1\n", "WATCHDOG=1\n"]);

    let pid = process.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    while hear() != "STOPPING=1\n" {}
    assert!(process.wait().unwrap().success());
}
