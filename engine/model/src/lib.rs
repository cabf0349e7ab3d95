//! The words that every other package speaks, and the ports that join them.
//!
//! Leaf of the workspace: no runtime, no clients, no files, no clock. A type moves in only when two packages speak it.

pub mod capture;
pub mod change;
pub mod checkpoint;
pub mod decimal;
pub mod event;
pub mod failpoint;
pub mod fault;
pub mod ident;
pub mod join;
pub mod port;
pub mod shape;
pub mod text;
pub mod value;

pub use capture::{CAPTURE_HEADER, Captured, RowChange};
pub use change::{ChangeBatch, ColumnOp, ColumnSet, RowGroup, RowOp, Step, TableChanges};
pub use checkpoint::{Checkpoint, Counters};
pub use event::{Event, EventKind, HeaderBuf, Headers, Micros, Recorded};
pub use fault::{Fault, FaultKind, Policy};
pub use ident::{BlockMark, Epoch, Fence, LogId, OwnerId, Sequence};
pub use join::JoinRefusal;
pub use shape::{ColumnShape, ColumnType, TableShape};
pub use text::Text;
pub use value::Value;
