//! The ports: what a connector must do, and nothing about how the engine drives it.

pub mod export;
pub mod source;
pub mod view;
