//! deploy/compose.yaml gives the servers that conformance/servers starts: same ports, same versions, same settings.

use std::collections::BTreeMap;

use crate::none;
use crate::tree::{self, TextFile};

const COMPOSE: &str = "deploy/compose.yaml";

/// Where the image is another program than the script's, because Docker can have more.
const INSTEAD: &[(&str, &str)] = &[("ferretdb", "mongodb")];

/// What only the script has: the fault gates end and start servers, which they do by the script.
const SCRIPT_ONLY: &[&str] = &["ferretdb-sqlite"];

/// Settings of a command line that are the place's, not the server's.
const OF_THE_PLACE: &[&str] = &["datadir", "tmpdir", "port", "bind-address", "socket", "pid-file", "no-defaults"];

fn text(files: &[TextFile], path: &str) -> String {
    files.iter().find(|file| file.path == path).unwrap_or_else(|| panic!("{path} is there")).text.clone()
}

/// The text below a key of two spaces, by key.
fn services(compose: &str) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let (mut inside, mut name) = (false, String::new());
    for line in compose.lines() {
        if !line.starts_with(' ') && line.ends_with(':') {
            inside = line == "services:";
        }
        if let Some(key) = line.strip_prefix("  ").filter(|l| inside && !l.starts_with(' ')) {
            name = key.trim_end_matches(':').to_owned();
        }
        if inside {
            let block = found.entry(name.clone()).or_default();
            block.push_str(line);
            block.push('\n');
        }
    }
    found
}

/// What stands between `from` and `to`, each time.
fn between<'t>(text: &'t str, from: &'t str, to: char) -> impl Iterator<Item = &'t str> {
    text.match_indices(from).filter_map(move |(at, _)| text[at + from.len()..].split(to).next())
}

#[test]
fn compose_gives_every_server_of_the_script_at_its_port() {
    let files = tree::files();
    let compose = text(&files, COMPOSE);
    let services = services(&compose);
    let mut findings = Vec::new();
    let mut seen = 0;
    for file in
        files.iter().filter(|file| file.path.starts_with("conformance/servers.d/") && file.path.ends_with(".sh"))
    {
        let name = file.path.rsplit('/').next().and_then(|name| name.strip_suffix(".sh")).expect("ends with .sh");
        if SCRIPT_ONLY.contains(&name) {
            continue;
        }
        let name = INSTEAD.iter().find(|(script, _)| *script == name).map_or(name, |(_, image)| *image);
        let Some(service) = services.get(name) else {
            findings.push(format!("{COMPOSE}: no service {name}"));
            continue;
        };
        seen += 1;
        let port = between(&file.text, "\nPORT=$", '\n').next().expect("a server has a port");
        if !service.contains(&format!("\"127.0.0.1:${port}:")) {
            findings.push(format!("{COMPOSE}: {name} is not at \"127.0.0.1:${port}:…\", where {} has it", file.path));
        }
        let variable = between(&file.text, "\nVARIABLE=", '\n').next().expect("a server has a variable");
        let number = port.trim_end_matches('}').rsplit('-').next().expect("a default");
        let exported = compose.lines().find(|line| line.starts_with(&format!("#   export {variable}=")));
        if !exported.is_some_and(|line| line.contains(&format!("127.0.0.1:{number}"))) {
            findings.push(format!("{COMPOSE}: its head does not export {variable} with port {number}"));
        }
    }
    assert!(seen >= 5, "only {seen} servers were found: the test has lost sight of them");
    none("deploy/compose.yaml and conformance/servers.d say the same", findings);
}

#[test]
fn compose_has_the_versions_and_settings_of_the_script() {
    let files = tree::files();
    let services = services(&text(&files, COMPOSE));
    let mut findings = Vec::new();
    let mut expect = |service: &str, what: &str| {
        if !services[service].contains(what) {
            findings.push(format!("{COMPOSE}: {service} lacks {what:?}, which the script has"));
        }
    };
    let pom = text(&files, "conformance/servers.d/kafka/pom.xml");
    let version = between(&pom, "<kafka.version>", '<').next().expect("pom.xml names the version");
    expect("kafka", &format!("image: apache/kafka:{version}\n"));
    let module = text(&files, "conformance/servers.d/nats/go.mod");
    let version = between(&module, "nats-server/v2 v", '\n').next().and_then(|v| v.split(' ').next());
    expect("nats", &format!("image: nats:{}-alpine\n", version.expect("go.mod names the version")));

    let kafka = text(&files, "conformance/servers.d/kafka.sh");
    let properties = between(&kafka, "<<PROPERTIES\n", '\0').next().and_then(|rest| rest.split("\nPROPERTIES").next());
    let properties = properties.expect("kafka.sh writes its properties");
    let places = |key: &str| key.contains("listeners") || key.contains("voters") || key == "log.dirs";
    let mut settings = 0;
    for (key, value) in properties.lines().filter(|l| !l.starts_with('#')).filter_map(|line| line.split_once('=')) {
        let name = key.to_uppercase().replace('.', "_");
        if !places(key) {
            settings += 1;
            let quoted = if value.contains(',') || value.chars().all(|c| c.is_ascii_uppercase()) {
                format!("KAFKA_{name}: {value}\n")
            } else {
                format!("KAFKA_{name}: \"{value}\"\n")
            };
            expect("kafka", &quoted);
        }
    }
    assert!(settings > 10, "only {settings} settings of Kafka were found");
    let postgres = text(&files, "conformance/servers.d/postgres.sh");
    for setting in between(&postgres, " -c ", ' ').map(str::trim).filter(|s| s.contains('=')) {
        let of_the_place = ["listen_", "unix_", "log_line", "lc_messages"];
        if !of_the_place.iter().any(|place| setting.starts_with(place)) {
            expect("postgres", &format!("-c, {setting}"));
        }
    }
    let mariadb = text(&files, "conformance/servers.d/mariadb.sh");
    let spawned = between(&mariadb, "spawn ", '}').next().expect("mariadb.sh starts it");
    for setting in between(spawned, " --", ' ') {
        let name = setting.split('=').next().unwrap_or(setting);
        if !OF_THE_PLACE.contains(&name) {
            expect("mariadb", &format!("--{setting}"));
        }
    }
    none("deploy/compose.yaml runs the servers as the script does", findings);
}
