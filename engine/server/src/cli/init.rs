//! `gravity init`: a commented starter config that `check` accepts and `run` runs without any server.

use std::path::PathBuf;

use super::exit::{Exit, Failure};
use super::show;
use crate::config::codes;

/// Write a commented starter config into a new directory.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  gravity init shop && gravity check -c shop\n  gravity init /etc/gravity")]
pub struct Args {
    /// A directory that does not exist or is empty.
    directory: PathBuf,
}

const FILES: &[(&str, &str)] = &[
    ("sources.json", include_str!("starter/sources.json")),
    ("databases.json", include_str!("starter/databases.json")),
    ("rules.json", include_str!("starter/rules.json")),
    ("exporter.json", include_str!("starter/exporter.json")),
    ("tests/users.json", include_str!("starter/tests.json")),
    ("gravity.toml", include_str!("starter/gravity.toml")),
];

pub fn run(args: &Args) -> Result<Exit, Failure> {
    let folder = &args.directory;
    let occupied = match std::fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => folder.exists(),
    };
    if occupied {
        let message = format!("{} exists and is not empty: nothing was written", folder.display());
        return Err(Failure::new(Exit::Refused, message)
            .code(codes::EXISTS)
            .hint("name a directory that does not exist yet"));
    }
    let cannot = |error: &std::io::Error, what: &std::path::Path| {
        Failure::failed(format!("cannot write {}", what.display())).because(error)
    };
    std::fs::create_dir_all(folder).map_err(|error| cannot(&error, folder))?;
    for (name, text) in FILES {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| cannot(&error, parent))?;
        }
        std::fs::write(&path, text).map_err(|error| cannot(&error, &path))?;
    }
    let at = folder.display();
    show::say(&format!(
        "wrote {} files to {at}. Try:\n  gravity check -c {at}\n  gravity test -c {at}\n  gravity run -c {at} &\n  \
         gravity send userCreated '{{\"id\": 1, \"name\": \"Fred\", \"email\": \"fred@example.com\"}}' -c {at}\n  \
         sqlite3 {at}/views.db 'SELECT * FROM users'",
        FILES.len()
    ));
    Ok(Exit::Done)
}
