//! A server as a child process: started, waited for, killed without warning.

use std::{
    fs::{self, OpenOptions},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::{Api, Error};

/// How often a starting server is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// How long it may think about the answer before it is asked again.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// How to start the server; its ports and its data must be the same every time.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables added to its environment.
    pub environment: Vec<(String, String)>,
    /// The file that its output is appended to; `None` drops it.
    pub log: Option<PathBuf>,
    /// How long it may take to be ready.
    pub patience: Duration,
}

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// From the start of the process to its first "ready".
    pub ready_after: Duration,
}

impl Server {
    /// Starts the server and waits until it says that it is ready.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it ends by itself, [`Error::Unavailable`] when it does not start or is not ready in time.
    pub async fn start(launch: &Launch, api: &Api) -> Result<Self, Error> {
        let output = || -> Result<Stdio, Error> {
            let Some(log) = &launch.log else { return Ok(Stdio::null()) };
            Ok(OpenOptions::new().create(true).append(true).open(log)?.into())
        };
        let begun = Instant::now();
        let mut child = Command::new(&launch.program)
            .args(&launch.arguments)
            .envs(launch.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(output()?)
            .stderr(output()?)
            .kill_on_drop(true)
            .spawn()?;
        while !timeout(ANSWER_PATIENCE, api.is_ready()).await.unwrap_or(false) {
            if let Some(status) = child.try_wait()? {
                return Err(Error::Corrupt(format!("the server ended by itself: {status}")));
            }
            if begun.elapsed() > launch.patience {
                return Err(Error::unavailable("not_ready", format!("after {:?}", launch.patience)));
            }
            sleep(ASK_EVERY).await;
        }
        Ok(Self { child, ready_after: begun.elapsed() })
    }

    /// Its process; `None` when it has ended.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it had ended by itself before.
    pub async fn kill(mut self) -> Result<(), Error> {
        if let Some(status) = self.child.try_wait()? {
            return Err(Error::Corrupt(format!("the server ended by itself: {status}")));
        }
        Ok(self.child.kill().await?)
    }
}

/// The lowest port looked at for [`steady_address`]; those below belong to known services.
const STEADY_FROM: u16 = 10_000;
/// Where Linux begins to give ports to outgoing connections when it does not say.
const EPHEMERAL_FROM: u16 = 32_768;
/// Ports tried before giving up.
const PORT_TRIES: usize = 100;

/// A free loopback address whose port no outgoing connection is given, so that a server which is killed finds it free
/// again: clients that try to reach it meanwhile could otherwise be given its own port.
///
/// # Errors
/// [`Error::Unavailable`] when none is found.
pub fn steady_address() -> Result<SocketAddr, Error> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let until = range.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(EPHEMERAL_FROM);
    let until = until.max(STEADY_FROM + 1);
    let random = || SocketAddr::from(([127, 0, 0, 1], rand::random_range(STEADY_FROM..until)));
    let found = (0..PORT_TRIES).map(|_| random()).find(|address| TcpListener::bind(address).is_ok());
    found.ok_or_else(|| Error::unavailable("no_port", format!("none free of {PORT_TRIES} tried")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(script: &str) -> Launch {
        Launch {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            environment: vec![("WORD".into(), "hello".into())],
            log: None,
            patience: Duration::from_millis(300),
        }
    }

    /// Nobody listens there.
    fn nowhere() -> Api {
        Api::new("http://127.0.0.1:1", "k")
    }

    #[tokio::test]
    async fn a_server_that_ends_by_itself_is_corrupt_and_its_output_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let launch = Launch { log: Some(log.clone()), ..launch("echo $WORD; exit 3") };
        assert!(matches!(Server::start(&launch, &nowhere()).await, Err(Error::Corrupt(_))));
        assert_eq!(std::fs::read_to_string(log).unwrap(), "hello\n");
    }

    #[tokio::test]
    async fn a_server_that_is_never_ready_is_unavailable() {
        assert!(matches!(Server::start(&launch("exec sleep 60"), &nowhere()).await, Err(Error::Unavailable(_))));
    }

    #[test]
    fn a_steady_address_is_free_and_below_those_of_clients() {
        let address = steady_address().unwrap();
        assert!(TcpListener::bind(address).is_ok());
        assert!(TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port() > address.port());
    }
}
