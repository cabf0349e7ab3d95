//! The generator's own memory of what was acknowledged, fsynced: this, not Gravity, says what must be there.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// What is known about one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// Acknowledged: must be there, once.
    Must,
    /// Sent, no answer: may be there, at most once.
    May,
    /// Refused: must not be there.
    MustNot,
}

/// Lines of `WORD i`, appended and synced per group.
pub struct Journal {
    file: File,
    known: HashMap<u64, Knowledge>,
}

impl Journal {
    pub fn create(path: &Path) -> io::Result<Journal> {
        Ok(Journal { file: OpenOptions::new().append(true).create_new(true).open(path)?, known: HashMap::new() })
    }

    /// Before the items go out.
    pub fn sent(&mut self, items: &[u64]) -> io::Result<()> {
        self.write("sent", Knowledge::May, items)
    }

    /// After the peer has confirmed them.
    pub fn acknowledged(&mut self, items: &[u64]) -> io::Result<()> {
        self.write("acked", Knowledge::Must, items)
    }

    /// After the peer has refused them for good.
    pub fn refused(&mut self, items: &[u64]) -> io::Result<()> {
        self.write("refused", Knowledge::MustNot, items)
    }

    fn write(&mut self, word: &str, knowledge: Knowledge, items: &[u64]) -> io::Result<()> {
        let mut text = String::with_capacity(items.len() * 14);
        for item in items {
            text.push_str(word);
            text.push(' ');
            text.push_str(&item.to_string());
            text.push('\n');
            self.known.insert(*item, knowledge);
        }
        self.file.write_all(text.as_bytes())?;
        self.file.sync_data()
    }

    pub fn count(&self, knowledge: Knowledge) -> u64 {
        self.known.values().filter(|known| **known == knowledge).count() as u64
    }

    pub fn known(&self) -> &HashMap<u64, Knowledge> {
        &self.known
    }
}

/// Reads a journal back; a last line without its end was never finished and says nothing.
pub fn read(path: &Path) -> io::Result<HashMap<u64, Knowledge>> {
    let text = std::fs::read_to_string(path)?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut known = HashMap::new();
    for (number, line) in whole.lines().enumerate() {
        let wrong = || io::Error::other(format!("{}:{}: {line:?}", path.display(), number + 1));
        let (word, item) = line.split_once(' ').ok_or_else(wrong)?;
        let knowledge = match word {
            "sent" => Knowledge::May,
            "acked" => Knowledge::Must,
            "refused" => Knowledge::MustNot,
            _ => return Err(wrong()),
        };
        known.insert(item.parse().map_err(|_| wrong())?, knowledge);
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_back_is_what_was_known() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("journal");
        let mut journal = Journal::create(&path).expect("create");
        journal.sent(&[1, 2, 3]).expect("write");
        journal.acknowledged(&[1]).expect("write");
        journal.refused(&[3]).expect("write");
        let known = read(&path).expect("readable");
        assert_eq!(&known, journal.known());
        assert_eq!(known, HashMap::from([(1, Knowledge::Must), (2, Knowledge::May), (3, Knowledge::MustNot)]));
        assert_eq!(journal.count(Knowledge::May), 1);

        OpenOptions::new().append(true).open(&path).expect("open").write_all(b"acked 2").expect("write");
        assert_eq!(read(&path).expect("readable")[&2], Knowledge::May, "a torn line says nothing");
        OpenOptions::new().append(true).open(&path).expect("open").write_all(b"7\nnonsense\n").expect("write");
        assert!(read(&path).is_err());
    }
}
