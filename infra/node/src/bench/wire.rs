//! `fanfare bench wire`: the server that bytes are counted against, with TLS where OpenSSL can make a certificate.

use std::{io::Write as _, path::Path, process::Stdio};

use anyhow::{Context as _, ensure};
use lab::{
    bench::{WireTarget, wire},
    fault::steady_address,
};

use super::start_with;
use crate::config::Config;

/// Makes a certificate for trying out, into the folder that it is given.
const CERTIFICATE: &str = include_str!("../../../certificate");

pub(super) async fn run(config: Config) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("cannot make a folder for the certificate")?;
    let (mut tls, mut more) = (None, Vec::new());
    match certify(folder.path()) {
        Ok(()) => {
            let address = steady_address()?;
            let path = |name: &str| folder.path().join(name);
            let settings = [
                ("ACCESS_POINT__TLS_LISTEN", address.to_string()),
                ("ACCESS_POINT__TLS_CERTIFICATE", path("certificate.pem").display().to_string()),
                ("ACCESS_POINT__TLS_KEY", path("key.pem").display().to_string()),
            ];
            more.extend(settings);
            tls = Some((address, path("ca.pem")));
        }
        Err(error) => eprintln!("without TLS: {error:#}"),
    }
    let settings: Vec<_> = more.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let subject = start_with(config, &settings).await?;
    let target = WireTarget { api: subject.target.api.clone(), mqtt: subject.target.mqtt, tls };
    println!("{}", wire(&target).await?);
    Ok(())
}

fn certify(folder: &Path) -> anyhow::Result<()> {
    let mut bash = std::process::Command::new("bash").arg("-s").arg(folder).stdin(Stdio::piped()).spawn()?;
    bash.stdin.take().context("no way to tell bash")?.write_all(CERTIFICATE.as_bytes())?;
    ensure!(bash.wait()?.success(), "no certificate was made");
    Ok(())
}
