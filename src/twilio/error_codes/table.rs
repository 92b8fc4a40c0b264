//! The rows. Data only: what they mean to the service stands in the parent module.

use super::{ErrorCode, Phase};
use crate::domain::provider::{ErrorClass, FaultMark};

/// Builds the rows: code, when it is said, class, the pause in seconds for a `Delay`, a mark, meaning, remedy.
macro_rules! rows {
    ($($code:literal $phase:ident $class:ident $(($from:literal, $to:literal))? $([$mark:ident])? $meaning:literal, $remedy:expr;)*) => {
        /// Every code that the service knows, sorted by number.
        pub static TABLE: &[ErrorCode] = &[$(ErrorCode {
            code: $code,
            phase: Phase::$phase,
            class: ErrorClass::$class,
            delay_s: rows!(@pause $($from, $to)?),
            mark: rows!(@mark $($mark)?),
            meaning: $meaning,
            remedy: $remedy,
        }),*];
    };
    (@mark) => { None };
    (@mark $mark:ident) => { Some(FaultMark::$mark) };
    (@pause) => { None };
    (@pause $from:literal, $to:literal) => { Some(($from, $to)) };
}

const REOPEN_ACCOUNT: &str =
    "Open the Twilio console, settle what it asks for (payment, verification) and have the account reopened.";
const CHECK_CREDENTIALS: &str = "Check the account SID and the token or API key, that both belong to the same account and region, and that the key is allowed to send messages.";
const REPORT: &str = "This is a fault of the service: report it with the attempt's id.";
const NUMBER: &str = "Correct the number in the contact's record, with its country code.";
const OWN_SENDER: &str =
    "Set the sender to a number of this Twilio account that can send to this country over this channel.";
const GEO_SMS: &str = "Switch the country on in the Twilio console under Messaging, Settings, Geo permissions.";
const GEO_VOICE: &str = "Switch the country on in the Twilio console under Voice, Settings, Geo permissions.";
const UPGRADE: &str = "Upgrade the Twilio account, or verify the recipient's number in the console for a trial.";
const SERVICE_SENDERS: &str = "Add a sender to the messaging service that can reach this country over this channel.";
const REGISTER: &str =
    "Finish the sender's registration in the Twilio console under Regulatory compliance or Trust hub.";
const SENDER_HEALTH: &str = "Look at the WhatsApp sender in the Twilio console and at the business account in Meta's Business Manager, and mend what they report.";
const TEMPLATE_TEXT: &str = "Compare the template with what the service fills in: as many variables, none empty, no line breaks; then have it approved again.";
const TEMPLATE_STATE: &str =
    "Open the template in the Twilio console under Content template builder, and replace it by one that is approved.";
const ASK_PERSON: &str = "Ask the person by another way whether the number is right and the phone works.";
const WAIT: &str = "Nothing to do at once; if it lasts, look at Twilio's status page and ask its support.";
const MORE_CAPACITY: &str = "Send bulk messages over another sender, or ask Twilio for a higher rate.";
const NO_MEDIA: &str = "The service sends no media: look for another program that uses this account, or report it.";

