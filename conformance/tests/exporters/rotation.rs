//! Secrets of a signature change while the engine runs: with the next SIGHUP, not with the next start.

use gravity_conformance::blackbox::engine::Engine;
use gravity_conformance::blackbox::eventually;
use gravity_conformance::blackbox::folder::Folder;
use gravity_conformance::blackbox::hook::{Hook, Told};
use gravity_conformance::webhook_receiver::{Signed, verify};
use serde_json::json;

const FIRST: &str = "whsec_Zmlyc3QtZmlyc3QtZmlyc3QtZmlyc3QtZmlyc3Q=";
const SECOND: &str = "whsec_c2Vjb25kLXNlY29uZC1zZWNvbmQtc2Vjb25k";

fn signed(told: &Told) -> Signed {
    let header = |name: &str| told.header(name).unwrap_or_else(|| panic!("no {name}: {told:?}")).to_owned();
    Signed {
        id: header("webhook-id"),
        timestamp: header("webhook-timestamp"),
        signature: header("webhook-signature"),
        body: told.body.clone().into_bytes(),
    }
}

#[test]
fn sighup_takes_new_signing_secrets_at_once() {
    let hook = Hook::start(|_| (String::new(), 204));
    let folder = Folder::new(&[]);
    let secret = folder.at("hook.secret");
    let exporter = |signing: &[String]| json!({"exporter": {"hook": {"type": "restful_api", "url": format!("http://{}/", hook.address), "signing": signing}}});
    let (of_file, of_old) = (format!("${{file:{secret}}}"), format!("${{file:{secret}.old}}"));
    folder.write("hook.secret", FIRST);
    folder.write_json("exporter.json", &exporter(std::slice::from_ref(&of_file)));
    folder.write_json(
        "databases.json",
        &json!({"databases": {"db1": {"type": "sqlite", "path": "views.db", "ddl": "create"}}}),
    );
    folder.write_json(
        "rules.json",
        &json!({"rules": [{"event": "userSaved", "table": "users", "method": "update", "database": "db1",
            "exporter": ["hook"], "mapping": [{"source": "id", "target": "id", "type": "i64", "primary": true}]}]}),
    );
    let mut engine = Engine::start(&folder);
    let tell = |engine: &Engine, id: u64| {
        let (status, answer) =
            engine.post(&json!({"event": "userSaved", "payload": {"id": id}}).to_string()).expect("an answer");
        assert_eq!(status, 200, "{answer}");
        let told = eventually(|| hook.told(), |told| told.len() as u64 == id);
        signed(told.last().expect("told"))
    };
    let reload = |engine: &mut Engine, times: usize| {
        engine.signal("-HUP");
        eventually(|| engine.said().matches("new connections").count(), |count| *count == times);
    };
    let alone = tell(&engine, 1);
    let Some(said) = verify(FIRST, std::slice::from_ref(&alone)) else { return };
    assert_eq!(said, ["valid"]);

    // Only what the file holds changes, as a secret store does it; the old one stays for receivers that are late.
    folder.write("hook.secret", SECOND);
    folder.write("hook.secret.old", FIRST);
    folder.write_json("exporter.json", &exporter(&[of_file.clone(), of_old]));
    reload(&mut engine, 1);
    let both = tell(&engine, 2);
    let of =
        |secret: &str, delivery: &Signed| verify(secret, std::slice::from_ref(delivery)).expect("python3 is there");
    assert_eq!((of(FIRST, &both), of(SECOND, &both)), (vec!["valid".to_owned()], vec!["valid".to_owned()]));

    folder.write_json("exporter.json", &exporter(&[of_file]));
    reload(&mut engine, 2);
    let new = tell(&engine, 3);
    assert_eq!((of(FIRST, &new)[0].as_str(), of(SECOND, &new)[0].as_str()), ("no signature fits", "valid"));

    // A file that holds no secret any more: refused as a whole, and the engine goes on with what it had.
    folder.write("hook.secret", "canary");
    engine.signal("-HUP");
    engine.wait_for("the config is refused as a whole");
    assert_eq!(of(SECOND, &tell(&engine, 4)), ["valid"]);
    let said = engine.said();
    assert!([FIRST, SECOND, "canary"].iter().all(|secret| !said.contains(secret)), "{said}");
    engine.stop();
}
