//! The log's interface: append, read, state, positions. Narrow, so that a replicated log can take its place one day.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gravity_model::ident::BlockMark;
use gravity_model::port::source::Position;
use gravity_model::{Event, Fence, LogId, OwnerId, Recorded, Sequence};
use tokio::sync::{oneshot, watch};

use crate::record::{self, Records};

/// Which store keeps the hot generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HotStore {
    #[default]
    Sled,
    /// The raw-segment twin: yardstick of benchmarks, oracle of tests.
    Raw,
}

/// How a log is opened. Sizes in bytes.
#[derive(Clone, Debug)]
pub struct LogOptions {
    pub directory: PathBuf,
    pub hot: HotStore,
    /// A block is closed at this many uncompressed bytes. 512 KiB by default, which packs to about 125 KiB.
    pub block_bytes: usize,
    /// ... or this long after its first event. 2 ms by default.
    pub linger: Duration,
    /// A hot generation is rolled at this many bytes on disk (256 MiB), 2,000 trees, or `generation_age` (1 h).
    pub generation_bytes: u64,
    pub generation_age: Duration,
    /// `append` answers [`LogError::Busy`] while more uncompressed bytes than this wait for the disk. 16 MiB by default.
    pub queue_bytes: usize,
    /// The newest blocks kept in memory for tail readers, uncompressed. 16 MiB by default.
    pub ring_bytes: usize,
    /// Dedupe window: entries older than `dedupe_age` (7 days) or beyond `dedupe_bytes` (1 GiB) go, oldest first.
    pub dedupe_age: Duration,
    pub dedupe_bytes: u64,
    /// Called with one line when a sync failed: what the disk holds is unknown, so nothing may go on from memory. Ends the
    /// process with [`EXIT_DISK`]; tests put something milder here, after which the log stays closed.
    pub fatal: fn(&str),
}

/// Exit code of a process whose disk failed a sync.
pub const EXIT_DISK: i32 = 74;

/// One event, its record header included, is at most this large.
pub const MAX_EVENT_BYTES: usize = 64 << 20;

/// One batch is at most this large, so that a hot generation stays bounded.
pub const MAX_BATCH_BYTES: usize = 128 << 20;

fn exit_because_of_the_disk(line: &str) {
    tracing::error!(error = line, "the disk failed a sync: leaving, the next start reads what is really there");
    eprintln!("gravity: {line}");
    std::process::exit(EXIT_DISK)
}

impl LogOptions {
    pub fn new(directory: impl Into<PathBuf>) -> LogOptions {
        LogOptions {
            directory: directory.into(),
            hot: HotStore::Sled,
            block_bytes: 512 << 10,
            linger: Duration::from_millis(2),
            generation_bytes: 256 << 20,
            generation_age: Duration::from_secs(3600),
            queue_bytes: 16 << 20,
            ring_bytes: 16 << 20,
            dedupe_age: Duration::from_secs(7 * 24 * 3600),
            dedupe_bytes: 1 << 30,
            fatal: exit_because_of_the_disk,
        }
    }
}

/// Who we are to the databases that we write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub log_id: LogId,
    /// Grew by one at this opening.
    pub fence: Fence,
    /// Random, of this opening.
    pub owner: OwnerId,
    /// Owners of this log's earlier openings that the log still knows, this one included.
    pub owners: Vec<OwnerId>,
}

/// First and last sequence, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceRange {
    pub first: Sequence,
    pub last: Sequence,
}

/// Names what must be in the log once: a digest of (source, scope, id), made by ingest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DedupeKey(pub [u8; 16]);

/// Kept in the block header beside the events it speaks of, so that both become durable in one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DedupeEntry {
    pub key: DedupeKey,
    /// BLAKE3-128 of the body, so that another body under the same key is noticed.
    pub body: [u8; 16],
    /// Index of the first event in the batch that the key stands for.
    pub event: u32,
    /// How many events from there on.
    pub count: u32,
}

/// What the log remembers under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DedupeHit {
    pub body: [u8; 16],
    pub first: Sequence,
    pub count: u32,
}

/// A stretch of the log's life without a failed write. When a write fails, all appends under way fail with it, and what is
/// taken after the log opened again belongs to the next epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub(crate) u64);

/// Events on their way into the log, with the positions and dedupe keys that become durable with them. Taken whole or not
/// at all, whatever its size.
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) records: Vec<u8>,
    pub(crate) count: u32,
    /// (index, offset in `records`) of the state events, so that the committer need not look for them.
    pub(crate) states: Vec<(u32, u32)>,
    /// (source, slot, position) after the last event of this batch; a later entry for the same slot wins.
    pub(crate) positions: Vec<(String, String, Position)>,
    pub(crate) dedupe: Vec<DedupeEntry>,
    /// The first thing pushed that is larger than the log takes: (bytes, limit). `append` refuses the whole batch.
    pub(crate) too_large: Option<(usize, usize)>,
    pub(crate) required: Option<Epoch>,
}

