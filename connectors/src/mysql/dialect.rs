//! What MariaDB and MySQL spell differently, and what a server said about itself.

use std::fmt;

/// Whose words the server understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flavor {
    MariaDb,
    MySql,
}

/// Flavor and version; decides the spelling of statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dialect {
    pub flavor: Flavor,
    pub version: (u16, u16, u16),
}

impl Dialect {
    /// What is assumed before the first connection.
    pub const ASSUMED: Dialect = Dialect { flavor: Flavor::MariaDb, version: (10, 11, 0) };

    /// From `VERSION()`: `10.11.19-MariaDB-0+deb12u1`, `8.0.36`.
    pub fn parse(text: &str) -> Dialect {
        let flavor = if text.to_ascii_lowercase().contains("mariadb") { Flavor::MariaDb } else { Flavor::MySql };
        let mut numbers = text.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        Dialect { flavor, version: (next(), next(), next()) }
    }

    /// The oldest version that has all that statements use: checked columns and exact collations in MariaDB; the row alias of
    /// `ON DUPLICATE KEY UPDATE` in MySQL.
    pub fn oldest(self) -> (u16, u16, u16) {
        match self.flavor {
            Flavor::MariaDb => (10, 4, 3),
            Flavor::MySql => (8, 0, 19),
        }
    }

    /// The collation under which texts are equal only when their bytes are: not padded, not folded.
    pub fn exact_collation(self) -> &'static str {
        match self.flavor {
            Flavor::MariaDb => "utf8mb4_nopad_bin",
            Flavor::MySql => "utf8mb4_0900_bin",
        }
    }

    /// MariaDB has a type of its own from 10.7 on.
    pub fn has_uuid(self) -> bool {
        self.flavor == Flavor::MariaDb && self.version >= (10, 7, 0)
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.flavor {
            Flavor::MariaDb => "MariaDB",
            Flavor::MySql => "MySQL",
        };
        write!(f, "{name} {}.{}.{}", self.version.0, self.version.1, self.version.2)
    }
}

/// What a connection learned of its server.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub dialect: Dialect,
    /// The database that unqualified names stand in.
    pub database: String,
    /// Bytes of the longest message that the server takes.
    pub max_packet: usize,
    /// `lower_case_table_names` is not 0: names of tables in other letters are the same table.
    pub folds_names: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let dialect = Dialect::parse("10.11.19-MariaDB-0+deb12u1");
        assert_eq!((dialect.flavor, dialect.version), (Flavor::MariaDb, (10, 11, 19)));
        assert!(dialect.has_uuid());
        let dialect = Dialect::parse("8.0.36");
        assert_eq!((dialect.flavor, dialect.version), (Flavor::MySql, (8, 0, 36)));
        assert!(dialect.version >= dialect.oldest() && !dialect.has_uuid());
        assert!(Dialect::parse("5.7.44-log").version < Dialect::parse("5.7.44-log").oldest());
    }
}
