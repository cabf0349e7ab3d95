//! Verified TLS for the clients that take a rustls configuration: the system's authorities, or those of one file alone.

use std::path::PathBuf;
use std::sync::Arc;

use gravity_model::{Fault, FaultKind};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// PEM files of a connection, all optional.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsFiles {
    /// The authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// Our own certificate and its key: both or none.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

impl TlsFiles {
    /// The client's configuration; certificates and names are always verified. `owner` is `exporter NAME` or `source NAME`,
    /// `code` the fault's.
    pub(crate) fn client_config(&self, owner: &str, code: &'static str) -> Result<ClientConfig, Fault> {
        let refuse = |what: &str, error: &dyn std::fmt::Display| {
            let doing = format!("configure TLS of {owner}");
            Fault::new(FaultKind::Misconfigured, code, doing, format!("{what}: {error}"))
        };
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(file) => {
                let place = format!("caFile {}", file.display());
                for certificate in CertificateDer::pem_file_iter(file).map_err(|error| refuse(&place, &error))? {
                    let certificate = certificate.map_err(|error| refuse(&place, &error))?;
                    roots.add(certificate).map_err(|error| refuse(&place, &error))?;
                }
                if roots.is_empty() {
                    return Err(refuse(&place, &"no certificate in it"));
                }
            }
            None => {
                // A system without authorities refuses every TLS endpoint when it is used; others need none.
                for certificate in rustls_native_certs::load_native_certs().certs {
                    if let Err(error) = roots.add(certificate) {
                        tracing::debug!(owner, error = %error, "a system certificate was left out");
                    }
                }
            }
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| refuse("protocol versions", &error))?
            .with_root_certificates(roots);
        let (Some(cert_file), Some(key_file)) = (&self.cert, &self.key) else {
            if self.cert.is_some() || self.key.is_some() {
                return Err(refuse("certFile and keyFile", &"one of them is missing"));
            }
            return Ok(builder.with_no_client_auth());
        };
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_file_iter(cert_file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let chain = chain.map_err(|error| refuse(&format!("certFile {}", cert_file.display()), &error))?;
        let key = PrivateKeyDer::from_pem_file(key_file)
            .map_err(|error| refuse(&format!("keyFile {}", key_file.display()), &error))?;
        builder.with_client_auth_cert(chain, key).map_err(|error| refuse("certFile and keyFile", &error))
    }
}
