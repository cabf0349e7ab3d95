//! Protocol only: brokers, databases and endpoints behind the ports of gravity-model.

#[cfg(any(feature = "nats", feature = "rabbitmq"))]
mod cause;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod memory;
#[cfg(feature = "mongodb")]
pub mod mongodb;
#[cfg(feature = "sql")]
pub mod mysql;
#[cfg(feature = "nats")]
pub mod nats;
#[cfg(feature = "sql")]
pub mod postgres;
#[cfg(any(feature = "kafka", feature = "nats", feature = "rabbitmq"))]
mod printable;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
#[cfg(any(feature = "sql", feature = "mongodb"))]
mod sql;
#[cfg(any(feature = "sql", feature = "mongodb"))]
pub use sql::Bookkeeping;
#[cfg(feature = "sql")]
pub mod sqlite;
#[cfg(any(feature = "http", feature = "nats", feature = "rabbitmq"))]
mod tls;
