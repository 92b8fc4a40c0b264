//! Codes that prove a number, and phones that take nothing from us. What a code comes to stands in
//! [`super::super::method`]; a college sends as many an hour as it takes to set up everybody.

use super::{
    Changing, Method, OPTED_OUT_MAX, OptOutBy, OptedOutNumber, Outcome, REFUSED_MAX, RefusedNumber, Rejection,
    SentCode, SettingsDeed,
};
use crate::domain::contact::Channel;
use crate::domain::ids::{AddressKey, CodeHash, ContactId, ProviderId};
use crate::domain::method::{Said, Standing, wait_for_code};

/// How many codes a college sends in an hour.
const COLLEGE_MAX: usize = 120;

/// What was sent as a code, and what the provider said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeTaken {
    /// The provider's id of the message; `None`: it did not answer, so that the code may come or not.
    pub provider_id: Option<ProviderId>,
    /// The approved template that was sent; its text is at the provider.
    pub content_sid: Option<String>,
    /// SHA-256 of the text that was sent, with zeros in the place of the code: of the text as it went out the code could be
    /// found by trying a million.
    pub text_sha256: Option<String>,
}

impl CodeTaken {
    /// What is recorded of it.
    pub(in crate::domain) fn deed<'a>(
        &'a self,
        contact: &'a ContactId,
        channel: Channel,
        address: AddressKey,
    ) -> SettingsDeed<'a> {
        let (content_sid, text_sha256) = (self.content_sid.as_deref(), self.text_sha256.as_deref());
        match &self.provider_id {
            Some(provider_id) => {
                SettingsDeed::CodeAccepted { contact, channel, address, provider_id, content_sid, text_sha256 }
            }
            None => SettingsDeed::CodeUnknown { contact, channel, address, content_sid, text_sha256 },
        }
    }
}

impl Changing<'_, '_> {
    /// What came of sending a code, also where the contact is gone meanwhile: it was sent.
    pub(super) fn code_taken(
        &mut self,
        contact: &ContactId,
        channel: Channel,
        address: AddressKey,
        taken: &CodeTaken,
    ) -> Outcome {
        self.record(&taken.deed(contact, channel, address));
        Outcome::Done
    }

    pub(super) fn send_code(&mut self, id: &ContactId, channel: Channel, hash: CodeHash) -> Result<Outcome, Rejection> {
        let now = self.cx.now;
        let contact = &self.roster.contacts[self.place(id)?];
        let method = contact.method(channel).ok_or(Rejection::NoSuchMethod)?;
        if !contact.active {
            return Err(Rejection::Inactive);
        }
        match method.standing {
            Standing::Unverified => {}
            Standing::Verified { .. } => return Err(Rejection::AlreadyVerified),
            // Whoever said STOP is sent nothing, a code included.
            Standing::OptedOut { .. } => return Err(Rejection::OptedOut),
        }
        let address = method.address_key;
        let wait = wait_for_code(&mut self.roster.codes_sent, now, address, COLLEGE_MAX);
        if !wait.is_zero() {
            return Err(Rejection::TooSoon(wait));
        }
        let until = self.method_mut(id, channel)?.expect_code(hash, now);
        self.record(&SettingsDeed::CodeSent { contact: id, channel, address, until });
        self.roster.codes_sent.push(SentCode { at: now, channel, address });
        Ok(Outcome::Done)
    }

    pub(super) fn code_not_sent(
        &mut self,
        id: &ContactId,
        channel: Channel,
        hash: CodeHash,
        code: Option<u32>,
    ) -> Result<Outcome, Rejection> {
        let method = self.method_mut(id, channel)?;
        // Another may have been sent since.
        if method.forget_code(hash) {
            let address = method.address_key;
            self.record(&SettingsDeed::CodeNotSent { contact: id, channel, address, code });
        }
        Ok(Outcome::Done)
    }

