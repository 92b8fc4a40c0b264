//! What the database needs besides its documents, as the repository keeps it: the files of `migrations/firestore/`, which
//! `firebase deploy` and Terraform read, too. There is one list, and it is compiled in.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Indexes, exemptions and TTL policies, in the form of the Firebase command line.
const INDEXES: &str = include_str!("../../../../migrations/firestore/firestore.indexes.json");

/// The security rules.
pub(super) const RULES: &str = include_str!("../../../../migrations/firestore/firestore.rules");

/// The rules' file name, as a ruleset bears it.
pub(super) const RULES_FILE: &str = "firestore.rules";

/// All that is wanted of indexes and fields.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Wanted {
    /// Indexes over several fields.
    pub indexes: Vec<CompositeIndex>,
    /// What differs from Firestore's defaults for single fields.
    pub field_overrides: Vec<FieldOverride>,
}

impl Wanted {
    /// The list that this build was made with.
    #[expect(clippy::expect_used, reason = "compiled in, and read by a test")]
    pub fn of_this_build() -> Self {
        serde_json::from_str(INDEXES).expect("migrations/firestore/firestore.indexes.json can be read")
    }
}

/// An index over several fields of one collection.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CompositeIndex {
    /// The collection's id.
    pub collection_group: String,
    /// Which collections of that id a query may span.
    pub query_scope: QueryScope,
    /// The fields in order. The document's name, by which every index ends, is left out.
    pub fields: Vec<IndexField>,
}

/// One field of an index. Either an order or `CONTAINS`: with both or neither Firestore refuses the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IndexField {
    /// The field.
    pub field_path: String,
    /// By which its values are sorted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// That it is an array, whose members are looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array_config: Option<ArrayConfig>,
}

/// Which collections a query may span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum QueryScope {
    /// One.
    Collection,
    /// All of that id, wherever they lie.
    CollectionGroup,
    /// Those under one document; none of ours.
    CollectionRecursive,
}

/// An order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Order {
    /// Smallest first.
    Ascending,
    /// Greatest first.
    Descending,
}

/// How an array is indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ArrayConfig {
    /// By its members.
    Contains,
}

/// What differs from the defaults for one field, or for all fields (`*`) of a collection.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FieldOverride {
    /// The collection's id.
    pub collection_group: String,
    /// The field, or `*`.
    pub field_path: String,
    /// Whether documents are deleted some time after the moment in this field.
    #[serde(default)]
    pub ttl: bool,
    /// The indexes of this field alone; none is an exemption.
    pub indexes: Vec<FieldIndex>,
}

/// An index of one field.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FieldIndex {
    /// By which its values are sorted.
    #[serde(default)]
    pub order: Option<Order>,
    /// That it is an array.
    #[serde(default)]
    pub array_config: Option<ArrayConfig>,
    /// Which collections a query may span.
    pub query_scope: QueryScope,
}

fn described(order: Option<Order>, array: Option<ArrayConfig>) -> &'static str {
    match (order, array) {
        (Some(Order::Ascending), _) => "",
        (Some(Order::Descending), _) => " desc",
        (None, Some(ArrayConfig::Contains)) => " contains",
        (None, None) => " ?",
    }
}

impl fmt::Display for CompositeIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "index {} (", self.collection_group)?;
        for (at, field) in self.fields.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{}{}", field.field_path, described(field.order, field.array_config))?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for FieldOverride {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (self.ttl, self.indexes.is_empty()) {
            (true, _) => "TTL",
            (false, true) => "no index",
            (false, false) => "single index",
        };
        write!(f, "{what} {}.{}", self.collection_group, self.field_path)
    }
}
