//! Events as Arrow columns and back, byte for byte. Pure.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanBuilder, ListArray, RecordBatch, StringBuilder, StructArray,
    TimestampMicrosecondBuilder, UInt8Builder, UInt64Builder,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{
    DataType, Field, Fields, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType, UInt8Type, UInt64Type,
};
use arrow::error::ArrowError;
use gravity_model::event::Headers;
use gravity_model::ident::{BlockMark, Digest};
use gravity_model::{Event, EventKind, HeaderBuf, Recorded, Sequence};

use crate::api::Block;
use crate::block::{self, CARRY, CHUNK, CUT, Head, Meta, Reader};
use crate::record;

fn header_fields() -> Fields {
    Fields::from(vec![Field::new("name", DataType::Utf8, false), Field::new("value", DataType::Binary, false)])
}

/// The columns of every segment. `block` stands on the first event of each block of the log: what the block says beside its
/// events, so that the digest chain can be checked from this file alone.
pub(crate) fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let headers = DataType::List(Arc::new(Field::new("header", DataType::Struct(header_fields()), false)));
    Arc::new(Schema::new(vec![
        Field::new("sequence", DataType::UInt64, false),
        Field::new("event", DataType::Utf8, false),
        Field::new("kind", DataType::UInt8, false),
        Field::new("state", DataType::Boolean, false),
        Field::new("source", DataType::Utf8, false),
        Field::new("key", DataType::Binary, true),
        Field::new("id", DataType::Utf8, true),
        Field::new("time", time.clone(), true),
        Field::new("received", time, false),
        Field::new("traceparent", DataType::Utf8, true),
        Field::new("headers", headers, false),
        Field::new("causation", DataType::UInt64, true),
        Field::new("actor", DataType::Utf8, true),
        Field::new("payload", DataType::Binary, true),
        Field::new("block", DataType::Binary, true),
    ]))
}

/// What a segment keeps of one physical block beside its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub head: Head,
    pub digest: Digest,
    /// Encoded meta part.
    pub meta: Vec<u8>,
    /// The body of a block that carries state.
    pub carry: Vec<u8>,
}

impl Part {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head.flags.to_le_bytes());
        out.extend_from_slice(&self.head.count.to_le_bytes());
        out.extend_from_slice(&self.head.body_len.to_le_bytes());
        out.extend_from_slice(&self.head.first.get().to_le_bytes());
        out.extend_from_slice(&self.head.made.to_le_bytes());
        out.extend_from_slice(&self.digest.0);
        for bytes in [&self.meta, &self.carry] {
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
        }
    }

    fn decode(read: &mut Reader<'_>) -> Option<Part> {
        Some(Part {
            head: Head {
                flags: read.u16()?,
                count: read.u32()?,
                body_len: read.u32()?,
                first: Sequence(read.u64()?),
                made: read.i64()?,
            },
            digest: Digest(read.array()?),
            meta: read.bytes()?.to_vec(),
            carry: read.bytes()?.to_vec(),
        })
    }

    fn decode_all(bytes: &[u8]) -> Option<Vec<Part>> {
        let mut read = Reader(bytes);
        let mut parts = Vec::new();
        while !read.0.is_empty() {
            parts.push(Part::decode(&mut read)?);
        }
        Some(parts)
    }

    pub fn meta(&self) -> Option<Meta> {
        if self.meta.is_empty() {
            return Some(Meta::default());
        }
        Meta::decode(&self.meta, self.head.has(CUT))
    }
}

/// Gathers events into one record batch.
pub(crate) struct Builder {
    schema: SchemaRef,
    sequence: UInt64Builder,
    event: StringBuilder,
    kind: UInt8Builder,
    state: BooleanBuilder,
    source: StringBuilder,
    key: BinaryBuilder,
    id: StringBuilder,
    time: TimestampMicrosecondBuilder,
    received: TimestampMicrosecondBuilder,
    traceparent: StringBuilder,
    header_name: StringBuilder,
    header_value: BinaryBuilder,
    header_ends: Vec<i32>,
    causation: UInt64Builder,
    actor: StringBuilder,
    payload: BinaryBuilder,
    block: BinaryBuilder,
    rows: usize,
    scratch: Vec<u8>,
}

