//! An identity provider's published keys: whatever is published, nobody is let in but by the key that signed.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use crisis_relay::clock::ManualClock;
use crisis_relay::http::auth::{ApiKeys, AuthError, Authenticator, JwksSettings, JwtKeySource, JwtSettings};

use super::loopback::{Answer, Loopback, PATIENCE};
use super::token::{AUDIENCE, ISSUER};
use super::{edge, parted};

/// A token that was signed once, with the key whose public part is [`PUBLIC_X`] and that is gone since. Valid to 2100.
const TOKEN: &str = include_str!("jwks/token.txt");
/// What a key set must contain to let that token in.
const PUBLIC_X: &str = include_str!("jwks/public_x.txt");

/// A key set without that key; what it has is the curve's own base point. Keys stay in use until others are published.
const OTHER_KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"other",
    "x":"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY","y":"T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"}]}"#;

/// Between two inputs, so that the keys at hand are too old.
const A_DAY: Duration = Duration::from_secs(86_400);

/// Input: a line with a status, an empty line, the key set.
pub fn run(data: &[u8]) {
    let (head, body) = parted(data, b"");
    let Some(answer) = Answer::read(head, body) else { return };
    PROVIDER.with(|provider| provider.check(&answer));
}

thread_local! {
    static PROVIDER: Provider = Provider::new();
}

struct Provider {
    server: Loopback,
    clock: ManualClock,
    authenticator: Authenticator,
}

impl Provider {
    fn new() -> Self {
        edge::keep_logs();
        let server = Loopback::start();
        let mut jwks = JwksSettings::new(format!("{}/jwks", server.url).parse().expect("a URL"));
        jwks.fetch_timeout = PATIENCE;
        let mut settings = JwtSettings::new(ISSUER, AUDIENCE, JwtKeySource::Jwks(jwks));
        settings.default_organisation = Some("north".parse().expect("an organisation"));
        let clock = ManualClock::new(edge::NOW.parse().expect("a constant"));
        let authenticator = Authenticator::new(ApiKeys::default(), Some(settings), Arc::new(clock.clone()));
        Self { server, clock, authenticator: authenticator.expect("the settings are good") }
    }

    fn check(&self, answer: &Answer) {
        edge::logged();
        // Forth and back again: either way the keys are not of today, and the token stays valid.
        let now: jiff::Timestamp = edge::NOW.parse().expect("a constant");
        self.clock.set(now);
        let forgotten = Answer { status: 200, body: OTHER_KEYS.into(), ..Answer::default() };
        let (asked, _) = self.server.answering(&forgotten, self.ask());
        assert_eq!(asked.map(|_| ()), Err(AuthError::Invalid), "let in by a key that is published no more");
        self.clock.advance(A_DAY);
        let (asked, fetches) = self.server.answering(answer, self.ask());
        assert!(fetches <= 1, "the provider is asked {fetches} times for one token");
        let published = String::from_utf8_lossy(&answer.body).contains(PUBLIC_X.trim());
        match asked {
            Ok(principal) => {
                assert!(published || answer.body.contains(&b'\\'), "let in by a key that is not published");
                assert_eq!((answer.status / 100, principal.id.as_str()), (2, "ada"));
            }
            Err(AuthError::Invalid | AuthError::KeysUnavailable) => {}
            Err(error) => panic!("the keys make a good token {error:?}"),
        }
        let log = edge::logged();
        assert!(!super::repeats(&log), "a log line repeats what was published: {log}");
    }

    async fn ask(&self) -> Result<crisis_relay::http::auth::Principal, AuthError> {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", format!("Bearer {}", TOKEN.trim()).parse().expect("a token fits a header"));
        self.authenticator.authenticate(&headers).await
    }
}
