//! The organisation's templates, filled from an alert's facts.

use std::sync::Arc;

use jiff::tz::TimeZone;

use super::StartError;
use crate::config::Config;
use crate::domain::alert::{Compose, Facts};
use crate::domain::contact::Language;
use crate::domain::message::{
    BandThresholds, ComposeError, Composed, Desk, LinkBase, MessageFacts, Purpose, SenderName, Speech, Texts,
    UrgencyBand, Written,
};
use crate::ports::Fault;

/// Makes the texts of one organisation.
pub(super) struct OrganisationComposer {
    texts: Arc<Texts>,
    time_zone: TimeZone,
    bands: BandThresholds,
    link: Option<LinkBase>,
    sender: SenderName,
    desk: Option<Desk>,
}

impl OrganisationComposer {
    /// From which severity on a case is in which band.
    pub(super) const fn bands(&self) -> BandThresholds {
        self.bands
    }

    pub(super) fn new(config: &Config, texts: Arc<Texts>) -> Result<Self, StartError> {
        let mut faults = Vec::new();
        let sender = checked(&mut faults, "organisation.name", config.organisation.name.parse());
        let link = config.templates.dashboard_url.as_ref();
        let link =
            link.map(|url| checked(&mut faults, "templates.dashboard_url", url.as_str().trim_end_matches('/').parse()));
        let desk_name = checked(&mut faults, "desk.name", config.desk.name.parse());
        let desk = desk_name.zip(config.desk.phone.clone()).map(|(name, phone)| Desk { name, phone });
        let (high, critical) = (config.decision.band_high, config.decision.band_critical);
        let bands = checked(&mut faults, "decision.band_high", BandThresholds::new(high, critical));
        let (Some(sender), Some(bands), true) = (sender, bands, faults.is_empty()) else {
            return Err(StartError::Faults(faults));
        };
        Ok(Self { texts, time_zone: config.organisation.time_zone.clone(), bands, link: link.flatten(), sender, desk })
    }
}

fn checked<T>(faults: &mut Vec<Fault>, subject: &str, parsed: Result<T, crate::domain::ids::InvalidId>) -> Option<T> {
    parsed
        .map_err(|error| {
            faults.push(super::fault(subject, error.rule, "It stands in messages: see docs/templates.md."))
        })
        .ok()
}

impl Compose for OrganisationComposer {
    fn compose(&self, facts: &Facts<'_>) -> Option<Composed> {
        let Written { content_sid, .. } = self.texts.written(facts.language, facts.purpose);
        let (channel, wanted, message) = (facts.channel, facts.language, self.message(facts));
        made(match facts.purpose {
            Purpose::CounsellorAlert => self.texts.set().compose(channel, wanted, &message, content_sid),
            notice @ (Purpose::TakenNotice | Purpose::OutcomeReminder | Purpose::FollowUpReminder) => {
                self.texts.set().compose_notice(notice, channel, wanted, &message, facts.taken_by, content_sid)
            }
            Purpose::EmergencyContact => {
                // It is looked for before anything is planned; it may have been taken out of the settings since.
                let desk = self.desk.as_ref()?;
                let (reference, sender) = (facts.reference, &self.sender);
                self.texts.set().compose_emergency(channel, wanted, reference, sender, desk, content_sid)
            }
        })
    }

    fn speech(&self, facts: &Facts<'_>) -> Option<Speech> {
        if facts.purpose == Purpose::EmergencyContact {
            let desk = self.desk.as_ref()?;
            return made(self.texts.set().emergency_speech(facts.language, facts.reference, &self.sender, desk));
        }
        made(self.texts.set().speech(facts.language, &self.message(facts)))
    }

    fn has_desk(&self) -> bool {
        self.desk.is_some()
    }

    fn is_approved(&self, wanted: &Language, purpose: Purpose) -> bool {
        self.texts.unapproved(wanted, purpose).is_none()
    }
}

impl OrganisationComposer {
    fn message(&self, facts: &Facts<'_>) -> MessageFacts {
        MessageFacts {
            reference: facts.reference,
            score: facts.score.map(|score| score.value()),
            band: UrgencyBand::of(facts.severity.value(), self.bands),
            raised_at: facts.at,
            respond_by: facts.respond_by,
            time_zone: self.time_zone.clone(),
            link: self.link.clone(),
            sender: self.sender.clone(),
            drill: facts.drill,
        }
    }
}

fn made<T>(text: Result<T, ComposeError>) -> Option<T> {
    text.map_err(|error| tracing::error!(%error, "a message text could not be made")).ok()
}
