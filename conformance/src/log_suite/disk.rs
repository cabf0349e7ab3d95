//! What holds only for logs on a disk: readers, formats, leftovers, damage, a change of store.

use super::*;

fn on_disk(place: &dyn LogPlace) -> &Path {
    place.directory().expect("a ruling about files needs a directory")
}

/// Every file with its content, the lock's aside.
pub(super) fn content(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let all = files(directory, &|path| !path.ends_with("lock"));
    all.into_iter().map(|path| (path.clone(), std::fs::read(&path).expect("readable"))).collect()
}

pub fn a_reader_changes_nothing_and_sees_everything(place: &dyn LogPlace) {
    let directory = on_disk(place);
    let log = place.open(&tiny).expect("the log opens");
    let expected = fill(log.as_ref(), 1, 5);
    append(log.as_ref(), &[Event::state("gravity.config", "", Some(b"c"))]);
    assert!(matches!(gravity_log::open_read_only(directory).map(|_| ()), Err(LogError::Locked { .. })));
    let (state, marks) = (log.state(), log.block_mark(Sequence(40)).expect("there"));
    settled(place, log.as_ref());
    log.close();
    let before = content(directory);
    let reader = gravity_log::open_read_only(directory).expect("the log opens");
    assert!(matches!(place.open(&tiny).map(|_| ()), Err(LogError::Locked { .. })), "nobody writes meanwhile");
    assert_eq!(payloads(reader.as_ref()), expected);
    assert_eq!((reader.state(), reader.block_mark(Sequence(40)).expect("there")), (state, marks));
    assert_eq!(reader.identity().fence.0, 1);
    assert!(reader.verify(None, &mut |_| {}).expect("readable").bad.is_empty());
    let mut batch = Batch::new();
    batch.push(&Event::data("e", "s", b"no"));
    assert_eq!(reader.append(&mut batch).expect_err("read only"), LogError::Closed);
    drop(reader);
    assert!(content(directory) == before, "not a byte differs");
    assert!(matches!(
        gravity_log::open_read_only(directory.join("nowhere")).map(|_| ()),
        Err(LogError::Refused { .. })
    ));
}

pub fn a_newer_format_is_refused_by_name(place: &dyn LogPlace) {
    let directory = on_disk(place);
    drop(open(place));
    std::fs::write(directory.join("format"), "gravity-log 2\n").expect("writable");
    let before = content(directory);
    match place.open(&|_| {}).map(|_| ()) {
        Err(LogError::Refused { path, detail }) => {
            assert!(path.ends_with("format") && detail.contains("log format 2"), "{detail}");
        }
        other => panic!("expected Refused, found {other:?}"),
    }
    assert!(content(directory) == before, "nothing was changed");
}

pub fn leftovers_of_an_unfinished_seal_are_collected(place: &dyn LogPlace) {
    let directory = on_disk(place);
    let log = place.open(&tiny).expect("the log opens");
    let expected = fill(log.as_ref(), 1, 4);
    settled(place, log.as_ref());
    log.close();
    for name in ["sealed/sealing.new", "sealed/00000000000000000001-00000000000000000009.arrow"] {
        std::fs::write(directory.join(name), b"half").expect("writable");
    }
    // A generation that history has, and one that never began.
    std::fs::create_dir(directory.join("hot/00000001")).expect("writable");
    std::fs::create_dir(directory.join("hot/00000099")).expect("writable");
    let log = place.open(&tiny).expect("the log opens");
    assert_eq!(payloads(log.as_ref()), expected);
    // What is full is sealed again at once, under the same temporary name.
    settled(place, log.as_ref());
    for name in
        ["sealed/sealing.new", "sealed/00000000000000000001-00000000000000000009.arrow", "hot/00000001", "hot/00000099"]
    {
        assert!(!directory.join(name).exists(), "{name} is still there");
    }
}

