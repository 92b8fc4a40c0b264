//! Which numbers there can be, and what reaches them: by the numbering plans that Google's libphonenumber keeps.
//!
//! The first look reads the plans of all countries, which takes some tenths of a second: not on a thread that others wait for.

use phonenumber::Type;

use super::contact::{Channel, PhoneNumber};

/// What stands against telling somebody at a number over a channel; `None`: nothing that the numbering plans know of.
pub fn fault_of(channel: Channel, number: &PhoneNumber) -> Option<&'static str> {
    let parsed = phonenumber::parse(None, number.expose()).ok().filter(phonenumber::PhoneNumber::is_valid);
    let Some(parsed) = parsed else {
        return Some("must be a number that there can be, by its country's numbering plan");
    };
    let takes_messages = match parsed.number_type(&phonenumber::metadata::DATABASE) {
        Type::Mobile | Type::FixedLineOrMobile | Type::Voip | Type::PersonalNumber | Type::Unknown => true,
        Type::FixedLine => false,
        Type::TollFree
        | Type::PremiumRate
        | Type::SharedCost
        | Type::Pager
        | Type::Uan
        | Type::Emergency
        | Type::Voicemail
        | Type::ShortCode
        | Type::StandardRate
        | Type::Carrier
        | Type::NoInternational => return Some("must be a person's number, not a service's"),
    };
    match channel {
        Channel::Whatsapp | Channel::Sms if !takes_messages => {
            Some("must not be a landline, which takes no messages: give it under voice")
        }
        Channel::Whatsapp | Channel::Sms | Channel::Voice => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_landline_is_called_a_mobile_is_written_to_and_what_cannot_be_is_refused() {
        let fault = |channel, number: &str| fault_of(channel, &number.parse().unwrap());
        for mobile in ["+919800000017", "+4915112345678", "+12125550123"] {
            assert!(Channel::ALL.into_iter().all(|channel| fault(channel, mobile).is_none()), "{mobile}");
        }
        for landline in ["+911123456789", "+493012345678", "+442079460000"] {
            assert_eq!(fault(Channel::Voice, landline), None, "{landline}");
            assert!(fault(Channel::Sms, landline).is_some_and(|rule| rule.contains("landline")), "{landline}");
            assert!(fault(Channel::Whatsapp, landline).is_some(), "{landline}");
        }
        for impossible in ["+4930", "+919876543", "+910000000000", "+99912345678", "+12"] {
            assert!(fault(Channel::Voice, impossible).is_some_and(|rule| rule.contains("plan")), "{impossible}");
        }
        assert!(fault(Channel::Voice, "+18005550199").is_some_and(|rule| rule.contains("service's")));
    }
}
