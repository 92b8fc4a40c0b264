//! The memory of the simulator: the last so many messages and requests. Older ones are forgotten, so that memory stays
//! flat however long it runs.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use axum::body::Bytes;
use jiff::Timestamp;

use super::message::Message;

/// The last messages, by age, by SID and by phone.
pub(super) struct Ring {
    keep: usize,
    next_seq: u64,
    by_seq: BTreeMap<u64, Arc<Message>>,
    by_sid: HashMap<String, Arc<Message>>,
    by_phone: HashMap<String, VecDeque<Arc<Message>>>,
}

impl Ring {
    pub(super) fn new(keep: usize) -> Self {
        Self {
            keep: keep.max(1),
            next_seq: 1,
            by_seq: BTreeMap::new(),
            by_sid: HashMap::new(),
            by_phone: HashMap::new(),
        }
    }

    /// Keeps a message, made with the number it gets; forgets the oldest if there are too many.
    pub(super) fn insert(&mut self, make: impl FnOnce(u64) -> Message) -> Arc<Message> {
        let seq = self.next_seq;
        self.next_seq += 1;
        let message = Arc::new(make(seq));
        self.by_seq.insert(seq, Arc::clone(&message));
        self.by_sid.insert(message.sid.clone(), Arc::clone(&message));
        self.by_phone.entry(message.phone.clone()).or_default().push_back(Arc::clone(&message));
        if self.by_seq.len() > self.keep
            && let Some((_, oldest)) = self.by_seq.pop_first()
        {
            self.unlink(&oldest);
        }
        message
    }

    pub(super) fn get(&self, sid: &str) -> Option<Arc<Message>> {
        self.by_sid.get(sid).cloned()
    }

    /// Forgets a message.
    pub(super) fn remove(&mut self, sid: &str) {
        if let Some(message) = self.by_sid.get(sid).cloned() {
            self.by_seq.remove(&message.seq);
            self.unlink(&message);
        }
    }

    pub(super) fn clear(&mut self) {
        self.by_seq.clear();
        self.by_sid.clear();
        self.by_phone.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.by_seq.len()
    }

    /// All messages, oldest first.
    pub(super) fn all(&self) -> impl DoubleEndedIterator<Item = &Arc<Message>> {
        self.by_seq.values()
    }

    /// The messages from and to a phone, oldest first.
    pub(super) fn of_phone(&self, phone: &str) -> impl DoubleEndedIterator<Item = &Arc<Message>> {
        self.by_phone.get(phone).into_iter().flatten()
    }

    fn unlink(&mut self, message: &Message) {
        self.by_sid.remove(&message.sid);
        if let Some(queue) = self.by_phone.get_mut(&message.phone) {
            // Found at the front, unless it was deleted by hand.
            if let Some(at) = queue.iter().position(|kept| kept.seq == message.seq) {
                queue.remove(at);
            }
            if queue.is_empty() {
                self.by_phone.remove(&message.phone);
            }
        }
    }
}

/// A create call as it came in. Parsed only when somebody looks.
#[derive(Clone)]
pub(super) struct RawRequest {
    pub at: Timestamp,
    pub body: Bytes,
}

/// The last create calls.
pub(super) struct Requests {
    keep: usize,
    queue: VecDeque<RawRequest>,
}

impl Requests {
    pub(super) fn new(keep: usize) -> Self {
        Self { keep: keep.max(1), queue: VecDeque::new() }
    }

    pub(super) fn push(&mut self, request: RawRequest) {
        if self.queue.len() >= self.keep {
            self.queue.pop_front();
        }
        self.queue.push_back(request);
    }

    pub(super) fn all(&self) -> Vec<RawRequest> {
        self.queue.iter().cloned().collect()
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
    }
}
