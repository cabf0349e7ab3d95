//! Reads a file into records, each the JSON of one message with its place, in batches that never fall otherwise.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::super::exit::Failure;
use super::BadLine;
use super::csv::{Csv, Row};

/// A batch is closed at this many records or bytes. Part of what makes a repetition find the same batches: never change it
/// without a new prefix in the idempotency key.
const BATCH_RECORDS: usize = 1_000;
const BATCH_BYTES: usize = 512 << 10;

/// Longest line. The source's `max_batch` may be less; the engine then says so.
const LONGEST_LINE: u64 = 16 << 20;

/// What the records of a file are.
#[derive(Clone, Debug)]
pub enum Shape {
    /// One JSON value a line: a message, or with `event` the payload of one.
    Lines {
        event: Option<String>,
    },
    Csv {
        event: String,
        key: Option<String>,
        json_columns: Vec<String>,
    },
}

/// A file to import. What comes over standard input is spooled, because it is read more than once.
pub struct Input {
    pub name: String,
    shape: Shape,
    file: File,
    is_zstd: bool,
    /// Bytes of the content.
    pub bytes: u64,
    /// BLAKE3 of the content and of everything that decides what is made of it.
    pub digest: String,
}

/// One record.
#[derive(Debug)]
pub struct Record {
    pub line: u64,
    /// Bytes that we put before the line's own.
    prefix: usize,
    pub json: Vec<u8>,
}

impl Record {
    /// Where in the file's line the engine's column stands.
    pub fn column(&self, column: u64) -> u64 {
        column.saturating_sub(self.prefix as u64).max(1)
    }
}

/// Records that go together.
#[derive(Debug, Default)]
pub struct Batch {
    pub records: Vec<Record>,
    pub bad: Vec<BadLine>,
    pub first_line: u64,
    pub last_line: u64,
    /// Bytes of the content read so far.
    pub read: u64,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.bad.is_empty()
    }
}

impl Input {
    pub fn open(path: &Path, shape: Shape) -> Result<Input, Failure> {
        let name = path.display().to_string();
        let unreadable = |error: &std::io::Error| Failure::usage(format!("cannot read {name}")).because(error);
        let mut file = if name == "-" {
            let mut spool = tempfile::tempfile().map_err(|error| unreadable(&error))?;
            std::io::copy(&mut std::io::stdin().lock(), &mut spool).map_err(|error| unreadable(&error))?;
            spool
        } else {
            File::open(path).map_err(|error| unreadable(&error))?
        };
        let mut magic = [0; 4];
        file.seek(SeekFrom::Start(0)).map_err(|error| unreadable(&error))?;
        let is_zstd = file.read_exact(&mut magic).is_ok() && magic == [0x28, 0xb5, 0x2f, 0xfd];
        let mut input = Input { name, shape, file, is_zstd, bytes: 0, digest: String::new() };
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{:?}\n", input.shape).as_bytes());
        let mut content = input.content()?;
        let mut buffer = vec![0; 256 << 10];
        let mut bytes = 0;
        loop {
            let count = content.read(&mut buffer).map_err(|error| input.unreadable(&error))?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            bytes += count as u64;
        }
        drop(content);
        input.bytes = bytes;
        input.digest = hasher.finalize().to_hex()[..32].to_owned();
        Ok(input)
    }

    fn unreadable(&self, error: &std::io::Error) -> Failure {
        Failure::usage(format!("cannot read {}", self.name)).because(error)
    }

    /// The content from its beginning.
    fn content(&self) -> Result<Box<dyn BufRead + '_>, Failure> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0)).map_err(|error| self.unreadable(&error))?;
        Ok(if self.is_zstd {
            let decoder = zstd::stream::read::Decoder::new(file).map_err(|error| self.unreadable(&error))?;
            Box::new(BufReader::with_capacity(256 << 10, decoder))
        } else {
            Box::new(BufReader::with_capacity(256 << 10, file))
        })
    }

    /// The records from the beginning.
    pub fn records(&self) -> Result<Records<'_>, Failure> {
        let content = self.content()?;
        let source = match &self.shape {
            Shape::Lines { event } => {
                let prefix = match event {
                    Some(event) => format!("{{\"event\":{},\"payload\":", serde_json::Value::from(event.as_str())),
                    None => String::new(),
                };
                Source::Lines { content, prefix, line: 0 }
            }
            Shape::Csv { event, key, json_columns } => {
                let csv = Csv::open(content, event, key.as_deref(), json_columns);
                Source::Csv(csv.map_err(|why| Failure::usage(format!("{}:1: {why}", self.name)))?)
            }
        };
        Ok(Records { input: self, source, read: 0 })
    }

    /// Every line that is no JSON, or no row of this CSV.
    pub fn syntax_errors(&self) -> Result<Vec<BadLine>, Failure> {
        let mut all = Vec::new();
        let mut records = self.records()?;
        loop {
            let batch = records.batch()?;
            if batch.is_empty() {
                return Ok(all);
            }
            all.extend(batch.bad);
            for record in &batch.records {
                if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&record.json) {
                    all.push(BadLine {
                        file: self.name.clone(),
                        line: record.line,
                        column: record.column(error.column() as u64),
                        code: "decode/not-json".to_owned(),
                        message: error.to_string(),
                    });
                }
            }
        }
    }
}