impl Builder {
    pub fn new() -> Builder {
        let time = || TimestampMicrosecondBuilder::new().with_timezone("UTC");
        Builder {
            schema: schema(),
            sequence: UInt64Builder::new(),
            event: StringBuilder::new(),
            kind: UInt8Builder::new(),
            state: BooleanBuilder::new(),
            source: StringBuilder::new(),
            key: BinaryBuilder::new(),
            id: StringBuilder::new(),
            time: time(),
            received: time(),
            traceparent: StringBuilder::new(),
            header_name: StringBuilder::new(),
            header_value: BinaryBuilder::new(),
            header_ends: vec![0],
            causation: UInt64Builder::new(),
            actor: StringBuilder::new(),
            payload: BinaryBuilder::new(),
            block: BinaryBuilder::new(),
            rows: 0,
            scratch: Vec::new(),
        }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Adds an event; `parts` are the blocks that begin before or with it.
    pub fn push(&mut self, recorded: &Recorded<'_>, parts: &[Part]) {
        let event = &recorded.event;
        self.sequence.append_value(recorded.sequence.get());
        self.event.append_value(event.name);
        self.kind.append_value(event.kind as u8);
        self.state.append_value(event.state);
        self.source.append_value(event.source);
        self.key.append_option(event.key);
        self.id.append_option(event.id);
        self.time.append_option(event.time);
        self.received.append_value(event.received);
        self.traceparent.append_option(event.traceparent);
        for (name, value) in event.headers.iter() {
            self.header_name.append_value(name);
            self.header_value.append_value(value);
        }
        self.header_ends.push(self.header_value.len_of() as i32);
        self.causation.append_option(event.causation.map(Sequence::get));
        self.actor.append_option(event.actor);
        self.payload.append_option(event.payload);
        if parts.is_empty() {
            self.block.append_null();
        } else {
            self.scratch.clear();
            for part in parts {
                part.encode(&mut self.scratch);
            }
            self.block.append_value(&self.scratch);
        }
        self.rows += 1;
    }

    /// The batch of what was pushed; the builder is empty after it.
    pub fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        self.rows = 0;
        let ends = std::mem::replace(&mut self.header_ends, vec![0]);
        let headers = StructArray::try_new(
            header_fields(),
            vec![Arc::new(self.header_name.finish()), Arc::new(self.header_value.finish())],
            None,
        )?;
        let field = Arc::new(Field::new("header", DataType::Struct(header_fields()), false));
        let headers = ListArray::try_new(field, OffsetBuffer::new(ends.into()), Arc::new(headers), None)?;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.sequence.finish()),
            Arc::new(self.event.finish()),
            Arc::new(self.kind.finish()),
            Arc::new(self.state.finish()),
            Arc::new(self.source.finish()),
            Arc::new(self.key.finish()),
            Arc::new(self.id.finish()),
            Arc::new(self.time.finish()),
            Arc::new(self.received.finish()),
            Arc::new(self.traceparent.finish()),
            Arc::new(headers),
            Arc::new(self.causation.finish()),
            Arc::new(self.actor.finish()),
            Arc::new(self.payload.finish()),
            Arc::new(self.block.finish()),
        ];
        RecordBatch::try_new(self.schema.clone(), columns)
    }
}

/// Values appended so far, under a name that does not depend on which builder trait is in scope.
trait LenOf {
    fn len_of(&self) -> usize;
}

impl LenOf for BinaryBuilder {
    fn len_of(&self) -> usize {
        arrow::array::ArrayBuilder::len(self)
    }
}

/// One block of the log as a batch gives it back.
#[derive(Clone, Debug)]
pub(crate) struct Restored {
    pub block: Block,
    pub parts: Vec<Part>,
}

