//! A server that a test owns.
