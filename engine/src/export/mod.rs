//! Out of the engine: messages about what a view shows, after it shows it.

pub mod gauge;
pub mod key;
pub mod message;
pub mod task;
