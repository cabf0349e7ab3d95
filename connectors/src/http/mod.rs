//! The `restful_api` exporter: one POST per message to an endpoint that is not trusted.

mod address;
mod config;
mod exporter;
mod reply;
mod signing;

pub use address::{Lookup, is_private};
pub use config::{HttpExporterOptions, Limits};
pub use exporter::HttpExporter;
pub use signing::{MOST_SECRETS, SigningKey};
