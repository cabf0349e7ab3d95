//! The folder that the demo leaves behind: a config that runs as it is, the data directory, the SQLite file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::cli::exit::{Exit, Failure};
use crate::config::codes;

/// Where things are.
pub struct Folder {
    pub path: PathBuf,
}

impl Folder {
    /// Makes a new folder: the one named, or `gravity-demo`, or the first `gravity-demo-N` that does not exist.
    pub fn create(named: Option<&Path>) -> Result<Folder, Failure> {
        let path = match named {
            Some(path) => {
                let occupied = std::fs::read_dir(path).map_or(path.exists(), |mut entries| entries.next().is_some());
                if occupied {
                    let message = format!("{} exists and is not empty: nothing was written", path.display());
                    return Err(Failure::new(Exit::Refused, message).code(codes::EXISTS));
                }
                path.to_owned()
            }
            None => free_name(),
        };
        std::fs::create_dir_all(&path)
            .map_err(|error| Failure::failed(format!("cannot make {}", path.display())).because(&error))?;
        Ok(Folder { path })
    }

    pub fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    pub fn database(&self) -> PathBuf {
        self.path.join("shop.db")
    }

    /// Writes the config files. `target` is where the exporter's messages go.
    pub fn write(&self, target: SocketAddr, listen: SocketAddr) -> Result<(), Failure> {
        let files = [
            ("sources.json", r#"{ "sources": { "shop": { "type": "http" } } }"#.to_owned()),
            (
                "databases.json",
                r#"{ "databases": { "shop": { "type": "sqlite", "path": "shop.db", "ddl": "create" } } }"#.to_owned(),
            ),
            ("rules.json", include_str!("rules.json").to_owned()),
            (
                "exporter.json",
                format!(
                    "{{\n  // The demo itself listened here.\n  \"exporter\": {{ \"receipts\": {{ \"type\": \"restful_api\", \
                     \"url\": \"http://{target}/told\" }} }}\n}}"
                ),
            ),
            ("gravity.toml", format!("[log]\ndirectory = \"data\"\n\n[api]\nlisten = \"{listen}\"")),
        ];
        for (name, text) in files {
            let path = self.path.join(name);
            std::fs::write(&path, text.trim_end().to_owned() + "\n")
                .map_err(|error| Failure::failed(format!("cannot write {}", path.display())).because(&error))?;
        }
        Ok(())
    }
}

fn free_name() -> PathBuf {
    let first = PathBuf::from("gravity-demo");
    if !first.exists() {
        return first;
    }
    (2u32..).map(|n| PathBuf::from(format!("gravity-demo-{n}"))).find(|path| !path.exists()).unwrap_or(first)
}
