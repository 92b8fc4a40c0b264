//! One job: call Twilio, and book what came of it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::SemaphorePermit;

use super::Worker;
use super::courier::Lane;
use crate::domain::alert::{Action, Alert, Kind};
use crate::domain::contact::{Channel, PhoneNumber};
use crate::domain::delivery::{Delivery, DeliveryState, Disclosed};
use crate::domain::ids::{AttemptNo, DeliveryNo, ProviderId};
use crate::domain::message::{Composed, Purpose, text_sha256};
use crate::domain::provider::{ErrorClass, ProviderFault, Receipt, SendOutcome};
use crate::domain::tap::Ticket;
use crate::ports::{ListedMessage, LookUpError, MessageContent, MessageRequest};
use crate::service::ServiceError;
use crate::service::dispatch::Job;

/// How far Twilio's clock may be behind ours when a message is looked for by its time. It costs only a longer listing: the
/// reference says whose a message is. One that is overlooked is sent again.
const CLOCKS_APART: Duration = Duration::from_secs(30);
/// So long before a call that is found another case's attempt may have been begun that made it.
const OTHERS_BEGUN_BEFORE: Duration = Duration::from_secs(120);
/// How long a delivery waits whose lease left no time for its call.
const LATE_PAUSE: Duration = Duration::from_millis(500);
/// So lately a case was looked at that it need not be looked at again before a call.
const A_MOMENT: Duration = Duration::from_millis(100);
/// How long such a look may take where the store is behind a network: there it is seldom faster than a disk, and slow for
/// all when it is crowded. To begin anew for every look that took longer would crowd it more.
const SHARED_LOOK_MAX: Duration = Duration::from_secs(1);
/// The first pause before a booking is tried again; it doubles.
const BOOKING_PAUSE: Duration = Duration::from_millis(50);
const BOOKING_PAUSE_MAX: Duration = Duration::from_secs(2);

/// The lane of a message: nothing depends on a notice. That somebody outside the team is told is a person's decision, or the
/// policy's where nobody has answered: it is as urgent as an alert.
const fn lane_of(alert: &Alert, delivery: &Delivery) -> Lane {
    match (alert.kind, delivery.purpose.is_urgent()) {
        (Kind::Live, true) => Lane::Crisis,
        (Kind::Live, false) => Lane::Notice,
        (Kind::Drill, _) => Lane::Drill,
    }
}

/// The form in which Twilio takes a message: an approved template where there is one, else the text itself. What a call
/// says is asked for when somebody answers. A template with buttons has the message's ticket as its last value.
fn content(channel: Channel, message: Composed, ticket: Ticket) -> MessageContent {
    match (channel, message.content_sid) {
        (Channel::Voice, _) => MessageContent::Call,
        (Channel::Whatsapp | Channel::Sms, Some(content_sid)) => {
            let mut variables = message.variables;
            if message.has_buttons {
                variables.push(ticket.to_string());
            }
            MessageContent::Template { content_sid, variables }
        }
        (Channel::Whatsapp | Channel::Sms, None) => MessageContent::Body(message.text),
    }
}

impl Worker {
    /// Performs one job, from the call to the booking. The job's place is given back at the end.
    pub(super) async fn perform(self: Arc<Self>, job: Job) {
        let Job { alert, action, place } = job;
        match action {
            Action::Send { delivery, attempt, message } => self.send(alert, delivery, attempt, message).await,
            Action::LookUp { delivery, attempt } => self.look_up(alert, delivery, attempt).await,
            Action::Poll { delivery, attempt, provider_id } => self.poll(alert, delivery, attempt, &provider_id).await,
        }
        drop(place);
    }

    async fn send(&self, alert: Alert, no: DeliveryNo, attempt: AttemptNo, message: Composed) {
        let Some(delivery) = alert.delivery(no) else { return };
        let DeliveryState::Sending { lease, .. } = &delivery.state else { return };
        let until = lease.until;
        let outcome = match self.service.address_of(&alert.organisation, delivery).await {
            Ok(to) => self.call(&alert, delivery, attempt, message, to, until).await,
            Err(error) => {
                tracing::error!(alert = %alert.id, delivery = %no, %error, "a recipient's number cannot be read");
                unreadable_number(&error)
            }
        };
        tracing::info!(
            alert = %alert.id, delivery = %no, attempt = %attempt, purpose = delivery.purpose.as_str(),
            channel = delivery.channel.as_str(), outcome = outcome_word(&outcome), "attempt made"
        );
        self.book(alert, until, |alert| {
            let outcome = outcome.clone();
            async move { self.service.settle(alert, no, attempt, outcome).await.map(|_| ()) }
        })
        .await;
    }

