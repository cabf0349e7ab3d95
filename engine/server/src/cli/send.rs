//! `gravity send`: publish one event, and hear that it is durable.

use std::io::Read;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{EngineArgs, block_on, step};
use super::exit::{Exit, Failure};
use super::show;

/// Publish one event; answers once it is durable.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  gravity send userCreated '{\"id\": 1, \"name\": \"Fred\"}'\n  gravity send orderPlaced - --key 42 < order.json"
)]
pub struct Args {
    /// Name of the event.
    event: String,
    /// The payload: JSON, or `-` for standard input.
    json_payload: String,
    /// Name of an http source. Needed where there are several and none is named `http`.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Event key: events of one key keep their order.
    #[arg(long)]
    key: Option<String>,
    /// The event's id; a second event with the same id is taken for a repetition.
    #[arg(long)]
    id: Option<String>,
    /// One JSON document on stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(Deserialize, serde::Serialize)]
pub struct Answer {
    pub first: Option<u64>,
    pub last: Option<u64>,
    #[serde(default)]
    pub duplicates: u64,
}

/// The event as the API takes it; the payload's digits stay as they were typed.
#[derive(serde::Serialize)]
struct Event<'a> {
    event: &'a str,
    payload: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
}

pub fn run(args: Args) -> Result<Exit, Failure> {
    let mut payload = args.json_payload.clone();
    if payload == "-" {
        payload.clear();
        std::io::stdin()
            .read_to_string(&mut payload)
            .map_err(|error| Failure::usage("cannot read standard input").because(&error))?;
    }
    let payload: Box<RawValue> = serde_json::from_str(&payload).map_err(|error| {
        Failure::usage("the payload is no JSON").because(&error).hint("quote it for the shell: '{\"id\": 1}'")
    })?;
    let event = Event { event: &args.event, payload: &payload, key: args.key.as_deref(), id: args.id.as_deref() };
    let body = serde_json::to_vec(&event).map_err(|error| Failure::failed("cannot write JSON").because(&error))?;
    let path = match &args.source {
        Some(source) => format!("/v1/events/{}", step(source)),
        None => "/v1/events".to_owned(),
    };
    block_on(async {
        let client = args.engine.connect()?;
        // A repeated request after a lost answer must not become a second event.
        let answer: Answer = client.post_events(&path, &uuid::Uuid::new_v4().to_string(), body).await?;
        if args.json {
            show::json(&answer)?;
        } else {
            match answer.first {
                Some(sequence) => show::say(&format!("{} is sequence {}, durable", args.event, show::count(sequence))),
                None => show::say("the log has an event of this id already: nothing was added"),
            }
        }
        Ok(Exit::Done)
    })
}
