//! From the log into the views: judge, fold, park, commit; one task per route.

pub mod apply;
pub mod build;
pub mod combine;
pub mod decide;
pub mod evaluate;
pub mod fold;
#[cfg(test)]
mod fold_tests;
pub mod gauge;
pub mod lanes;
mod look;
pub mod park;
pub mod prepare;
pub mod route;