pub fn verify_finds_an_edited_byte_and_reads_name_the_range(place: &dyn LogPlace) {
    let directory = on_disk(place);
    let log = place.open(&tiny).expect("the log opens");
    fill(log.as_ref(), 1, 6);
    settled(place, log.as_ref());
    let all = blocks(log.as_ref(), Sequence::ZERO);
    log.close();
    let segments = files(&directory.join("sealed"), &|_| true);
    let victim = &segments[1];
    let whole = std::fs::read(victim).expect("readable");
    let mut named = 0;
    for at in (0..whole.len()).step_by(whole.len() / 24) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(victim, &bytes).expect("writable");
        let reader = gravity_log::open_read_only(directory).expect("the log opens");
        let found = reader.verify(None, &mut |_| {}).expect("readable");
        assert!(!found.bad.is_empty(), "byte {at} of {}", victim.display());
        assert!(found.bad.iter().all(|(what, _, _)| what.contains(".arrow")));
        // Reads give what was appended, or name the range; never other bytes, never the end of the log.
        let mut after = Sequence::ZERO;
        while after < all[all.len() - 1].last() {
            match reader.read(after, ReadLimits { events: 1, bytes: 1 }) {
                Ok(read) => {
                    let block = read.first().expect("not the end");
                    assert!(all.contains(block), "byte {at}: other bytes after {after}");
                    after = block.last();
                }
                Err(LogError::Damaged { what, range, .. }) => {
                    assert!(what.contains(".arrow") && range.first == after.next() && range.last > after);
                    after = range.last;
                    named += 1;
                }
                Err(other) => panic!("byte {at}: {other}"),
            }
        }
    }
    assert!(named > 0, "no flip touched an event");
    std::fs::write(victim, &whole).expect("writable");
    assert!(open(place).verify(None, &mut |_| {}).expect("readable").bad.is_empty());
}

pub fn damage_before_the_end_is_never_the_end(place: &dyn LogPlace) {
    let directory = on_disk(place);
    let log = open(place);
    for i in 0..40u64 {
        append(log.as_ref(), &[Event::data("e", "s", &noise(i, 2000))]);
    }
    log.close();
    let [file] = &files(&directory.join("hot"), &|path| path.ends_with("db") || path.ends_with("raw.log"))[..] else {
        panic!("one hot generation");
    };
    let whole = std::fs::read(file).expect("readable");
    let frames: Vec<usize> = whole.windows(4).enumerate().filter(|(_, w)| *w == b"GVF1").map(|(at, _)| at).collect();
    assert!(frames.len() > 30);
    // In a block's header, its body, its frame.
    for at in [frames[3] + 60, frames[10] + 1000, frames[20] + 9] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(file, &bytes).expect("writable");
        let opened = place.open(&|_| {}).map(|log| payloads(log.as_ref()).len());
        match opened {
            Err(LogError::Damaged { .. } | LogError::Refused { .. }) => {}
            other => panic!("byte {at}: {other:?}"),
        }
    }
    std::fs::write(file, &whole).expect("writable");
    assert_eq!(payloads(open(place).as_ref()).len(), 40);
}

pub fn dedupe_runs_are_made_again_from_the_segments(place: &dyn LogPlace) {
    let directory = on_disk(place);
    let log = place.open(&tiny).expect("the log opens");
    fill(log.as_ref(), 5, 6);
    settled(place, log.as_ref());
    log.close();
    let runs = files(&directory.join("dedupe"), &|_| true);
    assert!(runs.len() >= 3);
    std::fs::remove_file(&runs[0]).expect("there");
    let mut bytes = std::fs::read(&runs[1]).expect("readable");
    bytes[20] ^= 1;
    std::fs::write(&runs[1], bytes).expect("writable");
    let log = place.open(&tiny).expect("the log opens");
    for i in 0..48u64 {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&(5000 + i).to_be_bytes());
        key[8..].copy_from_slice(&(i * 7919).to_be_bytes());
        assert!(log.dedupe(&[DedupeKey(key)]).expect("readable")[0].is_some(), "entry {i}");
    }
}

pub fn another_hot_store_takes_over(place: &dyn LogPlace) {
    let log = place.open(&tiny).expect("the log opens");
    let mut expected = fill(log.as_ref(), 1, 3);
    drop(log);
    let other = |options: &mut LogOptions| {
        tiny(options);
        options.hot = match options.hot {
            HotStore::Sled => HotStore::Raw,
            HotStore::Raw => HotStore::Sled,
        };
    };
    let log = place.open(&other).expect("the log opens");
    expected.extend(fill(log.as_ref(), 2, 3));
    assert_eq!(payloads(log.as_ref()), expected);
    drop(log);
    let log = place.open(&tiny).expect("the log opens");
    assert_eq!(payloads(log.as_ref()), expected);
}

/// Files below `directory` that satisfy `want`, by name.
pub fn files(directory: &Path, want: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, want));
        } else if want(&path) {
            found.push(path);
        }
    }
    found.sort();
    found
}
