//! The organisation's templates, filled from an alert's facts.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;

use super::StartError;
use crate::config::{Config, Sid};
use crate::domain::alert::{Compose, Facts};
use crate::domain::contact::Language;
use crate::domain::message::{
    BandThresholds, ComposeError, Composed, Desk, LinkBase, MessageFacts, Purpose, SenderName, Speech, TemplateSet,
    UrgencyBand,
};
use crate::ports::Fault;

/// Makes the texts of one organisation.
pub(super) struct OrganisationComposer {
    templates: TemplateSet,
    time_zone: TimeZone,
    bands: BandThresholds,
    link: Option<LinkBase>,
    sender: SenderName,
    desk: Option<Desk>,
    content_sids: BTreeMap<Language, Sid>,
    notice_sids: BTreeMap<(Purpose, Language), Sid>,
}

impl OrganisationComposer {
    /// From which severity on a case is in which band.
    pub(super) const fn bands(&self) -> BandThresholds {
        self.bands
    }

    pub(super) fn new(config: &Config, templates: TemplateSet) -> Result<Self, StartError> {
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
        Ok(Self {
            templates,
            time_zone: config.organisation.time_zone.clone(),
            bands,
            link: link.flatten(),
            sender,
            desk,
            content_sids: config.templates.content_sids.clone(),
            notice_sids: config.templates.notice_sids.clone(),
        })
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
        let language = self.templates.language_for(facts.language);
        let (channel, wanted, message) = (facts.channel, facts.language, self.message(facts));
        made(match facts.purpose {
            Purpose::CounsellorAlert => {
                let sid = self.content_sids.get(language).map(Sid::as_str);
                self.templates.compose(channel, wanted, &message, sid)
            }
            notice @ (Purpose::TakenNotice | Purpose::OutcomeReminder | Purpose::FollowUpReminder) => {
                let sid = self.notice_sids.get(&(notice, language.clone())).map(Sid::as_str);
                self.templates.compose_notice(notice, channel, wanted, &message, facts.taken_by, sid)
            }
            purpose @ Purpose::EmergencyContact => {
                // It is looked for before anything is planned; it may have been taken out of the settings since.
                let desk = self.desk.as_ref()?;
                let sid = self.notice_sids.get(&(purpose, language.clone())).map(Sid::as_str);
                self.templates.compose_emergency(channel, wanted, facts.reference, &self.sender, desk, sid)
            }
        })
    }

    fn speech(&self, facts: &Facts<'_>) -> Option<Speech> {
        if facts.purpose == Purpose::EmergencyContact {
            let desk = self.desk.as_ref()?;
            return made(self.templates.emergency_speech(facts.language, facts.reference, &self.sender, desk));
        }
        made(self.templates.speech(facts.language, &self.message(facts)))
    }

    fn has_desk(&self) -> bool {
        self.desk.is_some()
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