impl Batch {
    pub fn new() -> Batch {
        Batch::default()
    }

    /// With room for `bytes` of records.
    pub fn with_capacity(bytes: usize) -> Batch {
        Batch { records: Vec::with_capacity(bytes), ..Batch::default() }
    }

    /// Appends one event in record encoding. What is larger than the log takes is noted and refused by `append`.
    pub fn push(&mut self, event: &Event<'_>) {
        if self.too_large.is_some() {
            return;
        }
        let start = self.records.len();
        if let Err(too_large) = record::write(event, &mut self.records) {
            self.too_large = Some(too_large);
            return;
        }
        if self.records.len() > MAX_BATCH_BYTES {
            self.too_large = Some((self.records.len(), MAX_BATCH_BYTES));
        }
        if event.state {
            self.states.push((self.count, start as u32));
        }
        self.count += 1;
    }

    /// One position may stand for several pushes; those of one (source, slot) must not go backwards.
    pub fn set_position(&mut self, source: &str, slot: &str, position: Position) {
        match self.positions.iter_mut().find(|(s, p, _)| s == source && p == slot) {
            Some((_, _, held)) => *held = position,
            None => self.positions.push((source.to_owned(), slot.to_owned(), position)),
        }
    }

    /// Makes `append` refuse this batch ([`LogError::WriteFailed`]) once `epoch` is over: so it stands behind every append of
    /// that epoch, or nowhere. Without it, a batch that waited for room could be stored although the one before it failed.
    pub fn require(&mut self, epoch: Epoch) {
        self.required = Some(epoch);
    }

    pub fn remember(&mut self, entry: DedupeEntry) {
        self.dedupe.push(entry);
    }

    pub fn len(&self) -> usize {
        self.count as usize
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Uncompressed size in bytes.
    pub fn bytes(&self) -> usize {
        self.records.len()
    }

    /// Whether what the batch requires still holds in `epoch`.
    pub(crate) fn check(&self, epoch: Epoch) -> Result<(), LogError> {
        if let Some((bytes, limit)) = self.too_large {
            return Err(LogError::TooLarge { bytes, limit });
        }
        match self.required {
            Some(required) if required != epoch => {
                Err(LogError::WriteFailed { detail: "an append before this one failed".to_owned() })
            }
            _ => Ok(()),
        }
    }
}

/// Promise that an appended batch will be durable, or the news that it never was.
#[derive(Debug)]
pub struct Ticket {
    pub range: SequenceRange,
    pub epoch: Epoch,
    pub(crate) done: oneshot::Receiver<Result<(), LogError>>,
}

impl Ticket {
    /// Ready when this batch and everything before it are on disk (fdatasync returned). An error means that the batch is
    /// not in the log and its sequences will be given to other events.
    pub async fn durable(self) -> Result<SequenceRange, LogError> {
        match self.done.await {
            Ok(Ok(())) => Ok(self.range),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(LogError::Closed),
        }
    }

    /// The same for a thread without a runtime.
    pub fn wait(self) -> Result<SequenceRange, LogError> {
        match self.done.blocking_recv() {
            Ok(Ok(())) => Ok(self.range),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(LogError::Closed),
        }
    }
}

/// Durable events of one block, decoded; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub mark: BlockMark,
    pub count: u32,
    pub(crate) records: Arc<bytes::Bytes>,
}

impl Block {
    pub fn last(&self) -> Sequence {
        Sequence(self.mark.first.get() + u64::from(self.count) - 1)
    }

    /// The uncompressed records; slices of it are how values share the block's memory.
    pub fn records(&self) -> &Arc<bytes::Bytes> {
        &self.records
    }

    /// Events in order. Nothing is allocated; all slices borrow from the block.
    pub fn iter(&self) -> Records<'_> {
        Records::new(&self.records, self.mark.first)
    }

    /// The event at `sequence`, if this block holds it.
    pub fn event(&self, sequence: Sequence) -> Option<Recorded<'_>> {
        self.iter().find(|recorded| recorded.sequence == sequence)
    }
}

/// Bounds of one `read`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimits {
    /// Stops after the block that reaches this many events ...
    pub events: usize,
    /// ... or uncompressed bytes. At least one block is returned if there is one.
    pub bytes: usize,
}

/// One entry of live state: the newest state event of (`name`, `key`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateEntry {
    pub name: String,
    pub key: String,
    pub sequence: Sequence,
    pub payload: Vec<u8>,
}

