//! Sealed history: Arrow IPC segments.
use gravity_model::Sequence;
pub(crate) struct Entry {
    pub first: Sequence,
}
pub(crate) struct Segment {
    pub entry: Entry,
}
