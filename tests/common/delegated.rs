//! The methods of a store that stands before another one.

/// Implements `Store` for a wrapper. The methods named in here, and those that are listed, go to the store behind it by
/// `self.pass(name, |store| …)`; the others are written out by the wrapper: `intake_context`, `alert`,
/// `alert_of_message`, `commit_alert`, `due_alerts`, `consent`, unless it lists them, and `is_exclusive` and `close`.
macro_rules! delegate_store {
    (for $wrapper:ty { $($own:tt)* } and $($name:ident($($argument:ident: $kind:ty),* $(,)?) -> $result:ty;)*) => {
        delegate_store! {
            @all $wrapper { $($own)* }
            $($name($($argument: $kind),*) -> $result;)*
            keep_answer(record: crisis_relay::ports::IdempotencyRecord) -> bool;
            answer(
                key: crisis_relay::domain::ids::IdempotencyKey
            ) -> Option<crisis_relay::ports::IdempotencyRecord>;
            forget_answers(before: jiff::Timestamp, limit: usize) -> usize;
            alert_by_reference(
                organisation: &crisis_relay::domain::ids::OrganisationId,
                reference: crisis_relay::domain::ids::Reference
            ) -> Option<crisis_relay::domain::alert::Alert>;
            cases_of(
                organisation: &crisis_relay::domain::ids::OrganisationId,
                address: crisis_relay::domain::ids::AddressKey,
                limit: usize
            ) -> Vec<crisis_relay::domain::alert::Alert>;
            unfinished_alerts(
                after: Option<crisis_relay::domain::ids::AlertId>,
                limit: usize
            ) -> Vec<crisis_relay::domain::ids::AlertId>;
            list_alerts(
                organisation: &crisis_relay::domain::ids::OrganisationId,
                state: Option<crisis_relay::domain::alert::StateName>,
                after: Option<crisis_relay::ports::ListCursor>,
                limit: usize
            ) -> Vec<crisis_relay::domain::alert::Alert>;
            last_case_of(
                organisation: &crisis_relay::domain::ids::OrganisationId,
                address: crisis_relay::domain::ids::AddressKey
            ) -> Option<crisis_relay::domain::alert::Alert>;
            event_details(
                alert: crisis_relay::domain::ids::AlertId
            ) -> Vec<crisis_relay::domain::event::EventDetails>;
            commit_consent(commit: crisis_relay::ports::ConsentCommit) -> bool;
            roster(
                organisation: &crisis_relay::domain::ids::OrganisationId
            ) -> Option<crisis_relay::domain::roster::Roster>;
            commit_roster(commit: crisis_relay::ports::RosterCommit) -> bool;
            data_key(
                organisation: &crisis_relay::domain::ids::OrganisationId,
                person: crisis_relay::domain::ids::PersonKey
            ) -> Option<crisis_relay::ports::WrappedDataKey>;
            insert_data_key(key: crisis_relay::ports::WrappedDataKey) -> bool;
            append_audit(entry: crisis_relay::domain::audit::AuditEntry) -> bool;
            audit_head(
                stream: &crisis_relay::domain::audit::AuditStream
            ) -> crisis_relay::domain::audit::AuditHead;
            audit_entries(
                stream: &crisis_relay::domain::audit::AuditStream,
                after: u64,
                limit: usize
            ) -> Vec<crisis_relay::domain::audit::AuditEntry>;
            audit_walk(from: Option<&str>, limit: usize) -> crisis_relay::ports::AuditStretch;
            stats() -> crisis_relay::ports::StoreStats;
            keep_fact(name: &'static str, value: &str) -> String;
            probe(now: jiff::Timestamp) -> ();
        }
    };
    (@all $wrapper:ty { $($own:tt)* } $($name:ident($($argument:ident: $kind:ty),*) -> $result:ty;)*) => {
        #[async_trait::async_trait]
        impl crisis_relay::ports::Store for $wrapper {
            $(async fn $name(&self, $($argument: $kind),*) -> Result<$result, crisis_relay::ports::StoreError> {
                self.pass(stringify!($name), |store| async move { store.$name($($argument),*).await }).await
            })*

            $($own)*
        }
    };
}
