//! A view store in memory.