/// Gives back the blocks of one record batch. The error says what does not fit.
pub(crate) fn restore(batch: &RecordBatch) -> Result<Vec<Restored>, String> {
    if batch.schema() != schema() {
        return Err("the columns are not those of a log segment".to_owned());
    }
    let column = |index: usize| batch.column(index);
    let sequence = column(0).as_primitive::<UInt64Type>();
    let event = column(1).as_string::<i32>();
    let kind = column(2).as_primitive::<UInt8Type>();
    let state = column(3).as_boolean();
    let source = column(4).as_string::<i32>();
    let key = column(5).as_binary::<i32>();
    let id = column(6).as_string::<i32>();
    let time = column(7).as_primitive::<TimestampMicrosecondType>();
    let received = column(8).as_primitive::<TimestampMicrosecondType>();
    let traceparent = column(9).as_string::<i32>();
    let headers = column(10).as_list::<i32>();
    let fields = headers.values().as_struct();
    let header_name = fields.column(0).as_string::<i32>();
    let header_value = fields.column(1).as_binary::<i32>();
    let causation = column(11).as_primitive::<UInt64Type>();
    let actor = column(12).as_string::<i32>();
    let payload = column(13).as_binary::<i32>();
    let block = column(14).as_binary::<i32>();

    let mut restored: Vec<Restored> = Vec::new();
    let mut records: Vec<u8> = Vec::new();
    let mut header_buf = HeaderBuf::new();
    let close = |restored: &mut Vec<Restored>, records: &mut Vec<u8>| {
        if let Some(last) = restored.last_mut() {
            last.block.records = Arc::new(std::mem::take(records).into());
        }
    };
    let rows = batch.num_rows();
    for row in 0..rows {
        if block.is_valid(row) {
            close(&mut restored, &mut records);
            let parts = Part::decode_all(block.value(row)).ok_or("a block's description is malformed")?;
            let last = parts.last().ok_or("a block's description is empty")?;
            let bytes: usize = parts.iter().filter(|p| !p.head.has(CARRY)).map(|p| p.head.body_len as usize).sum();
            records.reserve(bytes);
            let mark = BlockMark { first: last.head.first, digest: last.digest };
            let block = Block { mark, count: last.head.count, records: Arc::default() };
            restored.push(Restored { block, parts });
        }
        let within = restored.last().ok_or("the first event has no block")?;
        let expected =
            within.block.mark.first.get() <= sequence.value(row) && sequence.value(row) <= within.block.last().get();
        if !expected {
            return Err(format!("sequence {} stands in another block", sequence.value(row)));
        }
        header_buf.clear();
        let ends = headers.value_offsets();
        for header in ends[row] as usize..ends[row + 1] as usize {
            header_buf.push(header_name.value(header), header_value.value(header));
        }
        let headers = if header_buf.as_encoded().is_empty() { Headers::EMPTY } else { header_buf.as_headers() };
        let event = Event {
            kind: EventKind::from_code(kind.value(row)).ok_or("an event of unknown kind")?,
            state: state.value(row),
            name: event.value(row),
            source: source.value(row),
            id: id.is_valid(row).then(|| id.value(row)),
            key: key.is_valid(row).then(|| key.value(row)),
            time: time.is_valid(row).then(|| time.value(row)),
            received: received.value(row),
            traceparent: traceparent.is_valid(row).then(|| traceparent.value(row)),
            headers,
            causation: causation.is_valid(row).then(|| Sequence(causation.value(row))),
            actor: actor.is_valid(row).then(|| actor.value(row)),
            payload: payload.is_valid(row).then(|| payload.value(row)),
        };
        record::write(&event, &mut records).map_err(|(bytes, _)| format!("an event of {bytes} bytes"))?;
    }
    close(&mut restored, &mut records);
    Ok(restored)
}

/// Checks that `restored` continues the chain after `previous` with exactly its own digest, and moves `previous` on.
pub(crate) fn check_chain(restored: &Restored, previous: &mut Digest) -> Result<(), String> {
    let records = restored.block.records();
    let mut at = 0;
    for part in &restored.parts {
        let body: &[u8] = if part.head.has(CARRY) {
            &part.carry
        } else {
            let end = at + part.head.body_len as usize;
            let body = records.get(at..end).ok_or("the events are shorter than their blocks")?;
            at = end;
            body
        };
        let digest = block::digest(previous, &part.head, &part.meta, body);
        if digest != part.digest {
            return Err(format!("the digest of the block at sequence {} does not match", part.head.first));
        }
        if !part.head.has(CHUNK) && !part.head.has(CARRY) {
            record::validate(body, part.head.count)?;
        }
        *previous = digest;
    }
    if at != records.len() {
        return Err("the events are longer than their blocks".to_owned());
    }
    Ok(())
}
