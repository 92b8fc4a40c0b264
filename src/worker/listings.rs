//! Listings: what a phone was sent lately, asked for once by all who want to know at the same time.
//!
//! After a crash in a burst, hundreds of attempts are unknown at once, and most are to the same few phones. Each look-up
//! by itself would fetch the same long list. So while one listing of a phone is under way, whoever else asks waits for
//! the next, and that one serves them all: it begins after every question that it answers.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::domain::contact::{Channel, PhoneNumber};
use crate::ports::{ListedMessage, LookUpError, TwilioClient};

/// How many of a phone's messages are looked through.
const MESSAGES_LOOKED_AT: usize = 10_000;

/// What Twilio listed: the same for all who asked.
type Listing = Result<Arc<[ListedMessage]>, LookUpError>;

/// The phones that are being asked about.
#[derive(Default)]
pub(super) struct Listings {
    phones: Mutex<HashMap<(Channel, PhoneNumber), Arc<Phone>>>,
}

/// One phone, as long as anybody asks about it.
#[derive(Default)]
struct Phone {
    /// One listing at a time, first come, first served.
    turn: tokio::sync::Mutex<()>,
    asked: Mutex<Asked>,
}

#[derive(Default)]
struct Asked {
    /// The number of the next listing.
    next: u64,
    /// The earliest time that those who wait for it want to know of.
    since: Option<Timestamp>,
    /// How many ask, or hold an answer just now.
    asking: usize,
    /// The last listing, with its number and the time from which on it lists, as long as anybody asks.
    last: Option<(u64, Timestamp, Listing)>,
}

/// Somebody who asks. The last one to go takes the phone along.
struct Asking<'a> {
    listings: &'a Listings,
    of: (Channel, PhoneNumber),
    phone: Arc<Phone>,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut phones = self.listings.phones.lock();
        let mut asked = self.phone.asked.lock();
        asked.asking -= 1;
        if asked.asking == 0 {
            phones.remove(&self.of);
        }
    }
}

impl Listings {
    /// The messages sent to a phone at or after `since`, and perhaps earlier ones, newest first: as Twilio listed them
    /// after this was called.
    pub(super) async fn list(
        &self,
        twilio: &dyn TwilioClient,
        channel: Channel,
        to: &PhoneNumber,
        since: Timestamp,
    ) -> Listing {
        let (asking, listing) = self.ask((channel, to.clone()), since);
        let phone = &asking.phone;
        let _turn = phone.turn.lock().await;
        let (number, since) = {
            let mut asked = phone.asked.lock();
            match &asked.last {
                // It began after the question, and reaches back far enough.
                Some((number, from, known)) if *number >= listing && *from <= since => return known.clone(),
                Some(_) | None => {}
            }
            // Whoever asks from here on waits for the one after this.
            asked.next += 1;
            (asked.next - 1, asked.since.take().map_or(since, |earliest| earliest.min(since)))
        };
        let listed = twilio.list_messages(channel, to, since, MESSAGES_LOOKED_AT).await.map(Arc::from);
        phone.asked.lock().last = Some((number, since, listed.clone()));
        listed
    }

    /// Puts a question, and says which listing may answer it first.
    fn ask(&self, of: (Channel, PhoneNumber), since: Timestamp) -> (Asking<'_>, u64) {
        let mut phones = self.phones.lock();
        let phone = Arc::clone(phones.entry(of.clone()).or_default());
        let mut asked = phone.asked.lock();
        asked.asking += 1;
        asked.since = Some(asked.since.map_or(since, |earliest| earliest.min(since)));
        let listing = asked.next;
        drop(asked);
        (Asking { listings: self, of, phone }, listing)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::domain::ids::ProviderId;
    use crate::domain::provider::{Receipt, SendOutcome};
    use crate::ports::{Fault, MessageRequest};

    /// Answers listings once it is let, with nothing, and notes from when on it was asked.
    struct Slow {
        let_through: Semaphore,
        asked: Mutex<Vec<Timestamp>>,
        under_way: AtomicUsize,
    }

    #[async_trait]
    impl TwilioClient for Slow {
        async fn create_message(&self, _: &MessageRequest) -> SendOutcome {
            unreachable!("only listings are asked for")
        }
        async fn fetch_message(&self, _: &ProviderId) -> Result<Receipt, LookUpError> {
            unreachable!("only listings are asked for")
        }
        async fn list_messages(
            &self,
            _: Channel,
            _: &PhoneNumber,
            since: Timestamp,
            _: usize,
        ) -> Result<Vec<ListedMessage>, LookUpError> {
            assert_eq!(self.under_way.fetch_add(1, Ordering::SeqCst), 0, "one listing of a phone at a time");
            self.asked.lock().push(since);
            self.let_through.acquire().await.unwrap().forget();
            self.under_way.fetch_sub(1, Ordering::SeqCst);
            Err(LookUpError::NotFound)
        }
        async fn check(&self) -> Vec<Fault> {
            unreachable!("only listings are asked for")
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[tokio::test]
    async fn a_hundred_questions_about_a_phone_take_two_listings_and_each_begins_after_its_questions() {
        let twilio = Slow { let_through: Semaphore::new(0), asked: Mutex::default(), under_way: AtomicUsize::new(0) };
        let listings = Listings::default();
        let to: PhoneNumber = "+919876543210".parse().unwrap();
        let first = listings.list(&twilio, Channel::Whatsapp, &to, at(500));
        let others =
            futures::future::join_all((0..100).map(|n| listings.list(&twilio, Channel::Whatsapp, &to, at(400 - n))));
        let let_them = async {
            tokio::task::yield_now().await;
            twilio.let_through.add_permits(2);
        };

        let (_, answers, ()) = futures::join!(first, others, let_them);

        assert_eq!(answers.len(), 100);
        assert_eq!(*twilio.asked.lock(), [at(500), at(301)], "the earliest time that anybody asked for");
        assert!(listings.phones.lock().is_empty(), "nothing is remembered once nobody asks");
    }

    #[tokio::test]
    async fn whoever_gives_up_waiting_leaves_nothing_behind() {
        let twilio = Slow { let_through: Semaphore::new(0), asked: Mutex::default(), under_way: AtomicUsize::new(0) };
        let listings = Listings::default();
        let to: PhoneNumber = "+919876543210".parse().unwrap();
        {
            let mut given_up = Box::pin(listings.list(&twilio, Channel::Whatsapp, &to, at(100)));
            assert!(futures::poll!(&mut given_up).is_pending());
        }
        twilio.under_way.store(0, Ordering::SeqCst);
        assert!(listings.phones.lock().is_empty());

        twilio.let_through.add_permits(1);
        assert!(listings.list(&twilio, Channel::Whatsapp, &to, at(200)).await.is_err());
        assert_eq!(*twilio.asked.lock(), [at(100), at(200)]);
    }
}
