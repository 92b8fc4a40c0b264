//! Consent at its smallest: what a student has said about each channel, with time and source.

use serde::Serialize;

use super::caller::Caller;
use super::people::subject_key;
use super::{Along, Changed, Service, ServiceError, TRIES};
use crate::domain::alert::{Alert, Input};
use crate::domain::audit::{Actor, AuditStream};
use crate::domain::consent::{ChannelConsent, ConsentRecord, Ground, ground_for};
use crate::domain::contact::Channel;
use crate::domain::event::Label;
use crate::ports::{ConsentCommit, StoreError};

/// What is to be recorded.
#[derive(Debug, Clone)]
pub struct ConsentChange {
    /// The word on each channel that was spoken about.
    pub channels: Vec<(Channel, bool)>,
    /// Where it was said.
    pub source: Label,
    /// Which notice the student had read.
    pub notice_version: Option<Label>,
}

/// One entry of the chain `consent/<subject>`.
#[derive(Serialize)]
#[serde(tag = "deed", rename_all = "snake_case")]
enum ConsentDeed<'a> {
    ConsentRecorded {
        channel: Channel,
        granted: bool,
        source: &'a Label,
        #[serde(skip_serializing_if = "Option::is_none")]
        notice_version: Option<&'a Label>,
    },
}

impl Service {
    /// What a student has said; `None` if nothing ever was.
    pub async fn consent(&self, caller: &Caller, user_id: &str) -> Result<Option<ConsentRecord>, ServiceError> {
        let organisation = self.organisation(&caller.organisation)?;
        let subject = subject_key(self.keyring.as_ref(), &organisation.id, user_id);
        Ok(self.store.consent(&organisation.id, subject).await?)
    }

    /// Records what a student says. It counts at once: if it takes back the ground of an open alert, nothing more is
    /// sent on it. What is already with Twilio cannot be called back.
    pub async fn record_consent(
        &self,
        caller: &Caller,
        user_id: &str,
        change: &ConsentChange,
    ) -> Result<ConsentRecord, ServiceError> {
        let organisation = self.organisation(&caller.organisation)?;
        let subject = subject_key(self.keyring.as_ref(), &organisation.id, user_id);
        let actor = caller.actor(self.keyring.as_ref(), None);
        let now = self.clock.now();
        for _ in 0..TRIES {
            let known = self.store.consent(&organisation.id, subject).await?;
            let mut record = known.unwrap_or_else(|| ConsentRecord::empty(organisation.id.clone(), subject));
            record.version += 1;
            let mut audit = Vec::new();
            for (channel, granted) in &change.channels {
                let (source, notice_version) = (change.source.clone(), change.notice_version.clone());
                let deed = ConsentDeed::ConsentRecorded {
                    channel: *channel,
                    granted: *granted,
                    source: &source,
                    notice_version: notice_version.as_ref(),
                };
                audit.push(record.audit_head.append(AuditStream::Consent(subject), now, &actor, &deed));
                record.channels.insert(*channel, ChannelConsent { granted: *granted, at: now, source, notice_version });
            }
            let newest = audit.last().cloned();
            // A yes that hung on the way must not come after a no that was confirmed meanwhile.
            self.in_time(caller.deadline)?;
            let saved = match self.store.commit_consent(ConsentCommit { record: record.clone(), audit }).await {
                Err(StoreError::Unknown { what }) => match newest {
                    Some(entry) => self.is_stored(&entry).await?,
                    None => return Err(StoreError::Unknown { what }.into()),
                },
                answered => answered?,
            };
            if saved {
                let known = self.store.intake_context(&organisation.id, subject, None).await?;
                if let Some(alert) = known.open_alert {
                    self.judge(alert).await?;
                }
                return Ok(record);
            }
        }
        Err(ServiceError::Busy)
    }

    /// Holds an alert's ground against what the student says now. Done when they say it, and again before anything is
    /// planned or sent anew: a crash between the two changes nothing.
    pub(crate) async fn judge(&self, alert: Alert) -> Result<Judged, ServiceError> {
        let mut alert = alert;
        for _ in 0..TRIES {
            if !matches!(alert.ground, Some(Ground::Consent { .. })) {
                return Ok(Judged { alert, consent_version: None });
            }
            let consent = self.store.consent(&alert.organisation, alert.subject).await?;
            let consent_version = Some(consent_version(consent.as_ref()));
            let live = self.live(&alert.organisation)?;
            // What stands is held against what the student grants, not against who can be reached just now: a number that is
            // being changed takes back no word.
            let mut channels = alert.policy.channels_that_reach(&live.directory);
            channels.extend(alert.ground.iter().flat_map(Ground::consented));
            let ground = ground_for(consent.as_ref(), None, &channels);
            let (id, input) = (alert.id, Input::ConsentJudged { ground });
            // The judgement is checked as well: a late one must not put back what a later word has taken away.
            let along = Along { consent_version, ..Along::default() };
            match self.change_along(alert.clone(), input, &Actor::Service, &along).await? {
                Changed::Nothing => return Ok(Judged { alert, consent_version }),
                Changed::Made(transition) => return Ok(Judged { alert: transition.alert, consent_version }),
                Changed::ConsentOutdated | Changed::AnsweredBefore | Changed::NoPlace => alert = self.load(id).await?,
            }
        }
        Err(ServiceError::Busy)
    }
}

/// An alert whose ground holds.
pub(crate) struct Judged {
    pub(crate) alert: Alert,
    /// The student's word by which it holds; `None`: it rests on none. What is done on this ground is committed with this
    /// version, so that it is refused if they have said something else by then.
    pub(crate) consent_version: Option<u64>,
}

/// The version of what a student has said, as commits name it: 0 where there is nothing.
pub(crate) fn consent_version(record: Option<&ConsentRecord>) -> u64 {
    record.map_or(0, |record| record.version)
}