    pub(super) fn confirm_code(
        &mut self,
        id: &ContactId,
        channel: Channel,
        said: CodeHash,
    ) -> Result<Outcome, Rejection> {
        let now = self.cx.now;
        let place = self.place(id)?;
        if !self.roster.contacts[place].active {
            return Err(Rejection::Inactive);
        }
        let method = self.method_mut(id, channel)?;
        let address = method.address_key;
        match method.confirm(said, now).ok_or(Rejection::NoCode)? {
            Said::Right => {
                self.roster.contacts[place].was_verified = true;
                // What came back has arrived.
                self.forget_refusal(channel, address);
                self.record(&SettingsDeed::MethodVerified { contact: id, channel, address });
                Ok(Outcome::Confirmed)
            }
            Said::Wrong(tries_left) => {
                self.record(&SettingsDeed::CodeWrong { contact: id, channel, address, tries_left });
                Ok(Outcome::WrongCode { tries_left })
            }
        }
    }

    pub(super) fn opt_out(&mut self, channel: Channel, address: AddressKey, by: OptOutBy) -> Outcome {
        let since = self.cx.now;
        match self.method_at(channel, address) {
            Some((id, method)) => {
                if method.opt_out(since) {
                    self.record(&SettingsDeed::MethodOptedOut { contact: Some(&id), channel, address, by });
                }
            }
            // Somebody outside the team, whom students have named.
            None => {
                if !self.roster.is_opted_out(channel, address) {
                    self.roster.opted_out.push(OptedOutNumber { channel, address, since });
                    self.drop_oldest_opted_out();
                    self.record(&SettingsDeed::MethodOptedOut { contact: None, channel, address, by });
                }
            }
        }
        Outcome::Done
    }

    pub(super) fn drop_oldest_opted_out(&mut self) {
        // Each channel has its own room: who can be anybody on one must not push out who said so on another.
        for channel in Channel::ALL {
            let of_it = |known: &OptedOutNumber| known.channel == channel;
            let mut excess =
                self.roster.opted_out.iter().filter(|known| of_it(known)).count().saturating_sub(OPTED_OUT_MAX);
            self.roster.opted_out.retain(|known| {
                let goes = of_it(known) && excess > 0;
                excess -= usize::from(goes);
                !goes
            });
        }
    }

    pub(super) fn opt_in(&mut self, channel: Channel, address: AddressKey) -> Outcome {
        let Some((id, method)) = self.method_at(channel, address) else {
            if self.roster.is_opted_out(channel, address) {
                self.roster.opted_out.retain(|known| (known.channel, known.address) != (channel, address));
                self.record(&SettingsDeed::MethodOptedIn { contact: None, channel, address });
            }
            return Outcome::Done;
        };
        if method.opt_in() {
            self.record(&SettingsDeed::MethodOptedIn { contact: Some(&id), channel, address });
        }
        Outcome::Done
    }

    pub(super) fn number_refused(
        &mut self,
        contact: &ContactId,
        channel: Channel,
        address: AddressKey,
        code: u32,
    ) -> Outcome {
        if self.roster.refused_code(channel, address).is_none() {
            self.roster.refused.push(RefusedNumber { channel, address, code, since: self.cx.now });
            let excess = self.roster.refused.len().saturating_sub(REFUSED_MAX);
            self.roster.refused.drain(..excess);
            self.record(&SettingsDeed::NumberRefused { contact, channel, address, code });
        }
        Outcome::Done
    }

    pub(super) fn number_reached(&mut self, contact: &ContactId, channel: Channel, address: AddressKey) -> Outcome {
        if self.forget_refusal(channel, address) {
            self.record(&SettingsDeed::NumberReached { contact, channel, address });
        }
        Outcome::Done
    }

    /// Returns whether there was one.
    pub(super) fn forget_refusal(&mut self, channel: Channel, address: AddressKey) -> bool {
        let before = self.roster.refused.len();
        self.roster.refused.retain(|known| (known.channel, known.address) != (channel, address));
        self.roster.refused.len() < before
    }

    fn method_mut(&mut self, id: &ContactId, channel: Channel) -> Result<&mut Method, Rejection> {
        let place = self.place(id)?;
        let mut methods = self.roster.contacts[place].methods.iter_mut();
        methods.find(|method| method.channel == channel).ok_or(Rejection::NoSuchMethod)
    }

    fn method_at(&mut self, channel: Channel, address: AddressKey) -> Option<(ContactId, &mut Method)> {
        self.roster.contacts.iter_mut().find_map(|contact| {
            contact
                .methods
                .iter_mut()
                .find(|method| method.is_at(channel, address))
                .map(|method| (contact.id.clone(), method))
        })
    }
}
