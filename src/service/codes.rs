//! Codes that prove that a number reaches the person: drawn, kept as a keyed hash, sent, and confirmed.
//!
//! A code is durable before it is sent, so that whatever reaches the phone can be confirmed; and the call to the provider is
//! no part of the change.

use super::caller::Caller;
use super::contacts::OpenedContact;
use super::{Service, ServiceError};
use crate::domain::contact::{Channel, Language, PhoneNumber};
use crate::domain::ids::{AddressKey, CodeHash, ContactId, OrganisationId, ProviderId};
use crate::domain::message::{code_text, text_sha256};
use crate::domain::provider::{ErrorClass, ProviderFault};
use crate::domain::roster::{CODE_LASTS, Change, CodeTaken, OptOutBy, Outcome, Rejection};
use crate::ports::{HashPurpose, KeyringError, MessageContent, MessageRequest, SealedField, random};

/// How codes are sent over WhatsApp, which takes free text for a day after the person has written only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhatsappCode {
    /// As free text: where no real phone is reached.
    FreeText,
    /// By an approved template, whose first variable is the code.
    Template(String),
    /// Not at all: there is no template.
    Missing,
}

/// How a college sends codes.
#[derive(Debug, Clone)]
pub struct CodeTexts {
    /// What the college is called in messages.
    pub sender: String,
    /// Over WhatsApp.
    pub whatsapp: WhatsappCode,
}

/// A code that is durable, and about to be sent.
pub struct CodeToSend {
    /// What is to be sent.
    pub request: MessageRequest,
    /// Until when it counts.
    pub until: jiff::Timestamp,
    organisation: OrganisationId,
    contact: ContactId,
    channel: Channel,
    address: AddressKey,
    hash: CodeHash,
    /// What stands in the audit of what was sent.
    written: (Option<String>, Option<String>),
}

/// What came of a code that somebody said.
pub enum Confirmed {
    /// It is the one: the method is verified.
    Right(Box<OpenedContact>),
    /// It is not; so many more may be tried.
    Wrong {
        /// How many.
        tries_left: u32,
    },
}

impl Service {
    /// Draws a code for a method, and keeps it: it is to be sent next.
    pub async fn begin_verification(
        &self,
        caller: &Caller,
        contact: &ContactId,
        channel: Channel,
    ) -> Result<CodeToSend, ServiceError> {
        let organisation = self.organisation(&caller.organisation)?;
        self.require_way(channel, &organisation.codes)?;
        let code = format!("{:06}", u64::from_le_bytes(random(self.entropy.as_ref())) % 1_000_000);
        let id = &organisation.id;
        let hash_for = |address| self.code_hash(id, contact, channel, address, &code);
        let changed = self
            .change_as(caller, |roster| {
                let known = roster.contact(contact).ok_or(Rejection::NoSuchContact)?;
                let method = known.method(channel).ok_or(Rejection::NoSuchMethod)?;
                Ok(Change::SendCode { id: contact.clone(), channel, hash: hash_for(method.address_key) })
            })
            .await?;
        let known = changed.roster.contact(contact).ok_or(ServiceError::NotFound)?;
        let method = known.method(channel).ok_or(ServiceError::NotFound)?;
        let key = self.kept_data_key(id, known.person).await?;
        let number = key.open(SealedField::Address, &method.address)?;
        let to: PhoneNumber = number.parse().map_err(|_| ServiceError::Sealed(KeyringError::Malformed))?;
        let content = content(channel, &organisation.codes, &known.language, &code);
        let written = match content_for_audit(channel, &organisation.codes, &known.language) {
            MessageContent::Template { content_sid, .. } => (Some(content_sid), None),
            MessageContent::Body(text) => (None, Some(text_sha256(&text))),
            // No code is said by a call.
            MessageContent::Call => (None, None),
        };
        let until = method.code.as_ref().map_or_else(|| self.clock.now(), |code| code.until());
        tracing::info!(contact = %contact, channel = channel.as_str(), "a code is sent");
        Ok(CodeToSend {
            request: MessageRequest { attempt: None, channel, to, content },
            until,
            organisation: id.clone(),
            contact: contact.clone(),
            channel,
            address: method.address_key,
            hash: hash_for(method.address_key),
            written,
        })
    }

