//! What an idle connection owns: keys and state, no buffers.

use std::{path::Path, process::Command, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;
use crate::certificates::{Certificates, TlsFiles};

/// The two ends of TLS.
async fn pair() -> (Stream, TlsStream<TcpStream>) {
    let dir = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/certificate");
    assert!(Command::new(script).arg(dir.path()).status().unwrap().success());
    let file = |name: &str| dir.path().join(name);
    let files = TlsFiles { certificate: file("certificate.pem"), key: file("key.pem") };
    let config = Certificates::load(files).unwrap().config().unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("ca.pem")).unwrap()).unwrap();
    let trust = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let trust =
        trust.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots).with_no_client_auth();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let connector = TlsConnector::from(Arc::new(trust));
    let (tls, client) =
        tokio::join!(Tls::accept(&accepted, config), connector.connect("localhost".try_into().unwrap(), socket));
    (Stream::secured(accepted, tls.unwrap()), client.unwrap())
}

/// Reads so many bytes.
async fn read(transport: &mut Transport, len: usize) -> Vec<u8> {
    let (mut bytes, mut fresh) = (Vec::new(), [0; 1000]);
    while bytes.len() < len {
        match transport.try_read(&mut fresh) {
            Ok(read) => bytes.extend_from_slice(&fresh[..read]),
            Err(error) if must_wait(&error) => drop(transport.ready(Interest::READABLE).await.unwrap()),
            Err(error) => panic!("{error}"),
        }
    }
    bytes
}

/// Writes everything.
async fn write(transport: &mut Transport, mut bytes: &[u8]) {
    while !bytes.is_empty() || transport.has_unsent() {
        transport.flush().unwrap();
        match transport.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if must_wait(&error) => drop(transport.ready(Interest::WRITABLE).await.unwrap()),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn an_idle_connection_under_tls_owns_no_buffer() {
    let (stream, mut client) = pair().await;
    let mut transport = Transport::from(stream);
    assert_eq!(transport.stream.tls.as_ref().unwrap().buffers(), 0, "after the handshake");
    let large: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
    let there = async {
        client.write_all(&large).await.unwrap();
        client.flush().await.unwrap();
        let mut back = vec![0; large.len()];
        client.read_exact(&mut back).await.unwrap();
        back
    };
    let here = async {
        let came = read(&mut transport, large.len()).await;
        write(&mut transport, &came).await;
        came
    };
    let (back, came) = tokio::join!(there, here);
    assert!(back == large && came == large);
    assert_eq!(transport.stream.tls.as_ref().unwrap().buffers(), 0, "after half a megabyte");
}
