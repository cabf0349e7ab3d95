//! What only a MySQL server can show.
