//! Where gates keep their files: `TMPDIR` (conformance/run names one and cleans it), else the project's ignored `.work/`.
//! Gone after a green run, copied aside after a red one.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::ledger::project_root;

/// A new directory `NAME-…`, removed when dropped.
pub fn directory(name: &str) -> Result<TempDir, String> {
    let base = match std::env::var_os("TMPDIR") {
        Some(base) => PathBuf::from(base),
        None => project_root().join(".work/torture"),
    };
    std::fs::create_dir_all(&base).map_err(|error| format!("{}: {error}", base.display()))?;
    tempfile::Builder::new()
        .prefix(&format!("{name}-"))
        .tempdir_in(&base)
        .map_err(|error| format!("{}: {error}", base.display()))
}

/// Copies `from` to `.work/torture/red/NAME` for a post-mortem; says where, or why not.
pub fn keep(from: &Path, name: &str) -> String {
    let to: PathBuf = project_root().join(".work/torture/red").join(name);
    let copy = || -> std::io::Result<()> {
        if to.exists() {
            std::fs::remove_dir_all(&to)?;
        }
        copy_tree(from, &to)
    };
    match copy() {
        Ok(()) => format!("kept in {}", to.display()),
        Err(error) => format!("not kept: {error}"),
    }
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
