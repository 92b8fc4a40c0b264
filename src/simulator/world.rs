//! The state that the parts of the simulator share, and the few things that several of them do with it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::auth::Credentials;
use super::call::Calls;
use super::callback::{Form, Postman, status_form};
use super::config::{CallbackMode, SimulatorConfig};
use super::content::Content;
use super::fault::FaultBook;
use super::handle::SimListing;
use super::message::{Message, SimStatus};
use super::store::{Requests, Ring};
use super::timeline::Timeline;
use crate::ports::{Clock, Entropy, random};

/// What has been counted since the start, or since the last reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Create calls that came in, whatever became of them.
    pub create_calls: u64,
    /// Messages and calls that were made by them.
    pub created: u64,
    /// Every other call of the API.
    pub lookups: u64,
    /// Webhooks that were answered 2xx.
    pub callbacks_sent: u64,
    /// Webhooks that were not.
    pub callbacks_failed: u64,
    /// Status callbacks that a fault swallowed.
    pub callbacks_lost: u64,
    /// Messages whose way was given up because too many were waiting.
    pub timeline_dropped: u64,
    /// Replies that phones wrote.
    pub replies: u64,
    /// The most calls of the API that were under way at once.
    pub concurrency_max: u64,
    /// Messages in memory.
    pub messages_kept: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub create_calls: AtomicU64,
    pub created: AtomicU64,
    pub lookups: AtomicU64,
    pub callbacks_sent: AtomicU64,
    pub callbacks_failed: AtomicU64,
    pub callbacks_lost: AtomicU64,
    pub timeline_dropped: AtomicU64,
    pub replies: AtomicU64,
    pub in_flight: AtomicUsize,
    pub concurrency_max: AtomicUsize,
}

/// Adds one. The counters order nothing.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    fn reset(&self) {
        for counter in [
            &self.create_calls,
            &self.created,
            &self.lookups,
            &self.callbacks_sent,
            &self.callbacks_failed,
            &self.callbacks_lost,
            &self.timeline_dropped,
            &self.replies,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
        self.concurrency_max.store(0, Ordering::Relaxed);
    }
}

/// Everything there is.
pub(super) struct World {
    pub config: SimulatorConfig,
    pub credentials: Credentials,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub ring: Mutex<Ring>,
    /// Bounded like the messages.
    pub calls: Mutex<Calls>,
    pub requests: Mutex<Requests>,
    /// Bounded like the requests.
    pub listings: Mutex<VecDeque<SimListing>>,
    pub faults: FaultBook,
    pub contents: RwLock<Vec<Content>>,
    /// When each phone last wrote, for the 24-hour window. Bounded, see `WRITERS_MAX`.
    pub last_inbound: Mutex<HashMap<String, Timestamp>>,
    /// Phones that have said STOP by text message: Twilio itself refuses to send them further ones. Bounded likewise.
    pub opted_out: Mutex<HashSet<String>>,
    pub inbound_url: RwLock<Option<String>>,
    pub timeline: Timeline,
    pub postman: Postman,
    pub counters: Counters,
    /// Goes up with every change, for whoever watches.
    pub revision: watch::Sender<u64>,
    pub stop: CancellationToken,
}

/// The most phones whose last writing is remembered.
pub(super) const WRITERS_MAX: usize = 10_000;