/// How the log is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    Running,
    /// A write failed (disk full, EIO); appends fail, reads go on; it reopens by itself once a probe write succeeds.
    WriteFailed {
        detail: String,
    },
    Closed,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogStat {
    /// First sequence that can still be read; 1 unless retention passed it.
    pub first: Sequence,
    /// Last durable sequence; 0 in an empty log.
    pub last: Sequence,
    /// On disk in all.
    pub bytes: u64,
    /// Of these in hot generations.
    pub hot_bytes: u64,
    pub hot_generations: u32,
    pub segments: u32,
    pub blocks: u64,
    /// Files in sled's `blobs/`: must be 0 (fault L29).
    pub sled_blobs: u64,
    pub dedupe_entries: u64,
    /// Oldest sequence that the dedupe window still holds.
    pub dedupe_from: Sequence,
}

/// What `verify` found in a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    pub blocks: u64,
    pub events: u64,
    pub bytes: u64,
    /// Digest of the newest block, for anchoring elsewhere.
    pub head: gravity_model::ident::Digest,
    /// Unreadable or altered: (what, first sequence, last sequence, why).
    pub bad: Vec<(String, SequenceRange, String)>,
}

/// Why the log would not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The committer's queue is full: wait for `room`.
    #[error("the log's queue is full")]
    Busy,
    /// The batch did not reach the disk; the log reopens by itself.
    #[error("the log cannot write: {detail}")]
    WriteFailed { detail: String },
    #[error("event of {bytes} bytes is larger than {limit}")]
    TooLarge { bytes: usize, limit: usize },
    /// Another process holds the directory.
    #[error("{directory} is in use by process {pid}")]
    Locked { directory: PathBuf, pid: String },
    /// Written by a newer or foreign program, or outside the safe envelope; nothing was changed.
    #[error("{path}: {detail}")]
    Refused { path: PathBuf, detail: String },
    /// Data that was durable is damaged. Never "end of log".
    #[error("{what}: sequences {}..={} cannot be read: {detail}", range.first, range.last)]
    Damaged { what: String, range: SequenceRange, detail: String },
    #[error("sequence {wanted} is not in the log ({first}..={last})")]
    OutOfRange { wanted: Sequence, first: Sequence, last: Sequence },
    #[error("{path}: {detail}")]
    Io { path: PathBuf, detail: String },
    #[error("the log is closed")]
    Closed,
}

/// The event log. Cheap to share behind an `Arc`.
///
/// ```text
///   sealed segments        hot generation (sealing)   hot generation (filling)     in flight
///  |1 ................ n| |n+1 ................. m | |m+1 ............ durable| |.. assigned |
/// ```
///
/// Readers see durable, closed events only. A batch of several blocks is invisible until its last block is durable.
#[async_trait::async_trait]
pub trait EventLog: Send + Sync {
    fn identity(&self) -> &Identity;

    /// Assigns sequences and enqueues. Order of calls = order in the log. Never waits. Takes the batch's contents and leaves it
    /// empty; on an error the batch is left as it was, so that the caller can wait for `room` and try again.
    fn append(&self, batch: &mut Batch) -> Result<Ticket, LogError>;

    /// The same for what nobody waits for: prefix-durable with whatever is committed next, at the latest after 250 ms.
    /// Never [`LogError::Busy`]: what nobody waits for is small and rare.
    fn append_lazy(&self, batch: Batch) -> Result<SequenceRange, LogError>;

    /// Waits until `append` would not answer [`LogError::Busy`]. Cancel-safe.
    async fn room(&self) -> Result<(), LogError>;

    /// The last durable sequence, woken by commits. Tail readers wait on it; nothing polls.
    fn durable(&self) -> watch::Receiver<Sequence>;

    fn health(&self) -> watch::Receiver<Health>;

    /// Whole blocks that hold sequences after `after`, in order: the first block may begin at or before `after`. Empty at
    /// the end of the log. May read from disk: call it where blocking is allowed.
    fn read(&self, after: Sequence, limits: ReadLimits) -> Result<Vec<Block>, LogError>;

    /// As `read`, from memory only: `None` where the disk would be needed. Never blocks.
    fn read_recent(&self, after: Sequence, limits: ReadLimits) -> Option<Vec<Block>>;

    /// The block that holds `sequence`; the default mark for sequence 0. May read from disk.
    fn block_mark(&self, sequence: Sequence) -> Result<BlockMark, LogError>;

    /// Durable positions of one source, by slot.
    fn positions(&self, source: &str) -> Vec<(String, Position)>;

    /// Live state: the newest durable state event of each (name, key), by sequence.
    fn state(&self) -> Vec<StateEntry>;

    /// Durable dedupe entries, one answer per key. May read from disk.
    fn dedupe(&self, keys: &[DedupeKey]) -> Result<Vec<Option<DedupeHit>>, LogError>;

    fn stat(&self) -> LogStat;

    /// Re-reads the range: checksums, digest chain, gapless sequences. `progress` gets events done so far. Blocking.
    fn verify(&self, range: Option<SequenceRange>, progress: &mut dyn FnMut(u64)) -> Result<Verified, LogError>;

    /// Commits what waits, finishes or abandons sealing, gives the directory back. Blocking. Idempotent.
    fn close(&self);
}