rows! {
    10001 Both Config "The Twilio account is not active.", REOPEN_ACCOUNT;
    13227 Sync Config "Calls to this country are switched off for the account.", GEO_VOICE;
    14107 Async Delay (35, 120) [Alarm] "Twilio's loop guard: more than 30 messages went to this number with less than 30 seconds between them.",
        "Look for a second system that sends to the same number, and for a policy that repeats too fast.";
    20001 Sync Config "Twilio does not know one of the request's parameters.", REPORT;
    20003 Sync Config "Twilio refuses the credentials, or the account is suspended.", CHECK_CREDENTIALS;
    20004 Sync Config "Twilio does not allow this method on this address.", REPORT;
    20005 Both Config "The Twilio account is suspended or closed.", REOPEN_ACCOUNT;
    20006 Sync Config "The credentials may not use this part of Twilio.", CHECK_CREDENTIALS;
    20008 Sync Config "Test credentials were used where only live ones work.",
        "Put the account's live credentials into the configuration.";
    20403 Both Config "Twilio forbids the request, as a rule because the account is suspended or short of funds.",
        REOPEN_ACCOUNT;
    20404 Sync Config "Twilio does not find the account, the message or the address that was asked for.",
        "Check the account SID, the region and the base address in the configuration.";
    20422 Sync Config "Twilio refuses the value of one of the request's parameters.", REPORT;
    20429 Sync Retry "Too many requests at the same time; this one was not carried out.",
        "Nothing to do at once; if it comes often, lower the concurrency or ask Twilio for a higher limit.";
    20500 Sync Ambiguous "Twilio met an internal error; the message may or may not have been sent.", WAIT;
    20503 Sync Ambiguous "Twilio is not available just now; the message may or may not have been sent.", WAIT;
    21210 Sync Config "The calling number is neither verified nor one of the account's own.", OWN_SENDER;
    21211 Sync Switch [BadNumber] "The recipient's number is not a valid phone number.", NUMBER;
    21212 Sync Config "The sender is not a valid number.", OWN_SENDER;
    21213 Sync Config "The call named no calling number.", OWN_SENDER;
    21214 Sync Switch [BadNumber] "The number cannot be reached by a call.", NUMBER;
    21215 Sync Config "Calls to this country or number range are switched off for the account.", GEO_VOICE;
    21216 Sync Switch [Alarm] "Twilio blocks calls to this number; for numbers beginning with +1 also where the account has no approved customer profile.",
        "Complete the primary customer profile in the Twilio console; otherwise use another number for this contact.";
    21217 Sync Switch [BadNumber] "The number to be called does not look like a valid one.", NUMBER;
    21219 Sync Config "A trial account may only call verified numbers.", UPGRADE;
    21408 Sync Config "Messages to this country are switched off for the account.", GEO_SMS;
    21602 Sync Config "The message had no text.", REPORT;
    21603 Sync Config "The message named no sender.", "Set a sender or a messaging service in the configuration.";
    21604 Sync Config "The message named no recipient.", REPORT;
    21605 Sync Config "The text is longer than this sender may send.", "Shorten the message template.";
    21606 Sync Config "The sender is not the account's own, or cannot send to this recipient over this channel.",
        OWN_SENDER;
    21607 Sync Config "A trial account may only send from the number that it was given.", UPGRADE;
    21608 Sync Config "A trial account may only send to verified numbers.", UPGRADE;
    21609 Sync Config "Twilio refuses the address for status callbacks.",
        "Set the public base address to one that Twilio can reach: a full https address whose host name has no underscore.";
    21610 Both OptOut "The recipient has sent STOP to this sender, and Twilio blocks all further messages.",
        "Talk to the person: sending START to the sender's number lifts the block. Until then give them another channel.";
    21611 Sync Delay (300, 3600) "The sender's queue already holds ten hours of messages.", MORE_CAPACITY;
    21612 Sync Switch "There is no way from this sender to this recipient.",
        "Use a sender that serves the recipient's country, or give this contact another channel.";
    21614 Sync Switch [BadNumber] "The number cannot receive text messages; it is probably a landline.",
        "Enter a mobile number for this contact, or reach them by voice.";
    21617 Sync Config "The text is longer than 1600 characters.", "Shorten the message template.";
    21619 Sync Config "The message had neither text, media nor template.", REPORT;
    21620 Sync Config "The address of an attached medium is not valid.", NO_MEDIA;
    21623 Sync Config "The message had more media attached than Twilio takes.", NO_MEDIA;
    21626 Sync Config "The message's validity period is out of range.", REPORT;
    21635 Sync Switch [BadNumber] "The number is a landline and cannot receive text messages.",
        "Enter a mobile number for this contact, or reach them by voice.";
    21654 Sync Config "Template variables were given without a template.", REPORT;
    21655 Sync Config "Twilio does not know the template's id.",
        "Check that the content SID (HX…) in the configuration belongs to this account.";
    21656 Sync Config "The template's variables are not readable, or one of them is empty.", TEMPLATE_TEXT;
    21658 Sync Config "Twilio refuses the template's parameters in this message.", TEMPLATE_TEXT;
    21659 Sync Config "The sender is not a Twilio number.", OWN_SENDER;
    21660 Sync Config "The sender belongs to another Twilio account.", OWN_SENDER;
    21703 Both Config "The messaging service has no sender.", SERVICE_SENDERS;
    21704 Both Config "The messaging service has no sender that fits this recipient.", SERVICE_SENDERS;
    21705 Sync Config "Twilio does not know the messaging service.",
        "Check that the messaging service SID (MG…) in the configuration belongs to this account.";
    21910 Sync Config "Sender and recipient are on different channels.",
        "Check that the WhatsApp sender and the SMS sender are not mixed up in the configuration.";
    30001 Async Delay (300, 3600) "The messaging service's queue overflowed.", MORE_CAPACITY;
    30002 Both Config "The account was suspended while the message was waiting.", REOPEN_ACCOUNT;
    30003 Async Delay (120, 600) "The phone is switched off or has no signal.", ASK_PERSON;
    30004 Async Switch "The recipient or their carrier blocks messages from this sender.",
        "Ask the person to unblock the sender, or give them another channel.";
    30005 Async Switch [BadNumber] "The number does not exist any more, or cannot receive messages.", ASK_PERSON;
    30006 Async Switch [BadNumber] "The number is a landline or its carrier cannot be reached.",
        "Enter a mobile number for this contact, or reach them by voice.";
    30007 Async Switch [AlarmOnRepeats] "The message was filtered as spam by the carrier or by Twilio.",
        "If it comes again, make the template plainer, register the sender, and ask Twilio's support with the message SID.";
    30008 Async Delay (60, 300) "The carrier gave no reason for not delivering.", WAIT;
    30017 Async Delay (30, 600) "The recipient's carrier is congested.", WAIT;
    30018 Async Config "The recipient's country wants senders to be registered beforehand.", REGISTER;
    30019 Async Config "The content is too large for the carrier.", "Shorten the message template.";
    30022 Async Delay (30, 600) "More messages were sent in a minute than the registered campaign may send.",
        MORE_CAPACITY;
    30023 Async Switch "The registered brand has used up its messages for today.", MORE_CAPACITY;
    30024 Async Config "The sender is not provisioned at the recipient's carrier.", REGISTER;
    30027 Async Switch "The carrier's daily limit for the registered brand is used up.", MORE_CAPACITY;
    30029 Sync Config "The request asks Twilio not to keep the text, which the account does not offer.",
        "Have Message Redaction switched on for the account, or leave the setting out.";
    30030 Sync Config "The request asks Twilio not to keep the number, which the account does not offer.",
        "Have Message Redaction switched on for the account, or leave the setting out.";
    30032 Async Config "The toll-free sender is not verified.", REGISTER;
    30033 Async Config "The campaign that the sender is registered for is suspended.", REGISTER;
    30034 Async Config "The sender is a number of the USA without a registered campaign.", REGISTER;
    30035 Async Config "The sender's registration for its campaign is not finished yet.", REGISTER;
    30036 Async Switch "The message waited longer than it was valid.", MORE_CAPACITY;
    30400 Sync Config "Twilio refuses a change to an existing message.", REPORT;
    30410 Async Ambiguous "The carrier's side timed out; the message may or may not have arrived, and Twilio does not send it again.",
        WAIT;
    30450 Async Switch "Twilio suspects artificial traffic to this number range and blocks it, as a rule for 15 to 30 minutes.",
        "Put the contacts' numbers on Twilio's global safe list.";
    63001 Both Config "WhatsApp refuses the credentials of our sender.", SENDER_HEALTH;
    63002 Both Config "WhatsApp does not find our sender.", SENDER_HEALTH;
    63003 Async Switch [BadNumber] "The number is not on WhatsApp, or is not valid.",
        "Ask whether the person uses WhatsApp on this number; otherwise enter SMS or voice for them.";
    63005 Async Config "WhatsApp does not accept the content.", TEMPLATE_TEXT;
    63006 Async Config "Twilio could not bring the content into WhatsApp's form.", TEMPLATE_TEXT;
    63007 Both Config "The account has no WhatsApp sender with this number.",
        "Set the WhatsApp sender to one that the Twilio console shows as online.";
    63008 Both Config "The WhatsApp sender is not set up completely.", SENDER_HEALTH;
    63009 Async Delay (30, 300) "WhatsApp answered Twilio with an error.", WAIT;
    63010 Async Delay (30, 300) "Twilio's connection to WhatsApp met an internal error.", WAIT;
    63011 Async Config "WhatsApp calls the request invalid.", TEMPLATE_TEXT;
    63012 Async Delay (30, 300) "WhatsApp met an internal error.", WAIT;
    63013 Async Config "The message breaks one of WhatsApp's rules.", TEMPLATE_TEXT;
    63014 Async OptOut "The recipient has blocked or opted out of our WhatsApp sender.",
        "Talk to the person: they can unblock the sender in WhatsApp. Until then give them another channel.";
    63015 Async Config "The recipient has not joined the WhatsApp sandbox, or joined more than three days ago.",
        "Let the person send the join code to the sandbox number, or use a WhatsApp sender of your own.";
    63016 Async Template "Free text may only be sent within 24 hours of the recipient's last message.",
        "Set an approved utility template for this kind of message.";
    63017 Both Retry "The account sends more than 2000 channel messages a second.", MORE_CAPACITY;
    63018 Async Delay (30, 86400) "The sender has reached WhatsApp's rate, or the number of people it may write to in 24 hours.",
        "Look at the sender's messaging limit in Meta's Business Manager and have it raised.";
    63019 Async Config "WhatsApp could not load the attached medium.", NO_MEDIA;
    63020 Both Config "The WhatsApp business account has not accepted Twilio as its partner, or Meta reports an error with it.",
        SENDER_HEALTH;
    63021 Async Config "WhatsApp calls the content invalid, for example because it is longer than 1024 characters.",
        TEMPLATE_TEXT;
    63022 Both Config "The display name of the WhatsApp sender is not certified.", SENDER_HEALTH;
    63023 Async Delay (30, 300) "The channel failed without a reason.", WAIT;
    63024 Async Switch [BadNumber] "WhatsApp does not accept this recipient.",
        "Ask whether the person uses WhatsApp on this number; otherwise enter SMS or voice for them.";
    63026 Both Config "Meta refuses the business account behind our WhatsApp sender.", SENDER_HEALTH;
    63027 Async Config "The template does not exist in this language.", TEMPLATE_STATE;
    63028 Async Config "The template has another number of variables than were filled in.", TEMPLATE_TEXT;
    63029 Async Switch "The recipient's phone could not load the template.",
        "Ask the person to update WhatsApp.";
    63030 Async Config "The message has a parameter that this kind of content does not allow.", TEMPLATE_TEXT;
    63031 Sync Config "Sender and recipient are the same number.",
        "Remove the service's own number from the contacts.";
    63032 Async Switch "Meta holds this recipient back from business messages for a while.",
        "Give this contact SMS or voice as a second channel.";
    63033 Async Switch "The recipient has blocked our sender; an old code that Twilio no longer uses.",
        "Ask the person to unblock the sender, or give them another channel.";
    63034 Async Config "The attached medium is too large.", NO_MEDIA;
    63036 Async Switch "The recipient cannot be reached over RCS.",
        "Give this contact SMS or voice as a second channel.";
    63038 Sync Config "The account has used up its messages for today.",
        "Upgrade the Twilio account, or ask its support to raise the daily limit.";
    63040 Async Config "WhatsApp has rejected the template.", TEMPLATE_STATE;
    63041 Async Config "WhatsApp has paused the template, since recipients complained.", TEMPLATE_STATE;
    63042 Async Config "WhatsApp has disabled the template for good.", TEMPLATE_STATE;
    63049 Async Switch [Alarm] "Meta chose not to deliver a marketing template; to numbers of the USA it never does.",
        "Have the template approved in the category Utility.";
    63051 Both Config "Meta has locked the WhatsApp business account.", SENDER_HEALTH;
    63062 Both Config "Meta has restricted the WhatsApp business account.", SENDER_HEALTH;
    70051 Sync Config "The API key is restricted and may not do this.", CHECK_CREDENTIALS;
    572006 Sync Config "A trial account may only send Twilio's own predefined templates.", UPGRADE;
}
