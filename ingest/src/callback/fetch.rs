//! One GET of what a product says: the name is resolved once, every address it has is checked, and the connection goes to
//! the one that was. Redirects are not followed, proxies of the environment not used, and nothing takes long.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use model::{AppId, GroupId};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tracing::warn;

use super::{Asked, address};

/// How long until there is a connection, and until the answer is there.
const CONNECT_MAX: Duration = Duration::from_secs(2);
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Longest answer, in bytes.
const BODY_MAX_BYTES: usize = 1 << 20;

/// Addresses of a name that are looked at.
const ADDRESSES_MAX: usize = 16;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// It must not be asked.
    Refused(String),
    /// It does not say now.
    NotNow(String),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::NotNow(error.to_string())
    }
}

impl From<hyper::Error> for Failed {
    fn from(error: hyper::Error) -> Self {
        Self::NotNow(error.to_string())
    }
}

fn late(what: &str, most: Duration) -> Failed {
    Failed::NotNow(format!("{what} within {most:?}"))
}

/// How products are asked.
pub(super) struct Fetch {
    tls: TlsConnector,
    allow_private: bool,
}

impl Fetch {
    pub(super) fn new(allow_private: bool) -> Self {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        found.errors.iter().for_each(|error| warn!(%error, "a certificate of this system cannot be read"));
        roots.add_parsable_certificates(found.certs);
        let provider = Arc::new(aws_lc_rs::default_provider());
        #[expect(clippy::expect_used, reason = "the provider has what these versions need")]
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the default versions are known")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { tls: TlsConnector::from(Arc::new(config)), allow_private }
    }

    /// What is at a URL.
    pub(super) async fn get(&self, asked: &Asked, app: &AppId, group: GroupId) -> Result<Bytes, Failed> {
        let answered = async {
            let stream = timeout(CONNECT_MAX, self.connect(asked)).await;
            let stream = stream.map_err(|_| late("no connection", CONNECT_MAX))??;
            if !asked.tls {
                return exchange(stream, asked, app, group).await;
            }
            let name = ServerName::try_from(asked.host.clone()).map_err(|error| Failed::Refused(error.to_string()))?;
            exchange(self.tls.connect(name, stream).await?, asked, app, group).await
        };
        timeout(ANSWER_MAX, answered).await.map_err(|_| late("no answer", ANSWER_MAX))?
    }

    async fn connect(&self, asked: &Asked) -> Result<TcpStream, Failed> {
        let addresses: Vec<SocketAddr> =
            lookup_host((asked.host.as_str(), asked.port)).await?.take(ADDRESSES_MAX).collect();
        // One of them is enough: whoever mixes them hopes that another is checked than connected to.
        let private = addresses.iter().find(|found| address::is_private(found.ip()));
        if let Some(private) = private.filter(|_| !self.allow_private) {
            return Err(Failed::Refused(format!("{} is {}, not a public address", asked.host, private.ip())));
        }
        let mut last = Failed::NotNow(format!("{} has no address", asked.host));
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    asked: &Asked,
    app: &AppId,
    group: GroupId,
) -> Result<Bytes, Failed> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the sender, or with the connection.
    tokio::spawn(connection);
    let path = asked.uri.path_and_query().map_or("/", |path| path.as_str());
    let host = asked.uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, concat!("fanfare/", env!("CARGO_PKG_VERSION")))
        .header("fanfare-app", app.as_str())
        .header("fanfare-group", group.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(|error| Failed::Refused(error.to_string()))?;
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        return Err(Failed::NotNow(format!("it answered {}", response.status())));
    }
    let body = Limited::new(response.into_body(), BODY_MAX_BYTES).collect().await;
    Ok(body.map_err(|error| Failed::NotNow(format!("its answer: {error}")))?.to_bytes())
}
