//! Alarms: what the operator must hear of, when, and how.
//!
//! ```text
//!   service, worker …  --raise, set, over-->  Alarms:  log and count, at once
//!                                               |
//!                                             board    what is wrong just now (pure)
//!                                               | began, goes on, over
//!                                             outbox   one for each target: bounded, backs off (pure)
//!                                               |
//!                                  a task for each target: Slack form · PagerDuty · phones
//! ```
//!
//! To raise an alarm never waits and never fails: it takes a lock for a moment, and that is all that the path of an alert
//! ever sees of it. A target that is slow, broken or gone holds up neither that path nor the other targets. What it could not be
//! told is kept, within a bound, and tried again.
//!
//! All of it is in memory. After a restart each condition that lasts is found again by whoever looks for it, and told anew;
//! what ended while nobody ran is not told as over. With several instances each has a board of its own; PagerDuty joins what
//! they tell by the key, which is the same for all.

pub mod board;
pub mod kind;
pub mod outbox;
pub(crate) mod outside;
pub mod provider;
pub mod render;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::board::{About, Board, Key, News, Notice, Rules};
use self::kind::{Kind, Lasting, Severity};
use self::outbox::Outbox;
use self::outside::{Answer, Outside};
use self::provider::{ProviderRules, ProviderWatch, Sign};
use self::render::Source;
use crate::domain::contact::{Channel, PhoneNumber};
use crate::domain::ids::AlertId;
use crate::domain::provider::{ErrorClass, SendOutcome};
use crate::metrics::Metrics;
use crate::ports::{Clock, Entropy, MessageContent, MessageRequest, jitter};
use crate::secret::Secret;

/// How often the board is looked through for what goes on and what is over.
const TICK: Duration = Duration::from_secs(5);
/// How many notices Slack is told in one text.
const SLACK_AT_ONCE: usize = 20;
/// How long the last notices may take at the end.
const LAST_NOTICES_WITHIN: Duration = Duration::from_secs(2);

/// Sends text messages that are no alert's, behind everything that is one's.
#[async_trait]
pub trait Phones: Send + Sync {
    /// Sends one at once, or not at all, and says then for how long it is held back.
    async fn text(&self, request: &MessageRequest) -> SendOutcome;
}

/// Whom the operator's notices go to.
#[derive(Debug, Clone)]
pub enum Target {
    /// A webhook in Slack's form; its address is a secret.
    Slack(Secret),
    /// PagerDuty's Events API, version 2.
    PagerDuty {
        /// The API's address.
        url: String,
        /// The integration's key.
        routing_key: Secret,
    },
    /// A phone, over WhatsApp or text message.
    Phone {
        /// The channel.
        channel: Channel,
        /// The number.
        number: PhoneNumber,
        /// The approved template (`HX…`) that WhatsApp asks for: of the installation's name and of the list.
        template: Option<String>,
        /// From one text to the next: what comes meanwhile goes in one.
        every: Duration,
    },
}

impl Target {
    /// What logs and metrics call it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Slack(_) => "slack",
            Self::PagerDuty { .. } => "pagerduty",
            Self::Phone { .. } => "phone",
        }
    }
}

/// How alarms are told.
#[derive(Debug, Clone)]
pub struct AlarmSettings {
    /// Who tells.
    pub source: Source,
    /// Whom.
    pub targets: Vec<Target>,
    /// When.
    pub rules: Rules,
    /// When the provider counts as failing.
    pub provider: ProviderRules,
    /// How long one target may take.
    pub timeout: Duration,
}

/// One target, with what waits for it.
struct Post {
    name: &'static str,
    way: Way,
    outbox: Mutex<Outbox>,
    woken: Notify,
    /// One after the other: notices keep their order.
    turn: tokio::sync::Mutex<()>,
}

/// How a target is reached.
enum Way {
    Slack(Outside),
    PagerDuty(Outside, Secret),
    Phone(Phone),
}

/// A phone of the operator's.
struct Phone {
    phones: Arc<dyn Phones>,
    channel: Channel,
    number: PhoneNumber,
    template: Option<String>,
    every: Duration,
}