    /// The call itself, once pace and breaker allow it and while the lease leaves time for it.
    async fn call(
        &self,
        alert: &Alert,
        delivery: &Delivery,
        attempt: AttemptNo,
        message: Composed,
        to: PhoneNumber,
        until: Timestamp,
    ) -> SendOutcome {
        let now = self.clock.now();
        let Some(patience) = self.patience(now, until) else {
            // A short pause, so that a worker that is far behind does not claim it again at the same instant.
            return SendOutcome::NotBegun { wait: LATE_PAUSE };
        };
        let lane = lane_of(alert, delivery);
        let turn = || self.courier.turn(lane, delivery.channel, now, patience);
        let wait = match self.courier.looks_open(lane, now).and_then(|()| turn()) {
            Ok(wait) => wait,
            Err(wait) => return SendOutcome::NotBegun { wait },
        };
        if !wait.is_zero() {
            self.clock.sleep(wait).await;
        }
        let (place, waited) = match (self.courier.free_place(lane), lane) {
            (Some(place), _) => (Some(place), !wait.is_zero()),
            (None, Lane::Crisis) => (self.place_among_calls(until).await, true),
            (None, Lane::Drill | Lane::Notice | Lane::Code | Lane::Ops) => (None, true),
        };
        if place.is_none() || !self.is_still_wanted(alert, delivery, attempt, waited).await {
            return SendOutcome::NotBegun { wait: LATE_PAUSE };
        }
        if delivery.purpose == Purpose::EmergencyContact && !self.service.may_still_disclose(alert, delivery).await {
            // The student has said otherwise since, or changed the number; it is looked at anew.
            return SendOutcome::NotBegun { wait: LATE_PAUSE };
        }
        let now = self.clock.now();
        if self.patience(now, until).is_none() {
            // The clock was set forth meanwhile, or the process stood still: somebody else may hold the attempt by now.
            return SendOutcome::NotBegun { wait: LATE_PAUSE };
        }
        if delivery.purpose != Purpose::EmergencyContact && !self.service.still_reaches(alert, delivery) {
            // The number was changed, removed or opted out a moment ago: it is planned anew.
            return SendOutcome::NotBegun { wait: LATE_PAUSE };
        }
        if let Err(wait) = self.courier.admits(lane, now) {
            return SendOutcome::NotBegun { wait };
        }
        if lane != Lane::Crisis
            && let Err(wait) = self.service.phone_turn(delivery.address_key)
        {
            self.service.metrics().held_back(lane.name());
            return SendOutcome::NotBegun { wait };
        }
        let content = content(delivery.channel, message, self.service.ticket(alert.id, delivery.no));
        let attempt = Some(alert.attempt_ref(delivery.no, attempt));
        let request = MessageRequest { attempt, channel: delivery.channel, to, content };
        let outcome = self.courier.call(&request).await;
        drop(place);
        outcome
    }

