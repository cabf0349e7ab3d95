//! Doubles of the ports: everything in memory, with faults that a test scripts.

pub mod export;
pub mod source;
pub mod view;
