//! Encrypted connections, whose certificates are always verified.

use rustls_native_certs::load_native_certs;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, RootCertStore,
};

use super::classify;
use super::dial::setting;
use crate::store::error::{ErrorClass, StoreError};
use crate::sync::Arc;

/// A TLS client with its trusted CA certificates and its own certificate.
#[derive(Clone)]
pub(super) struct Tls(TlsConnector);

/// A client certificate with its chain, and its private key; both in PEM format.
pub(super) type Identity = (Vec<u8>, Vec<u8>);

impl Tls {
    /// Trusts the CA certificates in this PEM text, or those of the system.
    pub(super) fn new(
        authority: Option<&[u8]>,
        identity: Option<&Identity>,
    ) -> Result<Self, StoreError> {
        let (found, none) = match authority {
            Some(pem) => {
                let text = "the authority must contain CA certificates in PEM format";
                (certificates(pem, text)?, text)
            }
            None => (
                load_native_certs().certs,
                "no CA certificates found; install those of the system, or give one with \
                 `authority`",
            ),
        };
        let mut trusted = RootCertStore::empty();
        trusted.add_parsable_certificates(found);
        if trusted.is_empty() {
            return Err(setting(none));
        }
        // The provider is named, so that the default of the process does not matter.
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|_| setting("TLS is not available"))?
            .with_root_certificates(trusted);
        let config = match identity {
            None => config.with_no_client_auth(),
            Some((chain, key)) => {
                let text = "the identity must be certificates and their private key, both in PEM \
                     format";
                let chain = certificates(chain, text)?;
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| setting(text))?;
                let wrong = "the private key of the identity is not that of its first certificate";
                let config = config.with_client_auth_cert(chain, key);
                config.map_err(|_| setting(wrong))?
            }
        };
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

/// The certificates in a PEM text, of which there must be one.
fn certificates(
    pem: &[u8],
    none: &'static str,
) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    found
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or_else(|| setting(none))
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
            // The latter if the trusted authority has the same name.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => denied(
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
