//! Defects of the original that only a whole engine shows, each with its number; what is tested beside its package is not here.
//!
//! O1 is the gate `power-cut`; O33 and O34 on live connections stand in the view suite, against the same server.

#[path = "original/consistency.rs"]
mod consistency;
#[path = "original/operation.rs"]
mod operation;
#[path = "original/support.rs"]
mod support;