    /// A place among the calls, if one comes free while there is time for a call.
    async fn place_among_calls(&self, until: Timestamp) -> Option<SemaphorePermit<'_>> {
        let patience = self.patience(self.clock.now(), until)?;
        tokio::select! {
            place = self.courier.next_place() => place,
            () = self.clock.sleep(patience) => None,
        }
    }

    /// The last look before a call, after which nothing waits: since it was claimed somebody may have taken the case, or
    /// the student their word back. A call that did not have to wait was claimed a moment ago.
    async fn is_still_wanted(&self, alert: &Alert, delivery: &Delivery, attempt: AttemptNo, waited: bool) -> bool {
        let claimed_at = delivery.attempt(attempt).map_or(Timestamp::MIN, |attempt| attempt.begun_at);
        let before = self.clock.now();
        if !waited && before.duration_since(claimed_at).unsigned_abs() < A_MOMENT {
            return true;
        }
        // A look that took long (a disk that hung) is followed by another, and by another turn: all that waited for it
        // would else go out at once.
        let look_max = if self.service.is_sole_owner() { A_MOMENT } else { SHARED_LOOK_MAX };
        self.service.still_wants(alert.id, delivery.no, attempt).await
            && self.clock.now().duration_since(before).unsigned_abs() < look_max
    }

    /// How long a call may wait for its turn and still end within the lease; `None` if it cannot even if it begins now.
    fn patience(&self, now: Timestamp, until: Timestamp) -> Option<Duration> {
        Duration::try_from(until.duration_since(now)).ok()?.checked_sub(self.settings.call_timeout)
    }

    async fn look_up(&self, alert: Alert, no: DeliveryNo, attempt: AttemptNo) {
        let Some(delivery) = alert.delivery(no) else { return };
        let found = self.find_message(&alert, delivery, attempt).await;
        let until = self.clock.now().saturating_add(self.settings.call_timeout).unwrap_or(Timestamp::MAX);
        match found {
            Ok(Some(receipt)) => {
                tracing::info!(alert = %alert.id, delivery = %no, attempt = %attempt, "an unknown attempt was found at the provider");
                self.book(alert, until, |alert| {
                    let receipt = receipt.clone();
                    async move { self.service.found(alert, no, attempt, receipt).await.map(|_| ()) }
                })
                .await;
            }
            answer @ (Ok(None) | Err(_)) => {
                let answered = matches!(answer, Ok(None) | Err(LookUpError::NotFound));
                tracing::info!(alert = %alert.id, delivery = %no, attempt = %attempt, answered, "an unknown attempt was not found");
                self.book(alert, until, |alert| self.service.not_found(alert, no, attempt, answered)).await;
            }
        }
    }

    /// Looks for an attempt's message among those that the phone was sent since: it bears the alert's reference, and is
    /// none of those that are known already. Its text tells it from the messages of the alert's other attempts; where
    /// Twilio has put the text together itself (a template), the oldest that is nobody else's will do.
    async fn find_message(
        &self,
        alert: &Alert,
        delivery: &Delivery,
        attempt: AttemptNo,
    ) -> Result<Option<Receipt>, LookUpError> {
        let Some(begun_at) = delivery.attempt(attempt).map(|attempt| attempt.begun_at) else { return Ok(None) };
        let since = begun_at.saturating_sub(CLOCKS_APART).unwrap_or(Timestamp::MIN);
        let Ok(to) = self.service.address_of(&alert.organisation, delivery).await else {
            return Err(LookUpError::Unavailable { retry_after: None });
        };
        let listed = self.listings.list(self.twilio.as_ref(), delivery.channel, &to, since).await?;
        let known: Vec<&ProviderId> = alert
            .deliveries
            .iter()
            .flat_map(|delivery| &delivery.attempts)
            .filter_map(|attempt| attempt.provider_id.as_ref())
            .collect();
        let candidates =
            listed.iter().filter(|listed| listed.created_at >= since && !known.contains(&&listed.receipt.provider_id));
        match delivery.channel {
            Channel::Whatsapp | Channel::Sms => {
                let ours = candidates.filter(|listed| listed.body.contains(alert.reference.as_str()));
                Ok(fitting(ours, alert, delivery.attempt(attempt).map(|attempt| &attempt.disclosed)))
            }
            Channel::Voice => {
                let until =
                    begun_at.saturating_add(self.settings.call_timeout + CLOCKS_APART).unwrap_or(Timestamp::MAX);
                let calls = candidates.filter(|listed| listed.created_at <= until).map(|listed| &listed.receipt);
                self.own_call(alert, delivery, since, calls.rev()).await
            }
        }
    }

    /// Of the calls to a phone, the oldest that can only be this case's: nothing in a call says which case it is about. Where
    /// another case may have made it, it counts as not found, and the phone is called again: a second call is better than
    /// none. As a rule the call's own callbacks, which name the attempt, have long told whose it is.
    async fn own_call(
        &self,
        alert: &Alert,
        delivery: &Delivery,
        since: Timestamp,
        calls: impl Iterator<Item = &Receipt> + Send,
    ) -> Result<Option<Receipt>, LookUpError> {
        let unavailable = |_| LookUpError::Unavailable { retry_after: None };
        let earlier = since.saturating_sub(OTHERS_BEGUN_BEFORE).unwrap_or(Timestamp::MIN);
        if self.service.others_may_have_called(alert, delivery, earlier).await.map_err(unavailable)? {
            return Ok(None);
        }
        for call in calls {
            if !self.service.is_known_to_a_case(&call.provider_id).await.map_err(unavailable)? {
                return Ok(Some(call.clone()));
            }
        }
        Ok(None)
    }

    async fn poll(&self, alert: Alert, no: DeliveryNo, attempt: AttemptNo, provider_id: &ProviderId) {
        self.service.note_silence(&alert, no, attempt);
        match self.twilio.fetch_message(provider_id).await {
            Ok(receipt) => {
                // That a human picked up says nothing of what they heard, if we were not asked what to say.
                let receipt = receipt.unless_told();
                let until = self.clock.now().saturating_add(self.settings.call_timeout).unwrap_or(Timestamp::MAX);
                self.book(alert, until, |alert| {
                    let receipt = receipt.clone();
                    async move { self.service.receive(alert, no, attempt, receipt).await.map(|_| ()) }
                })
                .await;
            }
            // The next poll is booked already.
            Err(error) => tracing::debug!(alert = %alert.id, delivery = %no, %error, "a receipt could not be polled"),
        }
    }

    /// Books what is known, again and again while the store fails, until `until`. After that the lease, or the next
    /// look-up, finds it out once more: nothing is lost by giving up here.
    async fn book<F, Fut>(&self, alert: Alert, until: Timestamp, booking: F)
    where
        F: Fn(Alert) -> Fut,
        Fut: Future<Output = Result<(), ServiceError>>,
    {
        let id = alert.id;
        let mut alert = Some(alert);
        let mut pause = BOOKING_PAUSE;
        loop {
            // After a failure the alert may have changed: it is loaded afresh.
            let booked = match alert.take() {
                Some(alert) => booking(alert).await,
                None => match self.service.load(id).await {
                    Ok(alert) => booking(alert).await,
                    Err(error) => Err(error),
                },
            };
            match booked {
                Ok(()) => return,
                Err(error @ (ServiceError::Store(_) | ServiceError::Busy)) => {
                    if self.clock.now() > until {
                        tracing::error!(alert = %id, %error, "what came of an attempt could not be booked: it will be found out again");
                        return;
                    }
                    tracing::warn!(alert = %id, %error, "booking again");
                    self.clock.sleep(pause).await;
                    pause = pause.saturating_mul(2).min(BOOKING_PAUSE_MAX);
                }
                Err(error) => {
                    tracing::error!(alert = %id, %error, "what came of an attempt does not fit the alert");
                    return;
                }
            }
        }
    }
}

