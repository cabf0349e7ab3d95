//! rules.json: read, validate, compile, evaluate. Pure: no I/O, no clock, no randomness (P9).
//!
//! [`load`] reads files into a [`RuleSet`] or says everything that is wrong with them; [`RuleSet::compile`] joins the rules
//! of one route with the live tables; [`RouteProgram::evaluate`] turns the raw bytes of an event into changes.

mod capture;
pub mod codes;
mod compile;
mod convert;
pub mod diagnose;
mod evaluate;
mod evaluation;
mod expression;
pub mod file;
mod ident;
mod load;
mod outline;
mod path;
mod ruleset;
mod scan;
pub mod schema;
mod trie;

pub use compile::RouteProgram;
pub use convert::json_text;
pub use evaluation::{Change, ChangeOp, Evaluation, Refusal, Verdict};
pub use load::{Context, DatabaseContext, DatabaseKind, Ddl, load};
pub use outline::RuleOutline;
pub use ruleset::{RuleSet, Subscription};
pub use scan::{MAX_DEPTH, look};
