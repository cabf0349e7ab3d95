//! The deck's scenario, driven and looked at with tools that nobody here wrote: one event into two databases with two exporters
//! behind them, and every way in into every kind of database.

mod both;
mod matrix;
mod store;
