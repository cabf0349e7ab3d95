//! Out of the engine: messages about what a view shows, after it shows it.

mod backlog;
mod decide;
pub mod gauge;
pub mod key;
pub mod message;
mod outgoing;
mod progress;
mod select;
mod send;
pub mod task;
#[cfg(test)]
mod tests;
