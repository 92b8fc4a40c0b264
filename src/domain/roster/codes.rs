//! Codes that prove a number, and phones that take nothing from us. What a code comes to stands in
//! [`super::super::method`]; a college sends as many an hour as it takes to set up everybody.

use super::{Changing, Method, OptOutBy, Outcome, Rejection, SentCode, SettingsDeed};
use crate::domain::contact::Channel;
use crate::domain::ids::{AddressKey, CodeHash, ContactId};
use crate::domain::method::{Said, wait_for_code};

/// How many codes a college sends in an hour.
const COLLEGE_MAX: usize = 120;

impl Changing<'_, '_> {
    pub(super) fn send_code(&mut self, id: &ContactId, channel: Channel, hash: CodeHash) -> Result<Outcome, Rejection> {
        let now = self.cx.now;
        let contact = &self.roster.contacts[self.place(id)?];
        let method = contact.method(channel).ok_or(Rejection::NoSuchMethod)?;
        if !contact.active {
            return Err(Rejection::Inactive);
        }
        if method.standing.is_usable() {
            return Err(Rejection::AlreadyVerified);
        }
        let address = method.address_key;
        let wait = wait_for_code(&mut self.roster.codes_sent, now, channel, address, COLLEGE_MAX);
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
        if let Some((id, method)) = self.method_at(channel, address)
            && method.opt_out(since)
        {
            self.record(&SettingsDeed::MethodOptedOut { contact: &id, channel, address, by });
        }
        Outcome::Done
    }

    pub(super) fn opt_in(&mut self, channel: Channel, address: AddressKey) -> Outcome {
        if let Some((id, method)) = self.method_at(channel, address)
            && method.opt_in()
        {
            self.record(&SettingsDeed::MethodOptedIn { contact: &id, channel, address });
        }
        Outcome::Done
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