impl Phone {
    async fn tell(&self, source: &Source, notices: &[Notice]) -> Answer {
        let list = render::phone_list(source, notices);
        let content = match &self.template {
            Some(content_sid) => MessageContent::Template {
                content_sid: content_sid.clone(),
                variables: vec![source.name.clone(), list],
            },
            None => MessageContent::Body(render::phone(source, &list)),
        };
        let to = self.number.clone();
        let request = MessageRequest { attempt: None, channel: self.channel, to, content };
        match self.phones.text(&request).await {
            SendOutcome::Accepted { .. } => Answer::Taken,
            SendOutcome::NotBegun { wait } => Answer::HeldBack(wait),
            SendOutcome::NotExecuted { retry_after, .. } => Answer::NotNow { why: "busy", asked: retry_after },
            // A second text is better than none.
            SendOutcome::Unknown { retry_after, .. } => Answer::NotNow { why: "unknown", asked: retry_after },
            SendOutcome::Refused(fault) => match fault.class {
                ErrorClass::Retry | ErrorClass::Ambiguous | ErrorClass::Delay => {
                    Answer::NotNow { why: "refused_for_now", asked: None }
                }
                ErrorClass::Switch | ErrorClass::OptOut | ErrorClass::Template | ErrorClass::Config => {
                    Answer::Refused { code: fault.code }
                }
            },
        }
    }
}

impl Way {
    /// How many notices go at once.
    const fn at_once(&self) -> usize {
        match self {
            Self::Slack(_) => SLACK_AT_ONCE,
            Self::PagerDuty(..) => 1,
            Self::Phone(_) => usize::MAX,
        }
    }

    /// Whether it is told of such a thing: phones are not rung for what can wait.
    fn wants(&self, kind: Kind) -> bool {
        match self {
            Self::Slack(_) | Self::PagerDuty(..) => true,
            Self::Phone(_) => kind.severity() > Severity::Warning || kind == Kind::Test,
        }
    }

    /// How long it is left alone once it was told.
    const fn rest(&self) -> Duration {
        match self {
            Self::Slack(_) | Self::PagerDuty(..) => Duration::ZERO,
            Self::Phone(phone) => phone.every,
        }
    }

    async fn tell(&self, source: &Source, notices: &[Notice]) -> Answer {
        match (self, notices) {
            (Self::Slack(outside), notices) => outside.post(&render::slack(source, notices)).await,
            (Self::PagerDuty(outside, key), [notice]) => outside.post(&render::pagerduty(source, key, notice)).await,
            (Self::PagerDuty(..), _) => Answer::Taken,
            (Self::Phone(phone), notices) => phone.tell(source, notices).await,
        }
    }
}

/// What came of telling one target for a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// The target's name.
    pub target: &'static str,
    /// Why it was not told, if it was not: a fixed word, and a code where there was one.
    pub fault: Option<(&'static str, Option<u32>)>,
}

/// What the operator must hear of.
pub struct Alarms {
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    source: Source,
    board: Mutex<Board>,
    provider: Mutex<ProviderWatch>,
    posts: Vec<Post>,
}

