//! Commands that need no engine: help, exit codes, init, schema, completions, explain, config show.

use serde_json::Value;

use crate::support::{Dir, Ended, gravity, plain, run};

#[test]
fn unknown_commands_and_flags_suggest_the_right_one() {
    let ended = run(["statsu"]).expect(2);
    assert!(ended.err.contains("'status'"), "{}", ended.err);
    let ended = run(["status", "--jsno"]).expect(2);
    assert!(ended.err.contains("--json"), "{}", ended.err);
    let ended = run(["explain", "config/unknwon-key"]).expect(2);
    assert!(ended.err.contains("config/unknown-key"), "{}", ended.err);
    let ended = run(["schema", "rulse"]).expect(2);
    assert!(ended.err.contains("`rules`"), "{}", ended.err);
    run([]).expect(2);
    run(["--version"]).expect(0);
    run(["--help"]).expect(0);
}

#[test]
fn init_writes_a_config_that_check_accepts_and_never_overwrites() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("new").display().to_string();
    let ended = run(["init", &path]).expect(0);
    assert_eq!(ended.out, "", "talk belongs to stderr");
    let checked = run(["check", "--live", "--json", "-c", &path]).expect(0);
    assert_eq!(checked.json()["findings"], serde_json::json!([]));
    let before = std::fs::read_to_string(folder.path().join("new/rules.json")).expect("rules");
    run(["init", &path]).expect(4);
    assert_eq!(std::fs::read_to_string(folder.path().join("new/rules.json")).expect("rules"), before);
}

#[test]
fn schemas_and_completions_are_printed_whole() {
    for file in ["sources", "databases.json", "rules", "exporter", "gravity.toml"] {
        let schema = run(["schema", file]).expect(0).json();
        assert!(schema["title"].is_string() || schema["description"].is_string(), "{file}");
    }
    assert_eq!(run(["schema"]).expect(0).json().as_object().map(serde_json::Map::len), Some(5));
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = run(["completions", shell]).expect(0).out;
        assert!(script.contains("gravity") && script.contains("completions"), "{shell}");
    }
}

#[test]
fn explain_knows_every_code_it_lists() {
    let codes = run(["explain"]).expect(0).out;
    assert!(codes.lines().count() > 60);
    for code in codes.lines() {
        let page = run(["explain", code]).expect(0).out;
        assert!(page.starts_with("# "), "{code}: {page}");
    }
}

fn shown(ended: &Ended, key: &str) -> (Value, String) {
    let all = ended.json();
    let line = all.as_array().expect("a list").iter().find(|line| line["key"] == key).expect("the key");
    (line["value"].clone(), line["origin"].as_str().unwrap_or_default().to_owned())
}

/// O55: for every key the flag wins over the variable over the file, and `config show` tells so.
#[test]
fn o55_every_setting_by_flag_variable_and_file() {
    let dir = plain();
    let shown_default =
        Ended::of(&gravity().args(["config", "show", "--json", "-c"]).arg(dir.path()).output().expect("runs"))
            .expect(0);
    let values = |key: &str| -> [String; 3] {
        let texts = match key {
            "log.directory" => ["a", "b", "c"],
            "logging.level" => ["warn", "debug", "error"],
            "logging.format" => ["json", "text", "json"],
            "api.accept_plaintext" => ["true", "false", "true"],
            "api.tokens" => [
                "[{name=\"a\",role=\"admin\",token=\"0123456789abcdef\"}]",
                "[{name=\"b\",role=\"admin\",token=\"0123456789abcdef\"}]",
                "[{name=\"c\",role=\"viewer\",token=\"0123456789abcdef\"}]",
            ],
            "api.tls" => {
                ["{certFile=\"a\",keyFile=\"k\"}", "{certFile=\"b\",keyFile=\"k\"}", "{certFile=\"c\",keyFile=\"k\"}"]
            }
            key if key.ends_with("size") => ["5MiB", "6MiB", "7MiB"],
            key if key.ends_with("linger") || key.ends_with("age") => ["5s", "6s", "7s"],
            _ => ["127.0.0.1:5001", "127.0.0.1:5002", "127.0.0.1:5003"],
        };
        texts.map(str::to_owned)
    };
    let keys: Vec<String> = shown_default
        .json()
        .as_array()
        .expect("a list")
        .iter()
        .map(|l| l["key"].as_str().expect("text").to_owned())
        .collect();
    assert!(keys.len() >= 19);
    for key in keys {
        let (section, name) = key.split_once('.').expect("a section");
        let [in_file, in_variable, in_flag] = values(&key);
        let structured = key == "api.tokens" || key == "api.tls" || key == "api.accept_plaintext";
        let toml = if structured { in_file.clone() } else { format!("{in_file:?}") };
        dir.write("gravity.toml", &format!("[{section}]\n{name} = {toml}\n"));
        let variable = format!("GRAVITY_{}_{}", section.to_uppercase(), name.to_uppercase());
        let flag = format!("--{section}-{}", name.replace('_', "-"));
        let show = |variable_set: bool, flag_set: bool| {
            let mut command = gravity();
            command.args(["config", "show", "--json", "-c"]).arg(dir.path());
            if variable_set {
                command.env(&variable, &in_variable);
            }
            if flag_set {
                command.arg(&flag).arg(&in_flag);
            }
            Ended::of(&command.output().expect("runs"))
        };
        let by = [shown(&show(false, false), &key), shown(&show(true, false), &key), shown(&show(true, true), &key)];
        assert!(by[0].1.starts_with("gravity.toml:2"), "{key}: {by:?}");
        assert_eq!(by[1].1, format!("environment {variable}"), "{key}");
        assert!(by[2].1.starts_with("flag --"), "{key}: {by:?}");
        assert!(by[0].0 != by[1].0 && by[1].0 != by[2].0, "{key}: {by:?}");
        assert!(!format!("{by:?}").contains("0123456789abcdef"), "{key}: a token is shown");
    }
}

#[test]
fn commands_without_an_engine_say_where_they_looked() {
    let dir = Dir::new(&[("gravity.toml", "[api]\nlisten = \"127.0.0.1:1\"\n")]);
    for args in [
        vec!["status"],
        vec!["dlq", "list"],
        vec!["route", "pause", "db1"],
        vec!["log", "stat"],
        vec!["send", "e", "{}"],
    ] {
        let ended = Ended::of(&gravity().args(&args).arg("-c").arg(dir.path()).output().expect("runs")).expect(1);
        assert!(
            ended.err.contains("http://127.0.0.1:1") && ended.err.contains("cli/engine-unreachable"),
            "{args:?}: {}",
            ended.err
        );
        assert_eq!(ended.out, "");
    }
    let ended = run(["send", "e", "{broken"]).expect(2);
    assert!(ended.err.contains("no JSON"), "{}", ended.err);
}
