//! Encrypted connections, whose certificates are always verified.

use rustls_native_certs::load_native_certs;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, RootCertStore,
};

use super::classify;
use super::dial::setting;
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
        let found = found.map_err(|_| setting(text))?;
        Self::with(found, text)
    }

    fn with(found: Vec<CertificateDer<'static>>, none: &'static str) -> Result<Self, StoreError> {
        let mut trusted = RootCertStore::empty();
        trusted.add_parsable_certificates(found);
        if trusted.is_empty() {
            return Err(setting(none));
        }
        // The provider is named, so that the default of the process does not matter.
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|_| setting("TLS is not available"))?
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
        let name = name.map_err(|_| setting("the host in the URL is not a valid name"))?;
        let connected = self.0.connect(name, stream).await;
        connected.map_err(|error| explain(&error).unwrap_or_else(|| classify::io(&error)))
    }
}

/// What an error of a stream means, if it comes from TLS.
pub(super) fn explain(error: &std::io::Error) -> Option<StoreError> {
    let denied = |text: &'static str| Some(StoreError::explained(ErrorClass::Denied, text));
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        return Some(StoreError::explained(
            ErrorClass::Unavailable,
            "the server ended the TLS handshake; check that its port expects TLS",
        ));
    }
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::InvalidCertificate(wrong) => match wrong {
            CertificateError::UnknownIssuer => denied(
                "the certificate of the server is not from a trusted authority; give the CA \
                 certificate that signed it with `authority`",
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                denied(
                    "the certificate of the server is for another name; use a host in the URL \
                     that the certificate contains",
                )
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => denied(
                "the certificate of the server has expired; renew it, or correct the clock of \
                 this machine",
            ),
            _ => denied("the certificate of the server is not valid; check it with openssl"),
        },
        Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::HandshakeFailure
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA,
        ) => denied(
            "the server asks for a client certificate that it trusts; give one with `identity`",
        ),
        Error::InvalidMessage(_) => Some(StoreError::explained(
            ErrorClass::Protocol,
            "the port does not expect TLS; use redis:// for it, or the TLS port of the server",
        )),
        _ => denied("the server and this client agree on no kind of TLS; allow TLS 1.2 or 1.3"),
    }
}
