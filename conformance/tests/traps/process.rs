//! The process itself: a panic in it, its disk, and what hundreds of new connections leave behind.

use gravity_conformance::blackbox::broker::create_topic;
use gravity_conformance::blackbox::command::Ended;
use gravity_conformance::blackbox::engine::Engine;
use gravity_conformance::blackbox::folder::Folder;
use gravity_conformance::blackbox::hook::Hook;
use gravity_conformance::blackbox::server::{Database, unique};
use gravity_conformance::blackbox::tools::{kcat_publish, sqlite};
use gravity_conformance::blackbox::{eventually, kafka};
use serde_json::{Value, json};

use crate::target::{ROUTE, config_of, event, post, saved, settled, users};
use crate::values::cpu_ticks;

fn in_sqlite(path: &str) -> Value {
    json!({"type": "sqlite", "path": path, "ddl": "create"})
}

/// Trap 17: a task that fails is not left dead beside others that live. The process ends, and the next start makes it good.
#[test]
fn trap17_a_panic_in_a_route_ends_the_process_and_the_next_start_goes_on() {
    let folder = config_of(&in_sqlite("views.db"), &users());
    let mut engine = Engine::start_with(&folder, &[], &[("GRAVITY_FAILPOINTS", "view.before_commit=panic@2")]);
    let mut sent = 0;
    while let Some((200, _)) = engine.post(&saved(sent, "x").to_string()) {
        sent += 1;
        assert!(sent < 10_000, "the process lives on:\n{}", engine.said());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(engine.wait(), -1, "{}", engine.said());
    assert!(engine.said().contains("panic"), "{}", engine.said());
    let engine = Engine::start(&folder);
    post(&engine, &[saved(-1, "last")]);
    let route = eventually(|| engine.route(ROUTE), |r| r["lag_events"] == 0 && r["read"].as_i64() > Some(sent));
    assert_eq!((&route["parked"], &route["applied"]), (&json!(0), &route["read"]), "{route}");
    let kept: i64 = sqlite(folder.path().join("views.db"), "SELECT count(*) FROM users").parse().expect("a number");
    assert!(kept > sent, "{kept} rows of {sent} events that were answered, and the last");
    engine.stop();
}

/// Becomes what follows, with a file system of its own of so many MiB over the folder; it goes with the process.
fn on_small_disk(folder: &Folder, mib: u32) -> Option<[String; 6]> {
    std::fs::create_dir(folder.path().join("small")).expect("a folder");
    let mount = format!(r#"mount -t tmpfs -o size={mib}m tmpfs "$0" && exec "$@""#);
    let wrapper = ["unshare", "-m", "sh", "-c", &mount, &folder.at("small")].map(str::to_owned);
    let can = std::process::Command::new(&wrapper[0]).args(&wrapper[1..]).arg("true").output();
    if !can.is_ok_and(|output| output.status.success()) {
        println!("skipped: this account may not mount a small file system");
        return None;
    }
    Some(wrapper)
}

/// The file system of the view is full. The route waits and says so, nothing parks, intake goes on; with room it goes on by itself.
pub fn full_disk_under_a_file() {
    let folder = config_of(&in_sqlite("small/views.db"), &users());
    let Some(wrapper) = on_small_disk(&folder, 16) else { return };
    let engine = Engine::start_under(&folder, &wrapper.each_ref().map(String::as_str), &[]);
    let seen = format!("/proc/{}/root{}", engine.pid(), folder.at("small"));
    post(&engine, &[saved(0, "first")]);
    settled(&engine, 1, 0);
    std::fs::write(format!("{seen}/filler"), vec![1_u8; 12 << 20]).expect("room for the filler");
    let long = "x".repeat(10_000);
    let wide = |id: i64| event("userSaved", &json!({"id": id, "name": long}));
    for part in 0..6 {
        post(&engine, &(part * 100..part * 100 + 100).map(|n| wide(n + 1)).collect::<Vec<_>>());
    }
    let full = eventually(|| engine.route(ROUTE), |r| r["error"].is_string());
    assert_eq!((&full["state"], &full["parked"]), (&json!("degraded"), &json!(0)), "{full}");
    assert!(full["error"].as_str().is_some_and(|error| error.contains("SQLITE_")), "{full}");
    post(&engine, &[saved(0, "meanwhile")]);
    std::fs::remove_file(format!("{seen}/filler")).expect("removed");
    let back = settled(&engine, 602, 0);
    assert_eq!(back["error"], Value::Null, "{back}");
    // Looked at from where the process is: nobody else sees that file system.
    let (pid, file) = (engine.pid().to_string(), folder.at("small/views.db"));
    let ask = "SELECT count(*), max(length(name)), min(length(name)) FROM users";
    let mut look = std::process::Command::new("nsenter");
    look.args(["-t", &pid, "-m", "sqlite3", "-batch", &file, ask]);
    assert_eq!(Ended::run(&mut look).expect(0).out.trim(), "601|10000|9");
    engine.stop();
}

/// Trap 24: the disk of the log is full. Intake says so and takes nothing more, the view goes on with what is in the log; with room
/// intake goes on by itself, and all that was acknowledged is there.
#[test]
fn trap24_a_full_disk_under_the_log_stops_intake_alone() {
    let folder = config_of(&in_sqlite("views.db"), &users());
    let Some(wrapper) = on_small_disk(&folder, 48) else { return };
    let data = folder.at("small/data");
    let engine = Engine::start_under(&folder, &wrapper.each_ref().map(String::as_str), &["--data", &data]);
    let filler = format!("/proc/{}/root{}", engine.pid(), folder.at("small/filler"));
    let mut file = std::fs::File::create(&filler).expect("room to begin with");
    while std::io::Write::write_all(&mut file, &[1_u8; 64 << 10]).is_ok() {}
    let long = "x".repeat(10_000);
    let (mut next, mut kept) = (0_u64, Vec::new());
    let mut send = |kept: &mut Vec<u64>| {
        let ids: Vec<u64> = (next..next + 20).collect();
        next += 20;
        let events: Vec<Value> = ids.iter().map(|id| event("userSaved", &json!({"id": id, "name": long}))).collect();
        let (status, answer) = engine.post(&Value::from(events).to_string()).expect("an answer");
        if status == 200 {
            kept.extend(ids);
        }
        (status, answer)
    };
    let refused = (0..2_000).map(|_| send(&mut kept)).find(|(status, _)| *status != 200);
    let (status, answer) = refused.expect("a full disk takes no 400 MB");
    assert_eq!(status, 503, "{answer}");
    let count = || sqlite(folder.path().join("views.db"), "SELECT count(*) FROM users");
    eventually(count, |found| found.parse() == Ok(kept.len()));
    drop(file);
    std::fs::remove_file(&filler).expect("removed");
    eventually(|| send(&mut kept).0, |status| *status == 200);
    let held = engine.route(ROUTE);
    eventually(|| engine.route(ROUTE), |route| route["lag_events"] == 0);
    assert_eq!(held["parked"], 0, "{held}");
    let ids = sqlite(folder.path().join("views.db"), "SELECT id FROM users");
    let found: std::collections::BTreeSet<u64> = ids.lines().map(|id| id.parse().expect("an id")).collect();
    let lost: Vec<&u64> = kept.iter().filter(|id| !found.contains(id)).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged events: {lost:?}", lost.len(), kept.len());
    engine.stop();
}

struct Held {
    threads: u64,
    files: u64,
    resident_mib: u64,
}

fn held(pid: u32) -> Held {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let number = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).expect("a line");
        line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number")
    };
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the process is there").count() as u64;
    Held { threads: number("Threads:"), files, resident_mib: number("VmRSS:") >> 10 }
}

