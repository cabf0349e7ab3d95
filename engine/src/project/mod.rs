//! From the log into the views: judge, fold, park, commit; one task per route.

pub mod apply;
pub mod build;
pub mod decide;
pub mod evaluate;
pub mod fold;
pub mod gauge;
pub mod lanes;
mod look;
pub mod park;
pub mod prepare;
pub mod route;
