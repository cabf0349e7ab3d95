//! Doubles of the ports: everything in memory, with faults that a test scripts.

pub mod view;