    /// The provider has a code (`provider_id`), or may have it: the audit says so. Nothing depends on that, so that whoever asked
    /// hears that it was sent also where it cannot be written down.
    pub async fn code_was_taken(&self, caller: &Caller, sent: &CodeToSend, provider_id: Option<&ProviderId>) {
        let (content_sid, text_sha256) = sent.written.clone();
        let taken = CodeTaken { provider_id: provider_id.cloned(), content_sid, text_sha256 };
        let CodeToSend { contact, channel, address, .. } = sent;
        let change = Change::CodeTaken { id: contact.clone(), channel: *channel, address: *address, taken };
        if let Err(error) = self.change_as(&caller.clone().until(None), |_| Ok(change.clone())).await {
            tracing::error!(contact = %contact, channel = channel.as_str(), %error, "that a code was sent is not in the audit");
        }
    }

    /// The provider did not take a code, for certain: it counts no more, and the audit says so. Where the recipient has opted
    /// out, the roster says that, too.
    pub async fn code_was_refused(
        &self,
        caller: &Caller,
        sent: &CodeToSend,
        fault: Option<&ProviderFault>,
    ) -> Result<(), ServiceError> {
        let CodeToSend { contact, channel, hash, .. } = sent;
        let code = fault.and_then(|fault| fault.code);
        let change = Change::CodeNotSent { id: contact.clone(), channel: *channel, hash: *hash, fault: code };
        // Whoever asked may not wait any longer; that it was refused is booked all the same.
        let caller = caller.clone().until(None);
        self.change_as(&caller, |_| Ok(change.clone())).await?;
        if fault.is_some_and(|fault| fault.class == ErrorClass::OptOut) {
            let by = OptOutBy::Provider { code };
            self.opt_out(&sent.organisation, *channel, sent.address, by).await?;
        }
        Ok(())
    }

    /// Somebody says which code has come.
    pub async fn confirm_verification(
        &self,
        caller: &Caller,
        contact: &ContactId,
        channel: Channel,
        code: &str,
    ) -> Result<Confirmed, ServiceError> {
        let id = &self.organisation(&caller.organisation)?.id;
        let changed = self
            .change_as(caller, |roster| {
                let known = roster.contact(contact).ok_or(Rejection::NoSuchContact)?;
                let method = known.method(channel).ok_or(Rejection::NoSuchMethod)?;
                let hash = self.code_hash(id, contact, channel, method.address_key, code);
                Ok(Change::ConfirmCode { id: contact.clone(), channel, hash })
            })
            .await?;
        match changed.outcome {
            Outcome::WrongCode { tries_left } => Ok(Confirmed::Wrong { tries_left }),
            Outcome::Confirmed | Outcome::Done | Outcome::Removed | Outcome::Deactivated => {
                tracing::info!(contact = %contact, channel = channel.as_str(), "a method was verified");
                Ok(Confirmed::Right(Box::new(self.opened_of(changed.roster, contact).await?)))
            }
        }
    }

    fn require_way(&self, channel: Channel, texts: &CodeTexts) -> Result<(), ServiceError> {
        match (channel, &texts.whatsapp) {
            (Channel::Voice, _) => Err(ServiceError::CannotVerify("a number for calls cannot be verified yet")),
            (Channel::Whatsapp, WhatsappCode::Missing) => Err(ServiceError::CannotVerify(
                "WhatsApp takes no code without an approved template: set TWILIO_VERIFICATION_CONTENT_SID",
            )),
            (Channel::Whatsapp | Channel::Sms, _) => Ok(()),
        }
    }

    fn code_hash(
        &self,
        organisation: &OrganisationId,
        contact: &ContactId,
        channel: Channel,
        address: AddressKey,
        code: &str,
    ) -> CodeHash {
        let parts: [&[u8]; 5] = [
            organisation.as_str().as_bytes(),
            contact.as_str().as_bytes(),
            channel.as_str().as_bytes(),
            address.as_bytes(),
            code.as_bytes(),
        ];
        CodeHash::from_bytes(self.keyring.hash(HashPurpose::Code, &parts))
    }
}

/// What is sent, with zeros in the place of the code: whoever reads the audit must not find the code by trying all.
fn content_for_audit(channel: Channel, texts: &CodeTexts, language: &Language) -> MessageContent {
    content(channel, texts, language, "000000")
}

fn content(channel: Channel, texts: &CodeTexts, language: &Language, code: &str) -> MessageContent {
    match (channel, &texts.whatsapp) {
        (Channel::Whatsapp, WhatsappCode::Template(content_sid)) => {
            MessageContent::Template { content_sid: content_sid.clone(), variables: vec![code.to_owned()] }
        }
        (Channel::Whatsapp | Channel::Sms | Channel::Voice, _) => {
            MessageContent::Body(code_text(language, &texts.sender, code, CODE_LASTS.as_secs() / 60))
        }
    }
}
