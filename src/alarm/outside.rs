//! One HTTP request to an address of the operator's, bounded in time. Says what came of it in fixed words: the address is a
//! secret, and the HTTP library's own words name it.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, StatusCode, redirect, retry};
use serde_json::Value;
use url::Url;

use crate::secret::Secret;

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Taken.
    Taken,
    /// Not now: away, slow, busy or broken.
    NotNow {
        /// Why, in a fixed word.
        why: &'static str,
        /// `Retry-After`, in seconds.
        asked: Option<Duration>,
    },
    /// Refused, and it would be again: a wrong address or key.
    Refused {
        /// The HTTP status, or Twilio's code.
        code: Option<u32>,
    },
    /// Nothing was asked: it is not its turn yet.
    HeldBack(Duration),
}

/// A client for one address.
pub(crate) struct Outside {
    client: Client,
    url: Secret,
}

impl Outside {
    /// A client for this address.
    pub(crate) fn new(url: Secret, timeout: Duration) -> Result<Self, reqwest::Error> {
        let mut client = Client::builder()
            .user_agent(concat!("crisis-relay/", env!("CARGO_PKG_VERSION")))
            .retry(retry::never())
            .redirect(redirect::Policy::none())
            .connect_timeout(timeout)
            .timeout(timeout);
        if is_of_this_machine(&url) {
            client = client.no_proxy();
        }
        Ok(Self { client: client.build()?, url })
    }

    /// Posts JSON.
    pub(crate) async fn post(&self, body: &Value) -> Answer {
        self.ask(self.client.post(self.url.expose()).json(body)).await
    }

    /// Asks for it and nothing more: for a heartbeat.
    pub(crate) async fn ping(&self) -> Answer {
        self.ask(self.client.get(self.url.expose())).await
    }

    async fn ask(&self, request: RequestBuilder) -> Answer {
        match request.send().await {
            Ok(answer) => {
                let status = answer.status();
                let asked = answer.headers().get(reqwest::header::RETRY_AFTER).and_then(|value| value.to_str().ok());
                let asked = asked.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
                judge(status, asked)
            }
            Err(error) => Answer::NotNow { why: word(&error), asked: None },
        }
    }
}

fn judge(status: StatusCode, asked: Option<Duration>) -> Answer {
    if status.is_success() {
        Answer::Taken
    } else if status.is_server_error() {
        Answer::NotNow { why: "server_error", asked }
    } else if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT) {
        Answer::NotNow { why: "busy", asked }
    } else {
        Answer::Refused { code: Some(status.as_u16().into()) }
    }
}

fn word(error: &reqwest::Error) -> &'static str {
    if error.is_connect() {
        "no_connection"
    } else if error.is_timeout() {
        "time_out"
    } else if error.is_builder() {
        "unbuildable"
    } else {
        "connection_lost"
    }
}

fn is_of_this_machine(url: &Secret) -> bool {
    let host = Url::parse(url.expose()).ok().and_then(|url| url.host_str().map(str::to_owned));
    host.is_some_and(|host| matches!(host.as_str(), "localhost" | "127.0.0.1" | "[::1]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_succeed_later_is_tried_again() {
        let judged = |status: u16| judge(StatusCode::from_u16(status).unwrap(), None);
        for status in [200, 202, 204] {
            assert_eq!(judged(status), Answer::Taken);
        }
        for status in [408, 429, 500, 503] {
            assert!(matches!(judged(status), Answer::NotNow { .. }), "{status}");
        }
        for status in [301, 400, 403, 404, 410] {
            assert_eq!(judged(status), Answer::Refused { code: Some(status.into()) });
        }
    }
}
