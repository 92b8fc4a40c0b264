//! The queries, in one place, so that a test can hold each of them to the list of indexes: in production Firestore
//! refuses a query that no index serves, while the emulator walks through everything and answers.

use firestore::gcloud_sdk::google::firestore::v1::structured_aggregation_query::aggregation::{
    Count, Operator as Aggregate,
};
use firestore::gcloud_sdk::google::firestore::v1::structured_aggregation_query::{Aggregation, QueryType};
use firestore::gcloud_sdk::google::firestore::v1::structured_query::composite_filter::Operator as Junction;
use firestore::gcloud_sdk::google::firestore::v1::structured_query::field_filter::Operator;
use firestore::gcloud_sdk::google::firestore::v1::structured_query::filter::FilterType;
use firestore::gcloud_sdk::google::firestore::v1::structured_query::{
    CollectionSelector, CompositeFilter, Direction, FieldFilter, FieldReference, Filter, Order, Projection,
};
use firestore::gcloud_sdk::google::firestore::v1::{Cursor, StructuredAggregationQuery, StructuredQuery, Value};
use jiff::Timestamp;

use super::documents::{END, SHARDS, array, collection, field, int, micros, name, text};
use crate::domain::alert::StateName;
use crate::domain::ids::{AddressKey, AlertId, OrganisationId};
use crate::ports::ListCursor;

/// What a count is called in its answer.
pub(super) const COUNT: &str = "count";

/// The key that every document is ordered by without any index.
const NAME: &str = "__name__";

fn reference(field: &str) -> FieldReference {
    FieldReference { field_path: field.to_owned() }
}

fn filter(field: &str, op: Operator, value: Value) -> Filter {
    let filter = FieldFilter { field: Some(reference(field)), op: op.into(), value: Some(value) };
    Filter { filter_type: Some(FilterType::FieldFilter(filter)) }
}

fn all_of(mut filters: Vec<Filter>) -> Option<Filter> {
    if filters.len() < 2 {
        return filters.pop();
    }
    let all = CompositeFilter { op: Junction::And.into(), filters };
    Some(Filter { filter_type: Some(FilterType::CompositeFilter(all)) })
}

fn by(field: &str, direction: Direction) -> Order {
    Order { field: Some(reference(field)), direction: direction.into() }
}

/// Every part of an index: Firestore merges them in order.
fn any_shard() -> Filter {
    filter(field::SHARD, Operator::In, array((0..SHARDS).map(int).collect()))
}

fn query(collection: &str, filters: Vec<Filter>, order_by: Vec<Order>, limit: usize) -> StructuredQuery {
    StructuredQuery {
        from: vec![CollectionSelector { collection_id: collection.to_owned(), all_descendants: false }],
        r#where: all_of(filters),
        order_by,
        limit: Some(i32::try_from(limit).unwrap_or(i32::MAX)),
        ..StructuredQuery::default()
    }
}

fn only(fields: &[&str]) -> Option<Projection> {
    Some(Projection { fields: fields.iter().map(|field| reference(field)).collect() })
}

pub(super) fn due(until: Timestamp, limit: usize) -> StructuredQuery {
    let filters = vec![any_shard(), filter(field::NEXT_ACTION_AT, Operator::LessThanOrEqual, micros(until))];
    let order = vec![by(field::NEXT_ACTION_AT, Direction::Ascending)];
    StructuredQuery { select: only(&[field::ALERT_ID]), ..query(collection::ALERTS, filters, order, limit) }
}

/// The one that is due first, whenever that is.
pub(super) fn next_due() -> StructuredQuery {
    let order = vec![by(field::NEXT_ACTION_AT, Direction::Ascending)];
    let select = only(&[field::NEXT_ACTION_AT]);
    StructuredQuery { select, ..query(collection::ALERTS, vec![any_shard()], order, 1) }
}

pub(super) fn unfinished(after: Option<AlertId>, limit: usize) -> StructuredQuery {
    let mut filters = vec![any_shard()];
    filters.extend(after.map(|id| filter(field::UNFINISHED, Operator::LessThan, text(id.to_string()))));
    let order = vec![by(field::UNFINISHED, Direction::Descending)];
    StructuredQuery { select: only(&[field::ALERT_ID]), ..query(collection::ALERTS, filters, order, limit) }
}

