//! The store that the simulation runs on: what is proven over it must hold over any other.

use std::sync::Arc;

use crisis_relay::domain::ids::AlertId;
use crisis_relay::ports::Store;

use crate::memory::Memory;
use crate::suite::{Place, conformance};

conformance!(Memory);

impl Place for Memory {
    async fn new() -> Self {
        Self::default()
    }

    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(Self::open(self, true))
    }

    async fn dump(&self) -> String {
        Self::dump(self)
    }

    async fn spoil_alert(&self, id: AlertId) {
        Self::spoil_alert(self, id);
    }
}