impl Alarms {
    /// Alarms that go to these targets.
    ///
    /// # Errors
    /// The HTTP library cannot start.
    pub fn new(
        settings: AlarmSettings,
        phones: Arc<dyn Phones>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, reqwest::Error> {
        let AlarmSettings { source, targets, rules, provider, timeout } = settings;
        let mut posts = Vec::new();
        for target in targets {
            let name = target.name();
            let way = match target {
                Target::Slack(url) => Way::Slack(Outside::new(url, timeout)?),
                Target::PagerDuty { url, routing_key } => {
                    Way::PagerDuty(Outside::new(Secret::new(url), timeout)?, routing_key)
                }
                Target::Phone { channel, number, template, every } => {
                    Way::Phone(Phone { phones: Arc::clone(&phones), channel, number, template, every })
                }
            };
            let (outbox, woken, turn) = (Mutex::default(), Notify::new(), tokio::sync::Mutex::default());
            posts.push(Post { name, way, outbox, woken, turn });
        }
        let (board, provider) = (Mutex::new(Board::new(rules)), Mutex::new(ProviderWatch::new(provider)));
        Ok(Self { metrics, clock, entropy, source, board, provider, posts })
    }

    /// Alarms that go to nobody, and are logged and counted all the same.
    pub fn silent(metrics: Arc<Metrics>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Arc<Self> {
        let (name, instance, organisation) = (String::new(), String::new(), String::new());
        let source = Source { name, instance, organisation, naming: render::NamingKey::from_bytes([0; 32]) };
        let rules = Rules { repeat_every: TICK, settle_for: TICK, conditions_max: 1 };
        let provider = ProviderRules {
            failures_in_a_row: u32::MAX,
            window: TICK,
            failure_share: 1.0,
            receipts_missing_share: 1.0,
            silent_in_a_row: u32::MAX,
            share_of_at_least: u32::MAX,
        };
        let (board, provider) = (Mutex::new(Board::new(rules)), Mutex::new(ProviderWatch::new(provider)));
        Arc::new(Self { metrics, clock, entropy, source, board, provider, posts: Vec::new() })
    }

    /// Something happened that the operator must hear of: logged, counted, and told if it is news.
    pub fn raise(&self, kind: Kind, about: About) {
        match &about {
            About::Case(alert, _) => tracing::error!(%alert, alarm = kind.name(), "operator alarm"),
            About::Contact(contact) => tracing::error!(%contact, alarm = kind.name(), "operator alarm"),
            About::Named(name) => tracing::error!(%name, alarm = kind.name(), "operator alarm"),
            About::Channel(channel) => {
                tracing::error!(channel = channel.as_str(), alarm = kind.name(), "operator alarm");
            }
            About::Service | About::Code(_) | About::Many => {
                tracing::error!(alarm = kind.name(), "operator alarm");
            }
        }
        self.raise_unlogged(kind, about);
    }

    /// The same, where the caller logs more about it than this room knows.
    pub fn raise_unlogged(&self, kind: Kind, about: About) {
        self.metrics.alarm(kind.name());
        let notice = self.board.lock().seen(Key { kind, about }, self.clock.now());
        self.tell(notice);
    }

    /// Says whether a condition that is looked for again and again holds. Logged and counted when it begins, and logged when
    /// it is over.
    pub fn set(&self, kind: Kind, about: About, holds: bool) {
        debug_assert_eq!(kind.lasting(), Lasting::UntilOver, "{} is not looked for", kind.name());
        if !holds {
            return self.over(kind, about);
        }
        let notice = self.board.lock().seen(Key { kind, about }, self.clock.now());
        if notice.as_ref().is_some_and(|notice| notice.news == News::Began) {
            self.metrics.alarm(kind.name());
            tracing::error!(alarm = kind.name(), "operator alarm");
        }
        self.tell(notice);
    }

    /// A condition is over, if it was there.
    pub fn over(&self, kind: Kind, about: About) {
        let notice = self.board.lock().over(&Key { kind, about }, self.clock.now());
        self.tell(notice);
    }

    /// A human has taken or closed a case: what was wrong with it is over.
    pub fn case_settled(&self, case: AlertId) {
        let mut board = self.board.lock();
        if board.is_empty() {
            return;
        }
        let notices = board.settled(case, self.clock.now());
        drop(board);
        self.tell(notices);
    }

    /// Something was seen of the provider. What it comes to is told by the next [`Alarms::tick`].
    pub fn see_provider(&self, channel: Channel, sign: Sign) {
        self.provider.lock().see(channel, sign, self.clock.now());
    }

    /// A refusal with this code, which may be chance once; says whether it is not the first within a day.
    pub fn comes_again(&self, code: u32) -> bool {
        self.provider.lock().comes_again(code, self.clock.now())
    }

    /// Whether calls to the provider fail one after the other on every channel that is used.
    pub fn provider_fails(&self) -> bool {
        let findings = self.provider.lock().findings(self.clock.now());
        let mut failing = findings.iter().filter(|(kind, ..)| *kind == Kind::ProviderFailing).peekable();
        failing.peek().is_some() && failing.all(|(.., holds)| *holds)
    }

    /// Time has passed: tells again what goes on, and what is over.
    pub fn tick(&self) {
        let findings = self.provider.lock().findings(self.clock.now());
        for (kind, channel, holds) in findings {
            self.set(kind, About::Channel(channel), holds);
        }
        let notices = self.board.lock().tick(self.clock.now());
        self.tell(notices);
    }

    fn tell(&self, notices: impl IntoIterator<Item = Notice>) {
        let mut news = false;
        for notice in notices {
            news = true;
            let kind = notice.key.kind;
            if let News::Ended(_) = notice.news {
                tracing::info!(alarm = kind.name(), times = notice.times, "operator alarm is over");
            }
            let open = self.board.lock().open(kind);
            self.metrics.set_alarms_open(kind.name(), open);
            for post in self.posts.iter().filter(|post| post.way.wants(kind)) {
                post.outbox.lock().push(notice.clone());
            }
        }
        if news {
            self.posts.iter().for_each(|post| post.woken.notify_one());
        }
    }

    /// Tells every target that this is a test, once, and says what came of it.
    pub async fn try_targets(&self) -> Vec<Trial> {
        let now = self.clock.now();
        let key = Key { kind: Kind::Test, about: About::Service };
        let notice = [Notice { key, news: News::Began, at: now, began_at: now, times: 1 }];
        let tell = async |post: &Post| {
            let fault = match post.way.tell(&self.source, &notice).await {
                Answer::Taken => None,
                Answer::NotNow { why, asked: _ } => Some((why, None)),
                Answer::Refused { code } => Some(("refused", code)),
                Answer::HeldBack(_) => Some(("held_back", None)),
            };
            Trial { target: post.name, fault }
        };
        futures::future::join_all(self.posts.iter().map(tell)).await
    }

    /// Tells every target what waits for it and may be told now, and returns when that is tried.
    pub async fn flush(&self) {
        futures::future::join_all(self.posts.iter().map(|post| self.deliver(post))).await;
    }

    /// Tells until `shutdown`, and then what the end has brought, if that is quick.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let deliver = futures::future::join_all(self.posts.iter().map(|post| self.deliver_until(post, &shutdown)));
        tokio::join!(self.tick_until(&shutdown), deliver);
        if tokio::time::timeout(LAST_NOTICES_WITHIN, self.flush()).await.is_err() {
            tracing::warn!("the last notices to the operator were not taken in time");
        }
    }

    async fn tick_until(&self, shutdown: &CancellationToken) {
        while shutdown.run_until_cancelled(self.clock.sleep(TICK)).await.is_some() {
            self.tick();
        }
    }

    async fn deliver_until(&self, post: &Post, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() {
            // Not broken off by the end: what is in hand would be lost.
            self.deliver(post).await;
            let due = post.outbox.lock().due_at();
            let pause = due.map(|at| Duration::try_from(at.duration_since(self.clock.now())).unwrap_or_default());
            let again = async {
                match pause {
                    Some(pause) => self.clock.sleep(pause.min(TICK)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = post.woken.notified() => {}
                () = again => {}
            }
        }
    }

    /// Tells one target what it may be told now.
    async fn deliver(&self, post: &Post) {
        let _turn = post.turn.lock().await;
        loop {
            let notices = {
                let mut outbox = post.outbox.lock();
                let (now, lost) = (self.clock.now(), outbox.take_lost());
                if lost > 0 {
                    self.metrics.notices(post.name, "lost", lost);
                    tracing::error!(
                        target_name = post.name,
                        lost,
                        "notices to the operator were lost: too many waited"
                    );
                }
                outbox.pull_in(now);
                outbox.take(now, post.way.at_once())
            };
            if notices.is_empty() {
                return;
            }
            let (answer, count) = (post.way.tell(&self.source, &notices).await, notices.len() as u64);
            let mut outbox = post.outbox.lock();
            match answer {
                Answer::Taken => {
                    self.metrics.notices(post.name, "told", count);
                    outbox.told(self.clock.now(), post.way.rest());
                }
                Answer::Refused { code } => {
                    self.metrics.notices(post.name, "refused", count);
                    tracing::error!(target_name = post.name, code, "the operator's notices are refused");
                    outbox.told(self.clock.now(), post.way.rest());
                }
                Answer::HeldBack(wait) => outbox.held_back(notices, self.clock.now(), wait),
                Answer::NotNow { why, asked } => {
                    self.metrics.notices(post.name, "tried_again", count);
                    tracing::warn!(target_name = post.name, why, "the operator cannot be told just now; trying again");
                    outbox.put_back(notices, self.clock.now(), asked, jitter(self.entropy.as_ref()));
                }
            }
        }
    }
}