pub(super) fn list(
    organisation: &OrganisationId,
    state: Option<StateName>,
    after: Option<ListCursor>,
    limit: usize,
) -> StructuredQuery {
    let mut filters = vec![filter(field::ORGANISATION, Operator::Equal, text(organisation.as_str()))];
    filters.extend(state.map(|state| filter(field::STATE, Operator::Equal, text(state.as_str()))));
    filters.push(any_shard());
    let order = vec![by(field::OPENED_AT, Direction::Descending), by(field::ALERT_ID, Direction::Descending)];
    let start_at = after
        .map(|cursor| Cursor { values: vec![micros(cursor.opened_at), text(cursor.id.to_string())], before: false });
    StructuredQuery { start_at, ..query(collection::ALERTS, filters, order, limit) }
}

/// Not split into parts: no more alerts can tell one number than Twilio takes messages for it.
pub(super) fn cases_of(organisation: &OrganisationId, address: AddressKey, limit: usize) -> StructuredQuery {
    let filters = vec![
        filter(field::ORGANISATION, Operator::Equal, text(organisation.as_str())),
        filter(field::TOLD, Operator::ArrayContains, text(address.to_string())),
    ];
    query(collection::ALERTS, filters, vec![by(field::ALERT_ID, Direction::Descending)], limit)
}

pub(super) fn count_of(state: StateName) -> StructuredAggregationQuery {
    let filters = vec![filter(field::STATE, Operator::Equal, text(state.as_str())), any_shard()];
    let counted = StructuredQuery { limit: None, ..query(collection::ALERTS, filters, Vec::new(), 0) };
    let operator = Some(Aggregate::Count(Count { up_to: None }));
    StructuredAggregationQuery {
        aggregations: vec![Aggregation { alias: COUNT.to_owned(), operator }],
        query_type: Some(QueryType::StructuredQuery(counted)),
    }
}

pub(super) fn answers_before(before: Timestamp, limit: usize) -> StructuredQuery {
    let filters = vec![any_shard(), filter(field::CREATED_AT, Operator::LessThan, micros(before))];
    let order = vec![by(field::CREATED_AT, Direction::Ascending)];
    StructuredQuery { select: only(&[field::CREATED_AT]), ..query(collection::ANSWERS, filters, order, limit) }
}

/// Documents whose name begins with `prefix` and, where it is given, comes after another. By name: that needs no index.
pub(super) fn named(collection: &str, prefix: &str, after: Option<String>, limit: usize) -> StructuredQuery {
    let from = match after {
        Some(after) => filter(NAME, Operator::GreaterThan, name(after)),
        None => filter(NAME, Operator::GreaterThanOrEqual, name(prefix.to_owned())),
    };
    let to = filter(NAME, Operator::LessThan, name(format!("{prefix}{END}")));
    query(collection, vec![from, to], vec![by(NAME, Direction::Ascending)], limit)
}

/// All documents of a collection, in the order of their names, after another.
pub(super) fn every(collection: &str, after: Option<String>, limit: usize) -> StructuredQuery {
    let filters = after.map(|after| filter(NAME, Operator::GreaterThan, name(after))).into_iter().collect();
    query(collection, filters, vec![by(NAME, Direction::Ascending)], limit)
}

/// The last entry of a chain.
pub(super) fn audit_head(collection: &str, chain: &str) -> StructuredQuery {
    let filters = vec![filter(field::CHAIN, Operator::Equal, text(chain))];
    let select = only(&[field::SEQ, field::HASH]);
    StructuredQuery { select, ..query(collection, filters, vec![by(field::SEQ, Direction::Descending)], 1) }
}

#[cfg(test)]
mod tests {
    use super::super::indexes::{INDEXES, Kind};
    use super::*;

