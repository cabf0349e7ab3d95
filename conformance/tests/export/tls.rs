//! Verified TLS of the HTTP exporter: an unknown authority and a wrong name are refused.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gravity_conformance::certificate::certificate;
use gravity_conformance::export_suite::{is_delivered, kind, numbered};
use gravity_conformance::local_http::{LocalHttp, Reply};
use gravity_connectors::http::{HttpExporter, HttpExporterOptions, Limits};
use gravity_model::FaultKind;
use gravity_model::port::export::{Delivery, Exporter};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

async fn server(cert: &Path, key: &Path) -> LocalHttp {
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(cert).expect("certificate").map(|c| c.expect("certificate")).collect();
    let key = PrivateKeyDer::from_pem_file(key).expect("key");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("server config");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    LocalHttp::start_with(|_| Reply::Status(200), Some(acceptor)).await
}

async fn post(server: &LocalHttp, ca_file: Option<&Path>) -> Delivery {
    let limits = Limits { headers: Duration::from_secs(3), ..Limits::default() };
    let options = HttpExporterOptions {
        url: format!("https://{}/", server.address),
        ca_file: ca_file.map(Path::to_owned),
        limits,
        ..HttpExporterOptions::default()
    };
    HttpExporter::new("hook", &options).expect("options").export(&[numbered(1, Some("a"))]).await.remove(0)
}

fn refused(outcome: &Delivery) {
    assert_eq!(kind(outcome), FaultKind::Misconfigured, "{outcome:?}");
    let Delivery::Failed { fault, .. } = outcome else { unreachable!("kind passed") };
    assert_eq!(fault.code, "http-tls", "{fault}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o44_t9_certificates_are_verified() {
    let folder = tempfile::tempdir().expect("folder");
    let Some((cert, key)) = certificate(folder.path(), "good", "IP:127.0.0.1") else { return };
    let good = server(&cert, &key).await;
    assert!(is_delivered(&post(&good, Some(&cert)).await), "trusted through caFile");
    refused(&post(&good, None).await);
    assert_eq!(good.requests().len(), 1, "no byte of a message goes to a server that is not verified");
    let (other, other_key) = certificate(folder.path(), "other", "DNS:elsewhere.example").expect("openssl is there");
    let wrong_name = server(&other, &other_key).await;
    refused(&post(&wrong_name, Some(&other)).await);
    refused(&post(&good, Some(&other)).await);
}

#[tokio::test]
async fn a_ca_file_that_is_none_is_refused_before_anything_is_sent() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, "nothing").expect("file");
    for ca_file in [file, folder.path().join("missing.pem")] {
        let options = HttpExporterOptions {
            url: "https://127.0.0.1:1/".to_owned(),
            ca_file: Some(ca_file.clone()),
            ..HttpExporterOptions::default()
        };
        let fault = HttpExporter::new("hook", &options).err().expect("refused");
        assert_eq!(fault.kind, FaultKind::Misconfigured);
        assert!(fault.detail.contains(&ca_file.display().to_string()), "{fault}");
    }
}
