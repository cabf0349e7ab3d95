//! The real binary from outside: started as a child, driven and looked at with tools that nobody here wrote.
//!
//! `psql`, `mariadb`, `sqlite3`, `kcat`, `nats`, `amqp-publish`, `curl` are child processes; rows and messages are compared as those
//! tools print them. Nothing in here knows the engine's types, so that a wrong notion shared by engine and test cannot hide.

pub mod broker;
pub mod command;
pub mod door;
pub mod engine;
pub mod folder;
pub mod hook;
pub mod proxy;
pub mod server;
pub mod tools;

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// The value of a server's variable; says that the test is skipped where it is not set.
pub fn under_test(variable: &str) -> Option<String> {
    let value = std::env::var(variable).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        println!("skipped: {variable} is not set");
    }
    value
}

/// `HOST:PORT` of the Kafka under test.
pub fn kafka() -> Option<String> {
    under_test("GRAVITY_TEST_KAFKA")
}

/// `postgres://USER@HOST:PORT/DATABASE` of the PostgreSQL under test.
pub fn postgres() -> Option<String> {
    under_test("GRAVITY_TEST_POSTGRES")
}

/// `mysql://USER@HOST:PORT/` of the MariaDB under test.
pub fn mariadb() -> Option<String> {
    under_test("GRAVITY_TEST_MARIADB")
}

/// `HOST:PORT` of the NATS under test.
pub fn nats() -> Option<String> {
    under_test("GRAVITY_TEST_NATS")
}

/// `HOST:PORT` of the RabbitMQ under test.
pub fn rabbitmq() -> Option<String> {
    under_test("GRAVITY_TEST_RABBITMQ")
}

/// Looks until `holds`; fails after 30 s with what was seen last.
#[track_caller]
pub fn eventually<T: Debug>(mut look: impl FnMut() -> T, holds: impl Fn(&T) -> bool) -> T {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let seen = look();
        if holds(&seen) {
            return seen;
        }
        assert!(Instant::now() < until, "still {seen:#?}");
        std::thread::sleep(Duration::from_millis(25));
    }
}
