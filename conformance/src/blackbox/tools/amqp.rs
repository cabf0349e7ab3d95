//! `amqp-publish` and its like: RabbitMQ by the tools of rabbitmq-c, which give a message neither id nor key.

use std::process::{Command, Stdio};

use crate::blackbox::command::Ended;

fn tool(name: &str, address: &str) -> Command {
    let (host, port) = address.rsplit_once(':').expect("HOST:PORT");
    let mut command = Command::new(name);
    command.args(["--server", host, "--port", port]).stdin(Stdio::null());
    command
}

/// Makes a durable classic queue.
#[track_caller]
pub fn amqp_declare_queue(address: &str, queue: &str) {
    Ended::run(tool("amqp-declare-queue", address).args(["-d", "-q", queue])).expect(0);
}

/// Publishes one persistent message to a queue, exactly these bytes, of which there may be none.
#[track_caller]
pub fn amqp_publish(address: &str, queue: &str, headers: &[(&str, &str)], body: &str) {
    let mut command = tool("amqp-publish", address);
    command.args(["-p", "-C", "application/json", "-r", queue, "-b", body]);
    for (name, value) in headers {
        command.args(["-H", &format!("{name}: {value}")]);
    }
    Ended::run(&mut command).expect(0);
}
