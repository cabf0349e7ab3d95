//! The config directory: what was typed, what it means, where each value came from, and what is wrong with it.

pub mod codes;
pub mod database;
pub mod exporter;
mod fingerprint;
mod hide;
pub mod key;
mod load;
mod reference;
pub mod schema;
mod secret;
mod settings;
mod shared;
pub mod source;
pub mod tag;
mod token;
pub mod unit;
mod validate;
mod validate_nats;
mod validate_rabbitmq;

pub use fingerprint::Fingerprints;
pub use load::Config;
pub use secret::Secret;
pub use settings::{Flags, Settings};
pub use shared::{NatsSignInKeys, Protection, SaslMechanism, TransportKeys, is_loopback};
pub use token::{Role, TlsFiles, TokenEntry};
