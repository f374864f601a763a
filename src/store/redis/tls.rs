//! Encrypted connections, whose certificates are always verified.

use rustls_native_certs::load_native_certs;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::classify;
use crate::store::error::{ErrorClass, StoreError};
use crate::sync::Arc;

/// A TLS client with its trusted CA certificates.
#[derive(Clone)]
pub(super) struct Tls(TlsConnector);

impl Tls {
    /// Trusts the CA certificates of the system.
    pub(super) fn system() -> Result<Self, StoreError> {
        let found = load_native_certs();
        Self::with(
            found.certs,
            "no CA certificates found; install those of the system",
        )
    }

    /// Trusts the CA certificates in this PEM text.
    pub(super) fn trusting(pem: &[u8]) -> Result<Self, StoreError> {
        let text = "the authority must contain CA certificates in PEM format";
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let found = found.map_err(|_| StoreError::new(ErrorClass::Setting, text))?;
        Self::with(found, text)
    }

    fn with(found: Vec<CertificateDer<'static>>, none: &'static str) -> Result<Self, StoreError> {
        let mut trusted = RootCertStore::empty();
        trusted.add_parsable_certificates(found);
        if trusted.is_empty() {
            return Err(StoreError::new(ErrorClass::Setting, none));
        }
        // The provider is named, so that the default of the process does not matter.
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|_| StoreError::new(ErrorClass::Setting, "TLS is not available"))?
            .with_root_certificates(trusted)
            .with_no_client_auth();
        Ok(Tls(TlsConnector::from(Arc::new(config))))
    }

    pub(super) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, StoreError> {
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| {
            StoreError::new(
                ErrorClass::Setting,
                "the host in the URL is not a valid name",
            )
        })?;
        let connected = self.0.connect(name, stream).await;
        connected.map_err(|error| match error.kind() {
            // rustls rejects the certificate, or the server does not use TLS.
            std::io::ErrorKind::InvalidData => StoreError::new(
                ErrorClass::Denied,
                "the TLS certificate or protocol of the server was rejected",
            ),
            _ => classify::io(&error),
        })
    }
}
