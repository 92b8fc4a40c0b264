//! The indexes and TTL policies that the store needs. The one source of truth: `migrations/firestore/` says the same in
//! the forms that tools read, and tests hold both to this list.
//!
//! Firestore would index every field of every document by itself. Each such index costs with every write, bodies are too
//! long for one, and one over a time that only grows has a hot spot. So every collection is exempt from these (`*`), and
//! what queries ask for stands here.

use super::documents::{collection, field};

/// How a field stands in an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// From the smallest on.
    Ascending,
    /// From the greatest on.
    Descending,
    /// By what an array contains.
    Contains,
}

/// A composite index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Index {
    /// Over which collection.
    pub collection: &'static str,
    /// Over which fields, in this order.
    pub fields: &'static [(&'static str, Kind)],
    /// The query that it is for.
    pub serves: &'static str,
}

use Kind::{Ascending, Contains, Descending};

/// Every composite index.
pub const INDEXES: &[Index] = &[
    Index {
        collection: collection::ALERTS,
        fields: &[(field::SHARD, Ascending), (field::NEXT_ACTION_AT, Ascending)],
        serves: "due_alerts, stats",
    },
    Index {
        collection: collection::ALERTS,
        fields: &[(field::SHARD, Ascending), (field::UNFINISHED, Descending)],
        serves: "unfinished_alerts",
    },
    Index {
        collection: collection::ALERTS,
        fields: &[
            (field::ORGANISATION, Ascending),
            (field::SHARD, Ascending),
            (field::OPENED_AT, Descending),
            (field::ALERT_ID, Descending),
        ],
        serves: "list_alerts",
    },
    Index {
        collection: collection::ALERTS,
        fields: &[
            (field::ORGANISATION, Ascending),
            (field::STATE, Ascending),
            (field::SHARD, Ascending),
            (field::OPENED_AT, Descending),
            (field::ALERT_ID, Descending),
        ],
        serves: "list_alerts of one state",
    },
    Index {
        collection: collection::ALERTS,
        fields: &[(field::ORGANISATION, Ascending), (field::TOLD, Contains), (field::ALERT_ID, Descending)],
        serves: "cases_of",
    },
    Index {
        collection: collection::ALERTS,
        fields: &[(field::STATE, Ascending), (field::SHARD, Ascending)],
        serves: "stats",
    },
    Index {
        collection: collection::ANSWERS,
        fields: &[(field::SHARD, Ascending), (field::CREATED_AT, Ascending)],
        serves: "forget_answers",
    },
    audit_head(collection::ALERT_AUDIT),
    audit_head(collection::ACCESS_AUDIT),
    audit_head(collection::CONSENT_AUDIT),
    audit_head(collection::SETTINGS_AUDIT),
];

const fn audit_head(collection: &'static str) -> Index {
    Index { collection, fields: &[(field::CHAIN, Ascending), (field::SEQ, Descending)], serves: "audit_head" }
}

/// Every collection, all of them exempt from indexes over single fields.
pub const COLLECTIONS: &[&str] = &[
    collection::ALERTS,
    collection::EVENTS,
    collection::ALERT_AUDIT,
    collection::ACCESS_AUDIT,
    collection::CONSENT_AUDIT,
    collection::SETTINGS_AUDIT,
    collection::ROSTERS,
    collection::CONSENTS,
    collection::OPEN_ALERTS,
    collection::REFERENCES,
    collection::MESSAGES,
    collection::LAST_CASES,
    collection::ANSWERS,
    collection::DATA_KEYS,
    collection::FACTS,
    collection::HEALTH,
];

/// Fields after whose time Firestore deletes the document by itself, within a day or so.
pub const EXPIRIES: &[(&str, &str)] =
    &[(collection::ANSWERS, field::EXPIRES_AT), (collection::HEALTH, field::EXPIRES_AT)];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;

    const FILE: &str = include_str!("../../../migrations/firestore/firestore.indexes.json");

    fn told(value: &Value) -> BTreeSet<String> {
        value.as_array().unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_file_that_tools_read_has_these_indexes_exemptions_and_expiries_and_no_others() {
        let file: Value = serde_json::from_str(FILE).unwrap();
        let field = |(path, kind): &(&str, Kind)| match kind {
            Ascending => json!({"fieldPath": path, "order": "ASCENDING"}),
            Descending => json!({"fieldPath": path, "order": "DESCENDING"}),
            Contains => json!({"fieldPath": path, "arrayConfig": "CONTAINS"}),
        };
        let index = |index: &Index| {
            let fields: Vec<Value> = index.fields.iter().map(field).collect();
            json!({"collectionGroup": index.collection, "queryScope": "COLLECTION", "fields": fields})
        };
        let indexes: Vec<Value> = INDEXES.iter().map(index).collect();
        assert_eq!(told(&file["indexes"]), told(&json!(indexes)));

        let exempt = |collection: &&str| json!({"collectionGroup": collection, "fieldPath": "*", "indexes": []});
        let expiry = |(collection, path): &(&str, &str)| json!({"collectionGroup": collection, "fieldPath": path, "ttl": true, "indexes": []});
        let overrides: Vec<Value> = COLLECTIONS.iter().map(exempt).chain(EXPIRIES.iter().map(expiry)).collect();
        assert_eq!(told(&file["fieldOverrides"]), told(&json!(overrides)));
    }
}