/// Of the messages that may be an attempt's, the oldest with its very text, else the oldest whose text is not known as
/// another one's. `candidates` come newest first.
fn fitting<'a>(
    candidates: impl Iterator<Item = &'a ListedMessage>,
    alert: &Alert,
    disclosed: Option<&Disclosed>,
) -> Option<Receipt> {
    let wanted = disclosed.map(|disclosed| disclosed.text_sha256.as_str());
    let texts: Vec<&str> = alert
        .deliveries
        .iter()
        .flat_map(|delivery| &delivery.attempts)
        .map(|attempt| attempt.disclosed.text_sha256.as_str())
        .collect();
    let (mut exact, mut unknown) = (None, None);
    for listed in candidates {
        let text = text_sha256(&listed.body);
        if Some(text.as_str()) == wanted {
            exact = Some(&listed.receipt);
        } else if !texts.contains(&text.as_str()) {
            unknown = Some(&listed.receipt);
        }
    }
    exact.or(unknown).cloned()
}

/// A number that cannot be opened is a fault of the set-up; a store that cannot be read may recover.
fn unreadable_number(error: &ServiceError) -> SendOutcome {
    if let ServiceError::Sealed(_) = error {
        return SendOutcome::Refused(ProviderFault { code: None, class: ErrorClass::Config, delay_s: None });
    }
    SendOutcome::NotExecuted { retry_after: None, fault: None }
}

fn outcome_word(outcome: &SendOutcome) -> &'static str {
    match outcome {
        SendOutcome::Accepted { .. } => "accepted",
        SendOutcome::NotExecuted { .. } => "not executed",
        SendOutcome::NotBegun { .. } => "held back",
        SendOutcome::Refused(_) => "refused",
        SendOutcome::Unknown { .. } => "unknown",
    }
}
