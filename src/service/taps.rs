//! Taps on buttons: the ticket that each message bears, and the message that a ticket names.

use super::{Service, ServiceError};
use crate::domain::alert::Alert;
use crate::domain::delivery::Delivery;
use crate::domain::ids::{AlertId, DeliveryNo};
use crate::domain::tap::Ticket;
use crate::ports::HashPurpose;

impl Service {
    /// What the buttons under a message name it by. The same for every attempt of it.
    pub fn ticket(&self, alert: AlertId, delivery: DeliveryNo) -> Ticket {
        let parts: [&[u8]; 2] = [alert.0.as_bytes(), &delivery.0.to_be_bytes()];
        Ticket::new(alert, delivery, &self.keyring.hash(HashPurpose::Ticket, &parts))
    }

    /// The message that a ticket of ours names. The proof is looked at before the store is: a ticket comes from outside.
    pub(super) async fn ticketed(&self, ticket: Ticket) -> Result<Option<(Alert, Delivery)>, ServiceError> {
        if !ticket.proves_itself_as(&self.ticket(ticket.alert, ticket.delivery)) {
            tracing::warn!(alert = %ticket.alert, delivery = %ticket.delivery, "a button's ticket is none of ours");
            return Ok(None);
        }
        let Some(alert) = self.store.alert(ticket.alert).await? else { return Ok(None) };
        let delivery = alert.delivery(ticket.delivery).cloned();
        Ok(delivery.map(|delivery| (alert, delivery)))
    }
}
