//! What `describe` and `inspect` say of MariaDB tables that a DBA made.