impl World {
    pub(super) fn new(
        config: SimulatorConfig,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> reqwest::Result<Self> {
        let now = clock.now();
        Ok(Self {
            credentials: Credentials::new(&config),
            ring: Mutex::new(Ring::new(config.keep_messages)),
            calls: Mutex::new(Calls::new(config.keep_messages)),
            requests: Mutex::new(Requests::new(config.keep_messages)),
            listings: Mutex::default(),
            faults: FaultBook::new(&config.faults),
            contents: RwLock::new(
                config
                    .contents
                    .iter()
                    .map(|known| Content::of(known.sid.clone(), known.definition.clone(), now))
                    .collect(),
            ),
            last_inbound: Mutex::default(),
            opted_out: Mutex::default(),
            inbound_url: RwLock::new(config.inbound_url.clone()),
            timeline: Timeline::default(),
            postman: Postman::new(&config)?,
            counters: Counters::default(),
            revision: watch::Sender::new(0),
            stop: CancellationToken::new(),
            config,
            clock,
            entropy,
        })
    }

    /// A fresh SID: the prefix and 32 hexadecimal digits.
    pub(super) fn sid(&self, prefix: &str) -> String {
        let mut sid = String::with_capacity(34);
        sid.push_str(prefix);
        data_encoding::HEXLOWER.encode_append(&random::<16>(&*self.entropy), &mut sid);
        sid
    }

    /// Tells whoever watches that something changed.
    pub(super) fn changed(&self) {
        self.revision.send_modify(|revision| *revision += 1);
    }

    /// Remembers a call that asked for a list.
    pub(super) fn listed(&self, listing: SimListing) {
        let mut listings = self.listings.lock();
        listings.push_back(listing);
        if listings.len() > self.config.keep_messages {
            listings.pop_front();
        }
    }

    /// The sender that a messaging service chooses for a message.
    pub(super) fn sender_for(&self, to: &str) -> String {
        let whatsapp = to.starts_with(super::message::WHATSAPP);
        let mut fitting = self.config.senders.iter().filter(|s| s.starts_with(super::message::WHATSAPP) == whatsapp);
        fitting.next().cloned().unwrap_or_default()
    }

    /// Whether recipients share that they have read a message.
    fn reads(&self) -> bool {
        match self.config.callbacks {
            CallbackMode::Automatic { read_after, .. } => read_after.is_some(),
            CallbackMode::Manual => true,
        }
    }

    /// Moves a message on by one status and posts what there is to tell. `None`: it has arrived at its end.
    /// The codes are those of the webhooks posted, 0 for no answer; none if there was nothing to post.
    pub(super) async fn step(&self, message: &Message) -> Option<(SimStatus, Vec<u16>)> {
        let status = message.advance(self.clock.now(), self.reads(), || self.sender_for(&message.to))?;
        self.changed();
        let error_code = message.course.lock().error_code;
        Some((status, self.tell(message, status, error_code).await))
    }

    /// Posts the callback of a status, with the message's twist.
    pub(super) async fn tell(&self, message: &Message, status: SimStatus, error_code: Option<u32>) -> Vec<u16> {
        let Some(url) = &message.status_callback else { return Vec::new() };
        if message.twist.lost {
            count(&self.counters.callbacks_lost);
            return Vec::new();
        }
        let form = status_form(&self.config.account_sid, message, status, error_code, self.clock.now());
        let held = {
            let mut course = message.course.lock();
            if message.twist.reordered && status == SimStatus::Sent {
                course.held = Some(form);
                return Vec::new();
            }
            course.held.take()
        };
        let mut codes = self.post(url, &form, message.twist.repeated).await;
        if let Some(held) = held {
            codes.extend(self.post(url, &held, message.twist.repeated).await);
        }
        codes
    }

    pub(super) async fn post(&self, url: &str, form: &Form, repeated: u32) -> Vec<u16> {
        let token = self.idempotency_token();
        let mut codes = Vec::with_capacity(1);
        for _ in 0..=repeated {
            let posted = self.postman.post(url, form, &token).await;
            count(if posted.ok() { &self.counters.callbacks_sent } else { &self.counters.callbacks_failed });
            codes.push(posted.status);
        }
        codes
    }

    /// What tells the posts of one webhook apart from another's.
    pub(super) fn idempotency_token(&self) -> String {
        uuid::Builder::from_random_bytes(random(&*self.entropy)).into_uuid().to_string()
    }

    pub(super) fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        Stats {
            create_calls: read(&counters.create_calls),
            created: read(&counters.created),
            lookups: read(&counters.lookups),
            callbacks_sent: read(&counters.callbacks_sent),
            callbacks_failed: read(&counters.callbacks_failed),
            callbacks_lost: read(&counters.callbacks_lost),
            timeline_dropped: read(&counters.timeline_dropped),
            replies: read(&counters.replies),
            concurrency_max: counters.concurrency_max.load(Ordering::Relaxed) as u64,
            messages_kept: self.ring.lock().len() as u64,
        }
    }

    /// Forgets messages, requests, faults and counts; keeps templates and the inbound URL.
    pub(super) fn reset(&self) {
        self.timeline.clear();
        self.ring.lock().clear();
        self.calls.lock().clear();
        self.requests.lock().clear();
        self.listings.lock().clear();
        self.faults.clear();
        self.last_inbound.lock().clear();
        self.opted_out.lock().clear();
        self.counters.reset();
        self.changed();
    }
}
