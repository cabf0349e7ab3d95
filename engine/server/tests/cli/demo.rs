//! `gravity demo`: ends by itself, balances, and what it says to try next works as it stands.

use std::process::Command;

use serde_json::Value;

use crate::support::{Ended, gravity};

#[test]
fn the_demo_balances_and_its_next_commands_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let demo = |more: &[&str]| {
        let mut command = gravity();
        command.args(["demo", "--events", "5000"]).args(more).current_dir(folder.path());
        Ended::of(&command.output().expect("the binary runs"))
    };
    let done = demo(&["--json"]).expect(0).json();
    let route = &done["route"];
    let figure = |name: &str| route[name].as_u64().expect("a figure");
    assert_eq!(figure("read"), 5_000, "{done}");
    assert_eq!(
        figure("read"),
        figure("applied") + figure("filtered") + figure("unmatched") + figure("parked") + figure("skipped")
    );
    assert!(figure("unmatched") > 0 && figure("parked") == 0, "{done}");
    assert!(done["delivered"].as_u64().is_some_and(|n| n > 500), "{done}");
    assert_eq!((&done["balanced"], &done["repeated"]), (&Value::Bool(true), &Value::from(0)));
    assert_eq!(done["missing"], 0, "a row was there before its message: {done}");
    assert!(done["looked_up"].as_u64().is_some_and(|n| n > 20), "{done}");
    assert_eq!(done["folder"], "gravity-demo");
    assert!(folder.path().join("gravity-demo/shop.db").is_file());
    let next = done["next"].as_array().expect("commands");
    assert_eq!(next.len(), 3);
    for command in next {
        let command = command.as_str().expect("text");
        let output = Command::new("sh").args(["-c", command]).current_dir(folder.path()).output().expect("sh runs");
        Ended::of(&output).expect(0);
    }

    // A second demo touches nothing of the first and gives the same shop.
    let text = demo(&[]).expect(0).out;
    for part in [
        "gravity-demo-2",
        "gravity-demo-2/shop.db",
        "5,000 events",
        "read 5,000 = ",
        "nothing disappeared",
        "customer_id",
        "Try next",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let delivered = done["delivered"].as_u64().expect("a figure");
    assert!(
        delivered < 1_000 || text.contains(&format!("{},{:03}", delivered / 1_000, delivered % 1_000)),
        "{delivered}: {text}"
    );
    let taken = Ended::of(
        &gravity()
            .args(["demo", "--events", "1", "--dir", "gravity-demo"])
            .current_dir(folder.path())
            .output()
            .expect("runs"),
    );
    taken.expect(4);
}

#[test]
fn the_demo_runs_at_its_rate_until_ctrl_c() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = gravity();
    command.args(["demo", "--rate", "400", "--seed", "5", "--json"]).current_dir(folder.path());
    let began = std::time::Instant::now();
    let child =
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().expect("runs");
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs").success());
    let done = Ended::of(&child.wait_with_output().expect("ends")).expect(0);
    let sent = done.json()["sent"].as_u64().expect("a figure");
    let most = 400 * (began.elapsed().as_secs() + 1);
    assert!((400..=most).contains(&sent), "{sent} events");
    assert_eq!(done.json()["balanced"], true);
    assert!(done.err.contains(" behind, "), "plain lines where there is no terminal: {}", done.err);
    assert!(!done.err.contains('\x1b'));
}
