//! A receiver's own check of Standard Webhooks, in Python's standard library: it shares no line with the code under test.

use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

/// Reads one delivery per line from standard input and says `valid` or why not, as the specification tells receivers to.
const VERIFY: &str = r#"
import base64, hashlib, hmac, json, sys, time
for line in sys.stdin:
    given = json.loads(line)
    if abs(time.time() - int(given["timestamp"])) > 300:
        print("too old or too new", flush=True)
        continue
    key = base64.b64decode(given["secret"].removeprefix("whsec_"))
    signed = given["id"].encode() + b"." + given["timestamp"].encode() + b"." + base64.b64decode(given["body"])
    wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    offered = [part.split(",", 1) for part in given["signature"].split(" ")]
    valid = any(version == "v1" and hmac.compare_digest(value, wanted) for version, value in offered)
    print("valid" if valid else "no signature fits", flush=True)
"#;

/// What a receiver has in its hands: three headers and the body's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    pub id: String,
    pub timestamp: String,
    pub signature: String,
    pub body: Vec<u8>,
}

/// The receiver's word on each delivery, checked with one secret; `None` after saying that Python is missing.
pub fn verify(secret: &str, deliveries: &[Signed]) -> Option<Vec<String>> {
    let mut command = Command::new("python3");
    command.args(["-c", VERIFY]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        println!("skipped: python3 is not installed");
        return None;
    };
    let lines: String = deliveries
        .iter()
        .map(|signed| {
            let Signed { id, timestamp, signature, body } = signed;
            let body = STANDARD.encode(body);
            json!({"secret": secret, "id": id, "timestamp": timestamp, "signature": signature, "body": body})
        })
        .map(|line| format!("{line}\n"))
        .collect();
    child.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("python3 reads");
    let output = child.wait_with_output().expect("python3 ends");
    assert!(output.status.success());
    let said: Vec<String> = String::from_utf8(output.stdout).expect("UTF-8").lines().map(str::to_owned).collect();
    assert_eq!(said.len(), deliveries.len());
    Some(said)
}
