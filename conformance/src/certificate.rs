//! Certificates for tests of verified TLS.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A self-signed certificate for a name and its key, made by openssl; `None` after saying that there is none.
pub fn certificate(folder: &Path, name: &str, alternative: &str) -> Option<(PathBuf, PathBuf)> {
    let (cert, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=gravity test", "-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-addext", &format!("subjectAltName={alternative}"), "-keyout"])
        .args([key.as_os_str(), "-out".as_ref(), cert.as_os_str()])
        .output();
    match made {
        Ok(made) => {
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            Some((cert, key))
        }
        Err(_) => {
            println!("skipped: openssl is not installed, so there is no certificate to refuse");
            None
        }
    }
}