/// See [`Input::records`].
pub struct Records<'i> {
    input: &'i Input,
    source: Source<'i>,
    read: u64,
}

enum Source<'i> {
    Lines { content: Box<dyn BufRead + 'i>, prefix: String, line: u64 },
    Csv(Csv<Box<dyn BufRead + 'i>>),
}

impl Records<'_> {
    /// The next batch; empty at the end.
    pub fn batch(&mut self) -> Result<Batch, Failure> {
        let mut batch = Batch::default();
        let mut bytes = 0;
        while batch.records.len() + batch.bad.len() < BATCH_RECORDS && bytes < BATCH_BYTES {
            let Some((line, read, next)) = self.next()? else { break };
            if batch.is_empty() {
                batch.first_line = line;
            }
            batch.last_line = line;
            self.read += read;
            bytes += read as usize;
            match next {
                Ok(record) => batch.records.push(record),
                Err((column, message)) => batch.bad.push(BadLine {
                    file: self.input.name.clone(),
                    line,
                    column,
                    code: "cli/bad-import".to_owned(),
                    message,
                }),
            }
        }
        batch.read = self.read;
        Ok(batch)
    }

    /// Line, bytes of content, and the record or column and reason. Empty lines are passed.
    #[expect(clippy::type_complexity, reason = "named parts of one private answer")]
    fn next(&mut self) -> Result<Option<(u64, u64, Result<Record, (u64, String)>)>, Failure> {
        let failed = |error: std::io::Error| self.input.unreadable(&error);
        match &mut self.source {
            Source::Csv(csv) => Ok(match csv.next().map_err(failed)? {
                None => None,
                Some(Row { line, bytes, json: Ok(json) }) => {
                    let prefix = json.len();
                    Some((line, bytes, Ok(Record { line, prefix, json })))
                }
                Some(Row { line, bytes, json: Err(why) }) => Some((line, bytes, Err((1, why)))),
            }),
            Source::Lines { content, prefix, line } => {
                let mut skipped = 0;
                loop {
                    let mut text = prefix.clone().into_bytes();
                    let read = content.take(LONGEST_LINE).read_until(b'\n', &mut text).map_err(failed)? as u64;
                    if read == 0 {
                        return Ok(None);
                    }
                    *line += 1;
                    if read == LONGEST_LINE && text.last() != Some(&b'\n') {
                        let rest = pass_line(content).map_err(failed)?;
                        let why = format!("the line is longer than {} MiB", LONGEST_LINE >> 20);
                        return Ok(Some((*line, skipped + read + rest, Err((1, why)))));
                    }
                    while matches!(text.last(), Some(b'\n' | b'\r')) && text.len() > prefix.len() {
                        text.pop();
                    }
                    if text[prefix.len()..].trim_ascii().is_empty() {
                        skipped += read;
                        continue;
                    }
                    if !prefix.is_empty() {
                        text.push(b'}');
                    }
                    let record = Record { line: *line, prefix: prefix.len(), json: text };
                    return Ok(Some((*line, skipped + read, Ok(record))));
                }
            }
        }
    }
}

/// Reads to the end of a line without keeping it.
fn pass_line(content: &mut dyn BufRead) -> std::io::Result<u64> {
    let mut passed = 0;
    loop {
        let buffer = content.fill_buf()?;
        if buffer.is_empty() {
            return Ok(passed);
        }
        let (count, ends) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), false),
        };
        content.consume(count);
        passed += count as u64;
        if ends {
            return Ok(passed);
        }
    }
}
