//! Contract suites per port, scenarios and fault gates: what shows that the promises hold.

pub mod blackbox;
pub mod certificate;
pub mod engine_rig;
pub mod export_suite;
pub mod kafka_rig;
pub mod local_http;
pub mod log_suite;
pub mod nats_rig;
pub mod rabbitmq_rig;
pub mod source_suite;
pub mod torture;
pub mod type_matrix;
pub mod view_suite;
pub mod webhook_receiver;
