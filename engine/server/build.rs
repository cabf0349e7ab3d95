//! Puts every page of docs/errors into the binary, so that `gravity explain CODE` works without the documentation.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../docs/errors").canonicalize()?;
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut pages: Vec<PathBuf> =
        fs::read_dir(&folder)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    pages.sort();
    let mut table = String::from("&[\n");
    for page in pages {
        let (Some(stem), Some("md")) =
            (page.file_stem().and_then(|s| s.to_str()), page.extension().and_then(|e| e.to_str()))
        else {
            continue;
        };
        // `family-name-of-the-error.md` is the page of `family/name-of-the-error`.
        if let Some((family, name)) = stem.split_once('-') {
            writeln!(table, "    ({:?}, include_str!({:?})),", format!("{family}/{name}"), page.display().to_string())?;
        }
    }
    table.push_str("]\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("pages.rs"), table)?;
    Ok(())
}
