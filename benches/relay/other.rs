//! The same load on any other service: it posts requests to it, listens in the place of its provider, and tells which
//! of the provider's requests came of which.

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crisis_relay::simulator::SimulatorConfig;

use super::load::{Form, Pace, Target, fire};
use super::provider::Provider;
use super::scenarios::without_receipts;
use super::statistics::Times;

#[derive(clap::Args)]
pub(crate) struct LoadOptions {
    /// The service.
    #[arg(long, value_name = "ADDRESS:PORT")]
    target: SocketAddr,
    /// What is posted to.
    #[arg(long, default_value = "/", value_name = "PATH")]
    path: String,
    /// Where the provider that the service calls is played: any POST is answered as Twilio answers one.
    #[arg(long, value_name = "ADDRESS:PORT")]
    provider: SocketAddr,
    /// The body; `{id}` stands for a word that no other request has.
    #[arg(long, value_name = "TEXT")]
    body: String,
    /// Headers, as `Name: value`; `{id}` as in the body.
    #[arg(long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// The field of the JSON answer with the word that stands in the provider's request, too; if not given, the request's
    /// own `{id}` does.
    #[arg(long, value_name = "FIELD")]
    answer_field: Option<String>,
    /// Requests a second; 0 for a burst.
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// How many.
    #[arg(long, default_value_t = 2_000)]
    count: usize,
    /// Connections of a burst.
    #[arg(long, default_value_t = 256)]
    connections: usize,
}

fn id(no: usize) -> String {
    format!("load-{no:08}")
}

fn target(options: &LoadOptions) -> Target {
    let (path, body, headers) = (options.path.clone(), options.body.clone(), options.headers.clone());
    let split =
        |header: &String| header.split_once(':').map(|(name, value)| (name.trim().to_owned(), value.to_owned()));
    let (fixed, varying): (Vec<_>, Vec<_>) =
        headers.iter().filter_map(split).partition(|(_, value)| !value.contains("{id}"));
    Target {
        address: options.target,
        headers: fixed.into_iter().map(|(name, value)| (name, value.trim().to_owned())).collect(),
        request: Box::new(move |no| Form {
            path: path.clone(),
            headers: varying
                .iter()
                .map(|(name, value)| (name.clone(), value.trim().replace("{id}", &id(no))))
                .collect(),
            body: body.replace("{id}", &id(no)),
        }),
    }
}

pub(crate) fn load(options: &LoadOptions) -> Result<(), Box<dyn Error + Send + Sync>> {
    let provider = Provider::start(SimulatorConfig { bind: options.provider, ..without_receipts() })?;
    let pace = match options.rate {
        rate if rate > 0.0 => Pace::PerSecond(rate),
        _ => Pace::AtOnce { connections: options.connections },
    };
    let begun = Instant::now();
    let shots = fire(target(options), pace, options.count);
    let accepted: Vec<_> = shots.iter().filter(|shot| (200..300).contains(&shot.status)).collect();
    provider.arrivals.wait_for(accepted.len(), Duration::from_secs(5));
    let seen = provider.arrivals.by_word();
    let word = |no: usize, answer: &[u8]| match &options.answer_field {
        Some(field) => {
            let answer: serde_json::Value = serde_json::from_slice(answer).unwrap_or_default();
            answer[field.as_str()].as_str().unwrap_or_default().to_owned()
        }
        None => id(no),
    };
    let through: Times = accepted
        .iter()
        .filter_map(|shot| Some(*seen.get(&word(shot.no, &shot.answer))?.first()? - shot.sent))
        .collect();
    let accept: Times = accepted.iter().map(|shot| shot.answered - shot.sent).collect();
    let last = provider.arrivals.last().map_or(Duration::ZERO, |at| at - begun);
    println!("sent {}, accepted {}, at the provider {}", options.count, accepted.len(), through.count());
    println!("accept            p50 / p99 {}", accept.p50_p99());
    println!("event to provider p50 / p99 {}", through.p50_p99());
    println!("the last arrived after {:.2} s", last.as_secs_f64());
    Ok(())
}
