//! What the SQL databases share: names, statement text, bookkeeping rows and the text forms of values.
//!
//! Nothing here opens a connection. MongoDB shares the names, the bookkeeping's comparisons and how texts are read.

#[cfg(feature = "sql")]
pub(crate) mod bookkeeping;
pub(crate) mod checkpoint;
#[cfg(feature = "sql")]
pub(crate) mod inspect;
pub(crate) mod join;
pub(crate) mod name;
#[cfg(feature = "sql")]
pub(crate) mod rows;
#[cfg(feature = "sql")]
pub(crate) mod statement;
pub(crate) mod text;

/// Whether the bookkeeping tables are made when they are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bookkeeping {
    /// `open` creates them.
    #[default]
    Auto,
    /// A DBA creates them; a missing one is a fault that carries its DDL.
    Manual,
}

/// How far the server's identity is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Encrypted, certificate chain and host name verified.
    #[default]
    VerifyFull,
    /// Encrypted, certificate chain verified, any host name.
    VerifyChain,
    /// Encrypted, nothing verified.
    Unverified,
    /// Plain text.
    Off,
}
