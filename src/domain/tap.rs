//! A tap on a button of ours: what it asks for, and under which message the button stands.
//!
//! A button's id is what comes back as `ButtonPayload`: `1.` and a ticket. Nobody sees it and nobody can type it, for Twilio
//! fills that field for a tap alone. The ticket names the delivery and proves itself by a keyed hash, so nothing is stored
//! for it, and it says nothing about anybody. It is needed where WhatsApp does not tell which message was answered, and
//! hides the number besides. It is no pass: who shows a number is held to it, whatever ticket they bring.

use std::fmt;
use std::str::FromStr;

use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use super::ids::{AlertId, DeliveryNo, InvalidId};
use super::reply::Command;

/// How many bytes of the keyed hash a ticket bears: enough that nobody guesses one.
const PROOF_BYTES: usize = 16;
const ALERT_BYTES: usize = 16;
const DELIVERY_BYTES: usize = 4;
const TICKET_BYTES: usize = ALERT_BYTES + DELIVERY_BYTES + PROOF_BYTES;

/// Names one delivery to whoever taps a button under its message. `Debug` shows the ids, never the proof.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The case.
    pub alert: AlertId,
    /// The message within it.
    pub delivery: DeliveryNo,
    proof: [u8; PROOF_BYTES],
}

impl Ticket {
    /// The ticket of a delivery. `hash` is the keyed hash of both ids.
    pub fn new(alert: AlertId, delivery: DeliveryNo, hash: &[u8; 32]) -> Self {
        let mut proof = [0; PROOF_BYTES];
        proof.copy_from_slice(&hash[..PROOF_BYTES]);
        Self { alert, delivery, proof }
    }

    /// Whether it is the one that we made. Takes as long whatever its proof is.
    pub fn proves_itself_as(&self, ours: &Self) -> bool {
        let same = (self.alert, self.delivery) == (ours.alert, ours.delivery);
        same && bool::from(self.proof.ct_eq(&ours.proof))
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("alert", &self.alert).field("delivery", &self.delivery).finish_non_exhaustive()
    }
}

impl fmt::Display for Ticket {
    /// 58 letters and digits: with what stands before it, less than half of the 128 that an id may have.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; TICKET_BYTES];
        let (ids, proof) = bytes.split_at_mut(ALERT_BYTES + DELIVERY_BYTES);
        let (alert, delivery) = ids.split_at_mut(ALERT_BYTES);
        alert.copy_from_slice(self.alert.0.as_bytes());
        delivery.copy_from_slice(&self.delivery.0.to_be_bytes());
        proof.copy_from_slice(&self.proof);
        f.write_str(&data_encoding::BASE32_NOPAD.encode(&bytes))
    }
}

impl FromStr for Ticket {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let read = || {
            let bytes = data_encoding::BASE32_NOPAD.decode(text.as_bytes()).ok()?;
            let (alert, rest) = bytes.split_first_chunk::<ALERT_BYTES>()?;
            let (delivery, proof) = rest.split_first_chunk::<DELIVERY_BYTES>()?;
            Some(Self {
                alert: AlertId(Uuid::from_bytes(*alert)),
                delivery: DeliveryNo(u32::from_be_bytes(*delivery)),
                proof: proof.try_into().ok()?,
            })
        };
        read().ok_or(InvalidId { rule: "must be the ticket of a message" })
    }
}

/// What a tap says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tap {
    /// What it asks for; `Other` where the id is none of ours.
    pub command: Command,
    /// Under which message it says that its button stands.
    pub ticket: Option<Ticket>,
}

impl Tap {
    /// Reads a button's id. One without a ticket, or with one that cannot be read, asks for what stands before it.
    pub fn read(payload: &str) -> Self {
        match payload.split_once('.') {
            Some((command, ticket)) => Self { command: Command::parse(command), ticket: ticket.parse().ok() },
            None => Self { command: Command::parse(payload), ticket: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ticket() -> Ticket {
        Ticket::new(AlertId(Uuid::from_bytes([7; 16])), DeliveryNo(3), &[0xab; 32])
    }

    #[test]
    fn an_id_is_read_back_as_it_was_written() {
        let payload = format!("1.{}", ticket());
        assert!(payload.len() <= 128 && payload.is_ascii(), "{payload}");
        assert_eq!(Tap::read(&payload), Tap { command: Command::Take(None), ticket: Some(ticket()) });
        let payload = format!("2.{}", ticket());
        assert_eq!(Tap::read(&payload), Tap { command: Command::PassOn(None), ticket: Some(ticket()) });
    }

    #[test]
    fn an_id_without_a_ticket_asks_for_what_it_says() {
        for payload in ["1", "ack", "1.", "1.sample", "1.SAMPLE"] {
            assert_eq!(Tap::read(payload), Tap { command: Command::Take(None), ticket: None }, "{payload}");
        }
        let reference = "K7Q4TX3M".parse().unwrap();
        assert_eq!(Tap::read("1 K7Q4TX3M"), Tap { command: Command::Take(Some(reference)), ticket: None });
        for payload in ["", "ack:9f1c", "something-else", "."] {
            assert_eq!(Tap::read(payload), Tap { command: Command::Other, ticket: None }, "{payload}");
        }
    }

    #[test]
    fn a_ticket_shows_no_proof_in_a_log() {
        let shown = format!("{:?} {:?}", ticket(), Tap::read(&format!("1.{}", ticket())));
        assert!(!shown.contains(&ticket().to_string()) && !shown.contains("171"), "{shown}");
    }

    proptest! {
        #[test]
        fn no_id_makes_it_panic(payload in "\\PC{0,80}|[12]\\.[A-Z2-7]{50,64}") {
            let tap = Tap::read(&payload);
            if let Some(ticket) = tap.ticket {
                prop_assert!(payload.ends_with(&ticket.to_string()));
            }
        }

        #[test]
        fn one_letter_more_or_less_is_no_ticket(cut in 1usize..58) {
            let text = ticket().to_string();
            prop_assert!(text[cut..].parse::<Ticket>().is_err());
            prop_assert!((text + "A").parse::<Ticket>().is_err());
        }
    }
}
