//! Directories of cutfs: names as they are now, names as they are on disk, and the steps between.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;

/// Number of a file or directory, never used twice.
pub type Ino = u64;

/// The top directory.
pub const ROOT: Ino = 1;

/// One directory.
#[derive(Default)]
pub struct Directory {
    pub current: BTreeMap<OsString, Ino>,
    durable: BTreeMap<OsString, Ino>,
}

/// A change of names that the disk has not seen yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameStep {
    /// `name` now means `ino`, whatever it meant before.
    Link {
        directory: Ino,
        name: OsString,
        ino: Ino,
    },
    Unlink {
        directory: Ino,
        name: OsString,
    },
    Rename {
        from: Ino,
        name: OsString,
        to: Ino,
        new_name: OsString,
        ino: Ino,
    },
}

impl NameStep {
    fn directories(&self) -> (Ino, Ino) {
        match self {
            NameStep::Link { directory, .. } | NameStep::Unlink { directory, .. } => (*directory, *directory),
            NameStep::Rename { from, to, .. } => (*from, *to),
        }
    }
}

/// All directories with the steps that are not durable, oldest first.
pub struct Names {
    pub directories: HashMap<Ino, Directory>,
    pending: Vec<NameStep>,
}

impl Names {
    pub fn new() -> Names {
        Names { directories: HashMap::from([(ROOT, Directory::default())]), pending: Vec::new() }
    }

    /// Does the step in the current view.
    pub fn take(&mut self, step: NameStep) {
        apply(&step, &mut self.directories, |directory| &mut directory.current);
        self.pending.push(step);
    }

    /// fsync of `directory`: its steps become durable, and with a rename across directories what came before it on the other
    /// side, since a journal writes both in one transaction.
    pub fn sync(&mut self, directory: Ino) {
        let mut wanted = BTreeSet::from([directory]);
        let mut chosen = vec![false; self.pending.len()];
        for (index, step) in self.pending.iter().enumerate().rev() {
            let (one, other) = step.directories();
            if wanted.contains(&one) || wanted.contains(&other) {
                wanted.extend([one, other]);
                chosen[index] = true;
            }
        }
        let mut chosen = chosen.into_iter();
        let directories = &mut self.directories;
        self.pending.retain(|step| {
            let durable = chosen.next().unwrap_or(false);
            if durable {
                apply(step, directories, |directory| &mut directory.durable);
            }
            !durable
        });
    }

    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The power is gone: the first `kept` steps reached the disk, the others did not. Returns how many were lost.
    pub fn cut(&mut self, kept: usize) -> usize {
        let lost = self.pending.len() - kept;
        for step in self.pending.drain(..).take(kept) {
            apply(&step, &mut self.directories, |directory| &mut directory.durable);
        }
        for directory in self.directories.values_mut() {
            directory.current = directory.durable.clone();
        }
        lost
    }

    /// Everything that a name, now or on disk, still leads to.
    pub fn reachable(&self) -> BTreeSet<Ino> {
        let mut seen = BTreeSet::from([ROOT]);
        let mut open = vec![ROOT];
        // A step that is not durable may still become so and bring back what it names.
        for step in &self.pending {
            if let NameStep::Link { ino, .. } | NameStep::Rename { ino, .. } = step
                && seen.insert(*ino)
            {
                open.push(*ino);
            }
        }
        while let Some(ino) = open.pop() {
            let Some(directory) = self.directories.get(&ino) else { continue };
            for child in directory.current.values().chain(directory.durable.values()) {
                if seen.insert(*child) {
                    open.push(*child);
                }
            }
        }
        seen
    }
}

fn apply(
    step: &NameStep,
    directories: &mut HashMap<Ino, Directory>,
    side: impl Fn(&mut Directory) -> &mut BTreeMap<OsString, Ino>,
) {
    let mut on = |ino: &Ino, change: &mut dyn FnMut(&mut BTreeMap<OsString, Ino>)| {
        // A directory that was removed and collected has nothing left to change.
        if let Some(directory) = directories.get_mut(ino) {
            change(side(directory));
        }
    };
    match step {
        NameStep::Link { directory, name, ino } => on(directory, &mut |names| {
            names.insert(name.clone(), *ino);
        }),
        NameStep::Unlink { directory, name } => on(directory, &mut |names| {
            names.remove(name);
        }),
        NameStep::Rename { from, name, to, new_name, ino } => {
            on(from, &mut |names| {
                names.remove(name);
            });
            on(to, &mut |names| {
                names.insert(new_name.clone(), *ino);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(directory: Ino, name: &str, ino: Ino) -> NameStep {
        NameStep::Link { directory, name: name.into(), ino }
    }

    fn list(names: &Names, directory: Ino) -> Vec<(String, Ino)> {
        names.directories[&directory].current.iter().map(|(n, i)| (n.to_string_lossy().into_owned(), *i)).collect()
    }

    #[test]
    fn only_the_synced_directory_keeps_its_names() {
        let mut names = Names::new();
        names.directories.insert(2, Directory::default());
        names.take(link(ROOT, "d", 2));
        names.take(link(2, "inner", 3));
        names.take(link(ROOT, "outer", 4));
        names.sync(ROOT);
        assert_eq!(names.pending(), 1);
        assert_eq!(names.cut(0), 1);
        assert_eq!(list(&names, ROOT), [("d".to_owned(), 2), ("outer".to_owned(), 4)]);
        assert_eq!(list(&names, 2), []);
    }

    #[test]
    fn an_unsynced_rename_is_undone_and_its_target_comes_back() {
        let mut names = Names::new();
        names.take(link(ROOT, "new", 2));
        names.take(link(ROOT, "old", 3));
        names.sync(ROOT);
        names.take(NameStep::Rename { from: ROOT, name: "new".into(), to: ROOT, new_name: "old".into(), ino: 2 });
        assert_eq!(list(&names, ROOT), [("old".to_owned(), 2)]);
        assert!(names.reachable().contains(&3), "the replaced file is still on disk");
        names.cut(0);
        assert_eq!(list(&names, ROOT), [("new".to_owned(), 2), ("old".to_owned(), 3)]);
    }

    #[test]
    fn a_rename_across_directories_is_durable_on_both_sides_or_on_none() {
        let mut names = Names::new();
        names.directories.insert(2, Directory::default());
        names.take(link(ROOT, "d", 2));
        names.sync(ROOT);
        names.take(link(2, "a", 3));
        names.take(NameStep::Rename { from: 2, name: "a".into(), to: ROOT, new_name: "b".into(), ino: 3 });
        names.sync(ROOT);
        assert_eq!(names.pending(), 0, "the create before the rename went with it");
        names.cut(0);
        assert_eq!(list(&names, ROOT), [("b".to_owned(), 3), ("d".to_owned(), 2)]);
        assert_eq!(list(&names, 2), []);
    }

    #[test]
    fn a_prefix_of_the_steps_may_survive() {
        let mut names = Names::new();
        for ino in 2..6 {
            names.take(link(ROOT, &format!("f{ino}"), ino));
        }
        assert_eq!(names.cut(2), 2);
        assert_eq!(list(&names, ROOT), [("f2".to_owned(), 2), ("f3".to_owned(), 3)]);
        assert_eq!(names.reachable(), BTreeSet::from([ROOT, 2, 3]));
    }
}
