//! The journal of a stand-alone server: what a batch writes and what was there before, on disk before the first row changes.
//!
//! Two series of chunks per batch: `redo` in the order of the writes, `undo` the documents as they were, same order. A
//! checkpoint that names the journal makes it binding; chunks that no checkpoint names are rubbish.

use gravity_model::{Fault, FaultKind, failpoint};
use mongodb::bson::{Bson, Document, doc};

use super::bookkeeping::{JOURNAL, update};
use super::client::{STATEMENTS, Server};
use super::codec::LARGEST;
use super::error::DUPLICATE_KEY;
use super::overlay::{DELETED, MARK};
use super::plan::{Action, Write};

const DOING: &str = "write the journal";
/// Bytes of entries per chunk; one entry may be larger.
const CHUNK_BYTES: usize = 2 << 20;
/// Bytes of a write command.
pub(super) const COMMAND_BYTES: usize = 8 << 20;

/// Names a binding journal.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    pub token: String,
    /// Sequence through which the batch goes: the mark of what it writes.
    pub through: i64,
    pub redo: u32,
    pub undo: u32,
}

/// Fills chunks and stores them as they fill.
pub(super) struct Writer<'s> {
    server: &'s Server,
    reference: Reference,
    checkpoint: String,
    /// Where the checkpoint stands.
    from: i64,
    redo: Series,
    undo: Series,
}

#[derive(Default)]
struct Series {
    entries: Vec<Bson>,
    bytes: usize,
}

impl<'s> Writer<'s> {
    pub fn new(server: &'s Server, checkpoint: String, from: i64, through: i64) -> Writer<'s> {
        let token = uuid::Uuid::new_v4().simple().to_string();
        let reference = Reference { token, through, redo: 0, undo: 0 };
        Writer { server, reference, checkpoint, from, redo: Series::default(), undo: Series::default() }
    }

    pub async fn add(&mut self, collection: &str, write: Write) -> Result<(), Fault> {
        let Write { id, before, action } = write;
        let (word, document) = match action {
            Action::Remove => ("remove", Document::new()),
            Action::Set(fields) => ("set", fields),
            Action::Replace(document) => ("replace", document),
            Action::Insert(document) => ("insert", document),
        };
        let undo = doc! { "c": collection, "i": id.clone(), "b": before.map_or(Bson::Null, Bson::Document) };
        self.push("redo", doc! { "c": collection, "i": id, "a": word, "d": document }).await?;
        self.push("undo", undo).await
    }

    async fn push(&mut self, name: &str, entry: Document) -> Result<(), Fault> {
        let bytes = entry
            .to_vec()
            .map_err(|error| Fault::new(FaultKind::RefusedEvent, "10334", DOING, error.to_string()))?
            .len();
        if bytes > LARGEST + (64 << 10) {
            let detail = format!("a document of {bytes} bytes was there; at most {LARGEST} can be kept for a rollback");
            return Err(Fault::new(FaultKind::RefusedEvent, "10334", DOING, detail));
        }
        let series = if name == "redo" { &self.redo } else { &self.undo };
        if series.bytes > 0 && series.bytes + bytes > CHUNK_BYTES {
            self.flush(name).await?;
        }
        let series = if name == "redo" { &mut self.redo } else { &mut self.undo };
        series.bytes += bytes;
        series.entries.push(entry.into());
        Ok(())
    }

    async fn flush(&mut self, name: &str) -> Result<(), Fault> {
        let (series, count) = match name {
            "redo" => (&mut self.redo, &mut self.reference.redo),
            _ => (&mut self.undo, &mut self.reference.undo),
        };
        if series.entries.is_empty() {
            return Ok(());
        }
        let entries = std::mem::take(series).entries;
        let chunk = doc! {
            "_id": chunk_id(&self.reference.token, name, *count),
            "token": &self.reference.token, "checkpoint": &self.checkpoint, "from": self.from,
            "entries": entries,
        };
        *count += 1;
        self.server.written(doc! { "insert": JOURNAL, "documents": [chunk] }, None, DOING).await.map(|_| ())
    }

    /// Everything is stored; nothing binds yet.
    pub async fn finish(mut self) -> Result<Reference, Fault> {
        self.flush("redo").await?;
        self.flush("undo").await?;
        Ok(self.reference)
    }
}

fn chunk_id(token: &str, series: &str, number: u32) -> String {
    format!("{token}/{series}/{number}")
}

/// Removes chunks that no checkpoint can come to name any more: they were made when it stood before `sequence`.
pub(super) async fn sweep(server: &Server, checkpoint: &str, sequence: i64) -> Result<(), Fault> {
    remove(server, doc! { "checkpoint": checkpoint, "from": { "$lt": sequence } }).await
}

/// Removes a journal that has come to its end, or never binds.
pub(super) async fn forget(server: &Server, reference: &Reference) -> Result<(), Fault> {
    let series = |name: &'static str, count| (0..count).map(move |n| (name, n));
    let ids: Vec<String> = series("redo", reference.redo)
        .chain(series("undo", reference.undo))
        .map(|(name, number)| chunk_id(&reference.token, name, number))
        .collect();
    remove(server, doc! { "_id": { "$in": ids } }).await
}

async fn remove(server: &Server, filter: Document) -> Result<(), Fault> {
    let command = doc! { "delete": JOURNAL, "deletes": [{ "q": filter, "limit": 0 }] };
    server.written(command, None, "sweep the journal").await.map(|_| ())
}

async fn chunk(server: &Server, reference: &Reference, series: &str, number: u32) -> Result<Vec<Document>, Fault> {
    let id = chunk_id(&reference.token, series, number);
    let damaged = || {
        let detail = format!("chunk {id} of the journal is missing or damaged; the checkpoint needs it");
        Fault::new(FaultKind::NotOurs, "bookkeeping-damaged", "read the journal", detail)
    };
    let found = server.find(JOURNAL, doc! { "_id": &id }, None, "read the journal").await?.pop();
    let Some(Bson::Array(entries)) = found.and_then(|mut chunk| chunk.remove("entries")) else {
        return Err(damaged());
    };
    let document = |entry| match entry {
        Bson::Document(document) => Ok(document),
        _ => Err(damaged()),
    };
    entries.into_iter().map(document).collect()
}

/// A document that the batch has not written yet: whoever is newer, or did the same write before, is left alone.
fn older(id: &Bson, through: i64) -> Document {
    if failpoint::sabotaged("mongodb.no_guard") {
        return doc! { "_id": id.clone() };
    }
    doc! { "_id": id.clone(), MARK: { "$not": { "$gte": through } } }
}

/// Makes every write of the journal that was not made yet. Doing it again changes nothing.
pub(super) async fn redo(server: &Server, reference: &Reference) -> Result<(), Fault> {
    for number in 0..reference.redo {
        let mut rest = chunk(server, reference, "redo", number).await?;
        while !rest.is_empty() {
            let count = run_length(&rest, server.statements);
            let left = rest.split_off(count);
            run(server, reference.through, rest).await?;
            rest = left;
        }
    }
    Ok(())
}

fn text<'e>(entry: &'e Document, name: &str) -> &'e str {
    entry.get_str(name).unwrap_or_default()
}

