//! Exporters behind a whole engine: what an endpoint's answer makes of a message and of its subscription (SEMANTICS 5.4),
//! and that a dead one holds back nobody else (P6).

mod dead;
mod refusals;
mod rotation;
mod support;
