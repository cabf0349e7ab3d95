//! A connection, verified TLS included. The client neither reconnects nor recovers by itself: the first loss ends the
//! connection, and whoever owns it begins anew, so that no tag and no confirmation outlives its channel.

use std::time::Duration;

use gravity_model::{Fault, FaultKind};
use lapin::tcp::{AsyncTcpStream, RustlsConnector};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{Connection, ConnectionProperties};
use rustls::ClientConfig;

use super::config::RabbitMqConnection;
use super::error::of_connect;
use crate::tls::TlsFiles;

/// Limit of a connection from the first packet to the greeting, and of any other question to the broker.
pub(super) const ASK_LIMIT: Duration = Duration::from_secs(10);
/// A half-open connection is noticed after two of these, in seconds.
const HEARTBEAT: u16 = 10;

/// Connects as `owner` (`source NAME`, `exporter NAME`).
pub(super) async fn connect(owner: &str, to: &RabbitMqConnection) -> Result<Connection, Fault> {
    let doing = || format!("connect {owner} to rabbitmq at {}", to.place());
    let tls = match to.secure {
        false => None,
        true => {
            let files = TlsFiles { ca: to.ca_file.clone(), cert: to.cert_file.clone(), key: to.key_file.clone() };
            Some(files.client_config(owner, "rabbitmq-tls")?)
        }
    };
    let runtime = lapin::runtime::default_runtime().map_err(|error| of_connect(error, doing()))?;
    let properties = ConnectionProperties::default().with_connection_name(format!("gravity {owner}").into());
    let (host, port) = (to.host.trim_start_matches('[').trim_end_matches(']').to_owned(), to.port);
    let open = Connection::connector(
        uri(to),
        runtime,
        async move |_, runtime| {
            let mut failed = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
            for address in tokio::net::lookup_host((host.as_str(), port)).await? {
                match AsyncTcpStream::connect(&runtime, address).await {
                    Err(error) => failed = error,
                    Ok(stream) => match &tls {
                        None => return Ok(stream),
                        Some(config) => return encrypted(stream, config.clone(), &host).await,
                    },
                }
            }
            Err(failed.into())
        },
        properties,
    );
    match tokio::time::timeout(ASK_LIMIT, open).await {
        Ok(opened) => opened.map_err(|error| of_connect(error, doing())),
        Err(_) => {
            let detail = format!("the broker did not answer within {ASK_LIMIT:?}");
            Err(Fault::new(FaultKind::Disconnected, "rabbitmq-unreachable", doing(), detail))
        }
    }
}

/// The client's own way to TLS stays in the clear where its features are wrong; this one cannot.
async fn encrypted<S>(stream: AsyncTcpStream<S>, config: ClientConfig, host: &str) -> lapin::Result<AsyncTcpStream<S>>
where
    S: futures::io::AsyncRead + futures::io::AsyncWrite + Send + Unpin + 'static,
{
    let encrypted = stream.into_rustls(&RustlsConnector::from(config), host).await?;
    match &encrypted {
        AsyncTcpStream::Rustls(_) => Ok(encrypted),
        _ => Err(std::io::Error::other("the connection is not encrypted").into()),
    }
}

fn uri(to: &RabbitMqConnection) -> AMQPUri {
    AMQPUri {
        scheme: if to.secure { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo { username: to.username.clone(), password: to.password.clone() },
            host: to.host.clone(),
            port: to.port,
        },
        vhost: to.virtual_host.clone(),
        query: AMQPQueryString { heartbeat: Some(HEARTBEAT), ..AMQPQueryString::default() },
    }
}

/// A question to the broker, with a limit.
pub(super) async fn ask<T>(
    question: impl Future<Output = lapin::Result<T>>,
    doing: impl Fn() -> String,
) -> Result<T, Fault> {
    match tokio::time::timeout(ASK_LIMIT, question).await {
        Ok(answer) => answer.map_err(|error| super::error::of_channel(error, doing())),
        Err(_) => {
            let detail = format!("the broker did not answer within {ASK_LIMIT:?}");
            Err(Fault::new(FaultKind::Disconnected, "rabbitmq-no-answer", doing(), detail))
        }
    }
}
