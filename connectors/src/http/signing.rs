//! Signatures of messages after Standard Webhooks (<https://www.standardwebhooks.com>, scheme `v1`): the receiver can tell
//! that a message is ours, unchanged, and not an old one sent again.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;

/// What a secret begins with; base64 follows.
const PREFIX: &str = "whsec_";
/// Bytes that a secret may have, as the specification says.
const LEAST_BYTES: usize = 24;
const MOST_BYTES: usize = 64;

/// Secrets that may be in use at one time: the new and the old one, while receivers change over.
pub const MOST_SECRETS: usize = 2;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// One secret, ready to sign. It is never shown.
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

impl SigningKey {
    /// Reads `whsec_` and base64 of 24 to 64 bytes. The reason of a refusal holds nothing of the secret.
    pub fn parse(secret: &str) -> Result<SigningKey, String> {
        let Some(encoded) = secret.strip_prefix(PREFIX) else {
            return Err(format!("it does not begin with `{PREFIX}`"));
        };
        let Ok(bytes) = STANDARD.decode(encoded) else {
            return Err(format!("what stands behind `{PREFIX}` is no base64"));
        };
        if !(LEAST_BYTES..=MOST_BYTES).contains(&bytes.len()) {
            let length = bytes.len();
            return Err(format!("it stands for {length} bytes, allowed are {LEAST_BYTES} to {MOST_BYTES}"));
        }
        Hmac::new_from_slice(&bytes).map(SigningKey).map_err(|error| error.to_string())
    }

    fn sign(&self, parts: &[&[u8]]) -> String {
        let mut mac = self.0.clone();
        parts.iter().for_each(|part| mac.update(part));
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey")
    }
}

/// Adds id, time of this attempt (seconds since 1970) and one signature per key, in the keys' order; nothing without keys.
pub fn sign(
    keys: &[SigningKey],
    id: &HeaderValue,
    seconds: u64,
    body: &[u8],
    headers: &mut HeaderMap,
) -> Result<(), String> {
    if keys.is_empty() {
        return Ok(());
    }
    let time = seconds.to_string();
    let parts = [id.as_bytes(), b".", time.as_bytes(), b".", body];
    let signatures: Vec<String> = keys.iter().map(|key| key.sign(&parts)).collect();
    let signature = HeaderValue::from_str(&signatures.join(" ")).map_err(|error| error.to_string())?;
    headers.insert(ID, id.clone());
    headers.insert(TIMESTAMP, HeaderValue::from(seconds));
    headers.insert(SIGNATURE, signature);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(bytes: &[u8]) -> SigningKey {
        SigningKey::parse(&format!("{PREFIX}{}", STANDARD.encode(bytes))).expect("a secret")
    }

    /// The expected digest is what `openssl dgst -sha256 -hmac` and Python's hmac give.
    #[test]
    fn a_signature_is_the_hmac_of_id_time_and_body() {
        let mut headers = HeaderMap::new();
        let keys = [key(b"Jefe....................")];
        sign(&keys, &HeaderValue::from_static("id-1"), 1_700_000_000, b"{\"n\": 1.10}", &mut headers).expect("signed");
        assert_eq!(headers[ID], "id-1");
        assert_eq!(headers[TIMESTAMP], "1700000000");
        assert_eq!(headers[SIGNATURE], "v1,vUbeSmmTFGP4apCjy0hNznv6Jh6+7Ec2Su0OlJMDPRk=");
    }

    #[test]
    fn two_secrets_give_two_signatures_and_none_gives_no_header() {
        let keys = [key(&[1; 24]), key(&[2; 64])];
        let id = HeaderValue::from_static("id-1");
        let signed = |keys: &[SigningKey]| {
            let mut headers = HeaderMap::new();
            sign(keys, &id, 7, b"body", &mut headers).expect("signed");
            headers.get(SIGNATURE).map(|value| value.to_str().expect("ASCII").to_owned())
        };
        let both = signed(&keys).expect("signed");
        let alone = [signed(&keys[..1]).expect("signed"), signed(&keys[1..]).expect("signed")];
        assert_eq!(both, alone.join(" "));
        assert_ne!(alone[0], alone[1]);
        assert_eq!(signed(&[]), None);
    }

    #[test]
    fn secrets_that_are_none_are_refused_and_never_shown() {
        for (secret, word) in [
            ("canary", "whsec_"),
            ("whsec_canary!", "base64"),
            ("whsec_Y2FuYXJ5", "6 bytes"),
            (&format!("{PREFIX}{}", STANDARD.encode([b'c'; 65])), "65 bytes"),
        ] {
            let reason = SigningKey::parse(secret).expect_err(secret);
            assert!(reason.contains(word) && !reason.contains("canary") && !reason.contains("Y2Fu"), "{reason}");
        }
        assert_eq!(format!("{:?}", key(&[b'c'; 24])), "SigningKey");
    }
}
