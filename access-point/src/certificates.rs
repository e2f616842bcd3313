//! Who the server is under TLS: a certificate and its key in PEM files, read again when they change, so that a renewal
//! needs no restart and closes no link. What cannot be read leaves what was read before in place.

use std::{fmt, io, path::PathBuf, sync::Arc, time::SystemTime};

use parking_lot::RwLock;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use thiserror::Error;
use tokio::time::{Duration, interval};
use tracing::{info, warn};

/// How often the files are looked at: certificates are renewed days before they end.
const LOOK: Duration = Duration::from_secs(10);

/// What devices may agree on before the first byte (ALPN). Whoever names nothing is taken by that first byte.
const PROTOCOLS: [&[u8]; 2] = [b"mqtt", b"http/1.1"];

/// Tickets a session: devices keep one link, and each ticket is 200 bytes to a phone.
const TICKETS: usize = 1;

/// The PEM files that say who the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, then those that lead to a root, if any.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
}

/// Why a certificate cannot be used.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// A file is not there, or is not what it should be.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate and the key do not go together, or are of a kind that is not known.
    #[error("the certificate and its key: {0}")]
    Pair(#[from] rustls::Error),
}

/// A certificate that changes with its files.
pub struct Certificates {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    current: RwLock<(Versions, Arc<CertifiedKey>)>,
}

/// When each file was last written.
type Versions = [Option<SystemTime>; 2];

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("files", &self.files).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().1.clone())
    }
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// When they are not there, are no PEM, or do not belong together.
    pub fn load(files: TlsFiles) -> Result<Arc<Self>, CertificateError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let versions = files.versions();
        let key = Arc::new(files.read(&provider)?);
        Ok(Arc::new(Self { files, provider, current: RwLock::new((versions, key)) }))
    }

    /// Reads the files again, whether they have changed or not; says in the log what came of it.
    pub fn reload(&self) {
        let versions = self.files.versions();
        match self.files.read(&self.provider) {
            Ok(key) => {
                *self.current.write() = (versions, Arc::new(key));
                info!(certificate = %self.files.certificate.display(), "the certificate was read again");
            }
            Err(error) => {
                // Not again until the files have changed: perhaps only one of the two is new.
                self.current.write().0 = versions;
                warn!(%error, "the certificate cannot be read again; what was read before stays");
            }
        }
    }

    /// Reads the files again whenever they have changed.
    pub(crate) async fn keep_fresh(&self) {
        let mut looks = interval(LOOK);
        loop {
            looks.tick().await;
            let known = self.current.read().0;
            if known != self.files.versions() {
                self.reload();
            }
        }
    }

    /// TLS 1.2 and 1.3 as this server. A device that comes back resumes by its ticket, without a full handshake; the keys
    /// of tickets are this process's own.
    pub(crate) fn config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let config =
            ServerConfig::builder_with_provider(self.provider.clone()).with_safe_default_protocol_versions()?;
        let mut config = config.with_no_client_auth().with_cert_resolver(self.clone());
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        config.send_tls13_tickets = TICKETS;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        Ok(Arc::new(config))
    }
}

impl TlsFiles {
    fn versions(&self) -> Versions {
        let version = |path: &PathBuf| std::fs::metadata(path).and_then(|file| file.modified()).ok();
        [version(&self.certificate), version(&self.key)]
    }

    fn read(&self, provider: &CryptoProvider) -> Result<CertifiedKey, CertificateError> {
        let wrong =
            |path: &PathBuf, reason: String| CertificateError::File { path: path.display().to_string(), reason };
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_file_iter(&self.certificate).and_then(std::iter::Iterator::collect);
        let chain = chain.map_err(|error| wrong(&self.certificate, error.to_string()))?;
        if chain.is_empty() {
            return Err(wrong(&self.certificate, io::ErrorKind::NotFound.to_string()));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| wrong(&self.key, error.to_string()))?;
        Ok(CertifiedKey::from_der(chain, key, provider)?)
    }
}
