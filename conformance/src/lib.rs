//! Contract suites per port, scenarios and fault gates: what shows that the promises hold.

pub mod torture;
pub mod view_suite;
