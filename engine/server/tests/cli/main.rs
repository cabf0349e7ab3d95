//! The real binary from outside: files in, commands run, output and exit codes looked at.

mod bad;
mod check;
mod commands;
mod demo;
mod import;
mod rule_tests;
mod run;
mod support;
mod tokens;
