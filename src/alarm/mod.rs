//! Alarms: what the operator must hear of, when, and how.
//!
//! ```text
//!   service, worker …  --raise, set, over-->  Alarms:  log and count, at once
//!                                               |
//!                                             board    what is wrong just now (pure)
//!                                               | began, goes on, over
//!                                             outbox   one for each target: bounded, backs off (pure)
//!                                               |
//!                                  a task for each target: Slack form · PagerDuty
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
mod outside;
pub mod render;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::board::{About, Board, Key, News, Notice, Rules};
use self::kind::{Kind, Lasting};
use self::outbox::Outbox;
use self::outside::{Answer, Outside};
use self::render::Source;
use crate::domain::ids::AlertId;
use crate::metrics::Metrics;
use crate::ports::{Clock, Entropy, jitter};
use crate::secret::Secret;

/// How often the board is looked through for what goes on and what is over.
const TICK: Duration = Duration::from_secs(5);
/// How many notices Slack is told in one text.
const SLACK_AT_ONCE: usize = 20;
/// How long the last notices may take at the end.
const LAST_NOTICES_WITHIN: Duration = Duration::from_secs(2);

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
}

impl Target {
    /// What logs and metrics call it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Slack(_) => "slack",
            Self::PagerDuty { .. } => "pagerduty",
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
}

impl Way {
    /// How many notices go at once.
    const fn at_once(&self) -> usize {
        match self {
            Self::Slack(_) => SLACK_AT_ONCE,
            Self::PagerDuty(..) => 1,
        }
    }

    async fn tell(&self, source: &Source, notices: &[Notice]) -> Answer {
        match (self, notices) {
            (Self::Slack(outside), notices) => outside.post(&render::slack(source, notices)).await,
            (Self::PagerDuty(outside, key), [notice]) => outside.post(&render::pagerduty(source, key, notice)).await,
            (Self::PagerDuty(..), _) => Answer::Taken,
        }
    }
}

/// What the operator must hear of.
pub struct Alarms {
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    source: Source,
    board: Mutex<Board>,
    posts: Vec<Post>,
}

impl Alarms {
    /// Alarms that go to these targets.
    ///
    /// # Errors
    /// The HTTP library cannot start.
    pub fn new(
        settings: AlarmSettings,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, reqwest::Error> {
        let AlarmSettings { source, targets, rules, timeout } = settings;
        let mut posts = Vec::new();
        for target in targets {
            let name = target.name();
            let way = match target {
                Target::Slack(url) => Way::Slack(Outside::new(url, timeout)?),
                Target::PagerDuty { url, routing_key } => {
                    Way::PagerDuty(Outside::new(Secret::new(url), timeout)?, routing_key)
                }
            };
            let (outbox, woken, turn) = (Mutex::default(), Notify::new(), tokio::sync::Mutex::default());
            posts.push(Post { name, way, outbox, woken, turn });
        }
        Ok(Self { metrics, clock, entropy, source, board: Mutex::new(Board::new(rules)), posts })
    }

    /// Alarms that go to nobody, and are logged and counted all the same.
    pub fn silent(metrics: Arc<Metrics>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Arc<Self> {
        let source = Source { name: String::new(), instance: String::new(), organisation: String::new() };
        let rules = Rules { repeat_every: TICK, settle_for: TICK, conditions_max: 1 };
        Arc::new(Self { metrics, clock, entropy, source, board: Mutex::new(Board::new(rules)), posts: Vec::new() })
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

    /// Time has passed: tells again what goes on, and what is over.
    pub fn tick(&self) {
        let notices = self.board.lock().tick(self.clock.now());
        self.tell(notices);
    }

    fn tell(&self, notices: impl IntoIterator<Item = Notice>) {
        let mut news = false;
        for notice in notices {
            news = true;
            if let News::Ended(_) = notice.news {
                tracing::info!(alarm = notice.key.kind.name(), times = notice.times, "operator alarm is over");
            }
            for post in &self.posts {
                post.outbox.lock().push(notice.clone());
            }
        }
        if news {
            self.posts.iter().for_each(|post| post.woken.notify_one());
            self.count_open();
        }
    }

    fn count_open(&self) {
        let board = self.board.lock();
        for kind in Kind::ALL {
            self.metrics.set_alarms_open(kind.name(), board.open(*kind));
        }
    }

    /// Whether anybody is told.
    pub fn has_targets(&self) -> bool {
        !self.posts.is_empty()
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
                    outbox.told();
                }
                Answer::Refused { status } => {
                    self.metrics.notices(post.name, "refused", count);
                    tracing::error!(target_name = post.name, status, "the operator's notices are refused");
                    outbox.told();
                }
                Answer::NotNow { why, asked } => {
                    self.metrics.notices(post.name, "tried_again", count);
                    tracing::warn!(target_name = post.name, why, "the operator cannot be told just now; trying again");
                    outbox.put_back(notices, self.clock.now(), asked, jitter(self.entropy.as_ref()));
                }
            }
        }
    }
}