/// O49: every source, view and exporter goes and comes back with new connections, again and again: threads, files and memory are
/// what they were, nobody is lost on the way, and the process rests afterwards. 1,000 times where the full counts are asked for.
#[test]
fn o49_new_connections_leave_nothing_behind() {
    let (Some(hosts), Some(database)) = (kafka(), Database::create()) else { return };
    let rounds = if std::env::var_os("GRAVITY_FULL").is_some() { 1_000 } else { 16 };
    let topic = unique("rounds");
    create_topic(&hosts, &topic, 1, &[]);
    let hook = Hook::start(|_| (String::new(), 204));
    let told = |event: &str| json!({"event": event, "database": ROUTE, "exporter": ["hook"]});
    let mut rules = users();
    rules.extend(["userSaved", "userAdded", "userDeleted"].map(told));
    let mut entry = database.entry();
    entry["ddl"] = json!("create");
    let folder = config_of(&entry, &rules);
    let write = |round: usize| {
        // Another address of the same places: view and exporter connect anew in every round, the source, which takes seconds to be
        // given its partitions again, in every eighth.
        let address = |number: usize| if number.is_multiple_of(2) { "127.0.0.1" } else { "localhost" };
        let (name, of_source) = (address(round), address(round / 8));
        let mut entry = entry.clone();
        entry["host"] = json!(name);
        folder.write_json("databases.json", &json!({"databases": {ROUTE: entry}}));
        let at = hosts.replace("127.0.0.1", of_source);
        folder.write_json(
            "sources.json",
            &json!({"sources": {"http": {"type": "http"},
                "bus": {"type": "kafka", "hosts": [at], "topics": [topic], "group": topic}}}),
        );
        let url = format!("http://{}/{}", hook.address, round % 2);
        folder.write_json("exporter.json", &json!({"exporter": {"hook": {"type": "restful_api", "url": url}}}));
    };
    write(0);
    let engine = Engine::start(&folder);
    let mut base = None;
    for round in 1..=rounds {
        kcat_publish(&hosts, &topic, Some("k"), &[], Some(saved(round as i64, "x").to_string().as_bytes()));
        write(round);
        engine.signal("-HUP");
        eventually(|| engine.said().matches("new connections").count(), |count| *count == round);
        engine.in_step(ROUTE, round as u64);
        eventually(|| hook.count(), |count| *count >= round);
        if round == 6 {
            base = Some(held(engine.pid()));
        }
    }
    let base = base.expect("more than six rounds");
    let flat = |now: &Held| now.threads <= base.threads + 2 && now.files <= base.files + 4;
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let mut now = held(engine.pid());
    // What is closed goes away in its own time.
    while !flat(&now) && std::time::Instant::now() < until {
        std::thread::sleep(std::time::Duration::from_millis(200));
        now = held(engine.pid());
    }
    let shown = format!(
        "{rounds} rounds: threads {} -> {}, files {} -> {}, {} -> {} MiB",
        base.threads, now.threads, base.files, now.files, base.resident_mib, now.resident_mib
    );
    assert!(flat(&now) && now.resident_mib <= base.resident_mib + 24, "{shown}");
    let before = cpu_ticks(engine.pid());
    std::thread::sleep(std::time::Duration::from_secs(3));
    let spent = cpu_ticks(engine.pid()) - before;
    // A hundredth of a second each: 3 are one percent.
    assert!(spent <= 3, "{spent} of 300 ticks at rest; {shown}");
    println!("{shown}; {spent} of 300 ticks at rest");
    engine.stop();
}