    fn flat(filter: Option<Filter>, into: &mut Vec<(String, i32)>) {
        match filter.and_then(|filter| filter.filter_type) {
            Some(FilterType::FieldFilter(one)) => into.push((one.field.unwrap().field_path, one.op)),
            Some(FilterType::CompositeFilter(all)) => all.filters.into_iter().for_each(|one| flat(Some(one), into)),
            other => assert!(other.is_none(), "a filter that no query has"),
        }
    }

    type Stands = Vec<(String, Kind)>;

    /// The index that a query needs: what is compared for equality in any order, then the order of the answers.
    fn needed(query: StructuredQuery) -> Option<(String, Stands, Stands)> {
        let mut filters = Vec::new();
        flat(query.r#where, &mut filters);
        let equal = |op: i32| op == i32::from(Operator::Equal) || op == i32::from(Operator::In);
        let mut first: Stands = filters
            .iter()
            .filter_map(|(field, op)| match *op {
                op if equal(op) => Some((field.clone(), Kind::Ascending)),
                op if op == i32::from(Operator::ArrayContains) => Some((field.clone(), Kind::Contains)),
                _ => None,
            })
            .collect();
        first.sort();
        let then: Stands = query
            .order_by
            .into_iter()
            .map(|order| {
                let descending = order.direction == i32::from(Direction::Descending);
                (order.field.unwrap().field_path, if descending { Kind::Descending } else { Kind::Ascending })
            })
            .collect();
        for (field, op) in filters.iter().filter(|(field, op)| !equal(*op) && field != NAME) {
            let ordered = then.first().is_some_and(|(first, _)| first == field);
            assert!(ordered || *op == i32::from(Operator::ArrayContains), "{field} is compared, but orders nothing");
        }
        if first.is_empty() && then.iter().all(|(field, kind)| field == NAME && *kind == Kind::Ascending) {
            return None;
        }
        Some((query.from[0].collection_id.clone(), first, then))
    }

    fn every_query() -> Vec<StructuredQuery> {
        let organisation: OrganisationId = "north".parse().unwrap();
        let id = AlertId::new(Timestamp::UNIX_EPOCH, [1; 10]);
        let cursor = ListCursor { opened_at: Timestamp::UNIX_EPOCH, id };
        let mut all = vec![
            due(Timestamp::UNIX_EPOCH, 1),
            next_due(),
            unfinished(None, 1),
            unfinished(Some(id), 1),
            list(&organisation, None, Some(cursor), 1),
            cases_of(&organisation, AddressKey::from_bytes([1; 32]), 1),
            answers_before(Timestamp::UNIX_EPOCH, 1),
            named(collection::EVENTS, "a", None, 1),
            every(collection::ALERTS, None, 1),
            every(collection::ALERTS, Some("a".to_owned()), 1),
        ];
        for collection in super::super::documents::AUDIT {
            all.extend([audit_head(collection, "a"), every(collection, None, 1), named(collection, "a", None, 1)]);
        }
        for state in StateName::ALL {
            all.push(list(&organisation, Some(state), None, 1));
            let Some(QueryType::StructuredQuery(counted)) = count_of(state).query_type else { panic!("no query") };
            all.push(counted);
        }
        all
    }

    #[test]
    fn every_query_has_an_index_and_no_index_is_for_nothing() {
        let mut used = vec![false; INDEXES.len()];
        for (collection, mut first, then) in every_query().into_iter().filter_map(needed) {
            first.sort();
            let serves = |index: &&super::super::indexes::Index| {
                let fields: Vec<(String, Kind)> =
                    index.fields.iter().map(|(field, kind)| ((*field).to_owned(), *kind)).collect();
                let (head, tail) = fields.split_at(first.len().min(fields.len()));
                let mut head = head.to_vec();
                head.sort();
                index.collection == collection && head == first && tail == then
            };
            let place = INDEXES.iter().position(|index| serves(&index));
            let place = place.unwrap_or_else(|| panic!("no index of {collection} for {first:?} and then {then:?}"));
            used[place] = true;
        }
        let idle: Vec<_> = INDEXES.iter().zip(used).filter(|(_, used)| !used).map(|(index, _)| index).collect();
        assert!(idle.is_empty(), "no query asks for {idle:?}");
    }
}