/// How many entries from the first on go into one command.
fn run_length(entries: &[Document], updates: usize) -> usize {
    let most = if text(&entries[0], "a") == "insert" { STATEMENTS } else { updates };
    let kind = |entry: &Document| (text(entry, "c").to_owned(), text(entry, "a") == "insert");
    let first = kind(&entries[0]);
    let mut bytes = 0;
    let fits = |entry: &&Document| {
        bytes += entry.to_vec().map_or(0, |bytes| bytes.len());
        bytes <= COMMAND_BYTES && kind(entry) == first
    };
    entries.iter().take(most).take_while(fits).count().max(1)
}

/// One command's worth of entries of one collection. Stops at nothing but a refusal of content.
async fn run(server: &Server, through: i64, mut entries: Vec<Document>) -> Result<(), Fault> {
    let collection = text(&entries[0], "c").to_owned();
    let doing = format!("write {} documents of {collection}", entries.len());
    while !entries.is_empty() {
        let insert = text(&entries[0], "a") == "insert";
        let command = if insert {
            let documents: Vec<Document> = entries.iter().map(|entry| marked(entry, through)).collect();
            doc! { "insert": &collection, "documents": documents, "ordered": true }
        } else {
            update(&collection, entries.iter().map(|entry| statement(entry, through)).collect())
        };
        let Err(error) = server.write(command, None, &doing).await? else { return Ok(()) };
        if error.code != DUPLICATE_KEY || error.index >= entries.len() {
            return Err(error.fault(doing));
        }
        // Not by the error's words but by what stands there: the `_id`, or another unique key.
        let at_fault = &entries[error.index];
        let id = at_fault.get("i").cloned().unwrap_or(Bson::Null);
        let found = server.find(&collection, doc! { "_id": id }, None, &doing).await?.pop();
        let mark = found.as_ref().map(|document| document.get(MARK).and_then(super::error::integer));
        match mark {
            // This write, or a newer one.
            Some(Some(mark)) if mark >= through => {
                entries.drain(..=error.index);
            }
            // Somebody else made a document of this key meanwhile: ours takes its place.
            Some(_) if insert => {
                let ours = statement(at_fault, through);
                server.written(update(&collection, vec![ours]), None, &doing).await?;
                entries.drain(..=error.index);
            }
            _ => return Err(error.fault(doing)),
        }
    }
    Ok(())
}

/// The whole document of an entry, with its mark.
fn marked(entry: &Document, through: i64) -> Document {
    let mut document = entry.get_document("d").cloned().unwrap_or_default();
    document.insert("_id", entry.get("i").cloned().unwrap_or(Bson::Null));
    document.insert(MARK, through);
    document
}

fn statement(entry: &Document, through: i64) -> Document {
    let id = entry.get("i").cloned().unwrap_or(Bson::Null);
    let filter = older(&id, through);
    match text(entry, "a") {
        "remove" => doc! { "q": filter, "u": { "_id": id, MARK: through, DELETED: true } },
        "set" => {
            let mut fields = entry.get_document("d").cloned().unwrap_or_default();
            fields.insert(MARK, through);
            doc! { "q": filter, "u": { "$set": fields } }
        }
        _ => doc! { "q": filter, "u": marked(entry, through), "upsert": true },
    }
}

/// Puts back what the journal's writes replaced, last first.
pub(super) async fn undo(server: &Server, reference: &Reference) -> Result<(), Fault> {
    const DOING: &str = "take back the writes of a refused batch";
    for number in (0..reference.undo).rev() {
        for entry in chunk(server, reference, "undo", number).await?.iter().rev() {
            let collection = text(entry, "c");
            let filter = doc! { "_id": entry.get("i").cloned().unwrap_or(Bson::Null), MARK: reference.through };
            let command = match entry.get_document("b") {
                Ok(before) => update(collection, vec![doc! { "q": filter, "u": before.clone() }]),
                Err(_) => super::bookkeeping::delete(collection, filter),
            };
            if let Err(error) = server.write(command, None, DOING).await? {
                // Somebody outside took the place; a refusal here must not be taken for the event's.
                return Err(Fault { kind: FaultKind::Transient, ..error.fault(DOING) });
            }
        }
    }
    Ok(())
}
