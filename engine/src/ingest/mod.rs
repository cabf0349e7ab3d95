//! Into the log: one loop for all pull sources, one intake for what is pushed, one decoder for both.

pub mod append;
pub mod body;
pub mod book;
mod digest;
pub mod envelope;
pub mod gauge;
pub mod in_flight;
pub mod intake;
mod kept_headers;
mod last_delete;
pub mod letters;
pub mod repeats;
pub mod request;
mod retry;
pub mod sources;
pub mod task;
