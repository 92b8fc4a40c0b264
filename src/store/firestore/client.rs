//! Calls to Firestore: each with a time-out, reads repeated where that can help, and everything counted.
//!
//! Reads are repeated with exponential backoff and full jitter until [`Limits::read`] is over, as Google's guidance on
//! retries says. A commit is never repeated in here: whoever made it must look first at what became of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use firestore::gcloud_sdk::google::firestore::v1::batch_get_documents_response::Result as Got;
use firestore::gcloud_sdk::google::firestore::v1::firestore_client::FirestoreClient;
use firestore::gcloud_sdk::google::firestore::v1::{
    BatchGetDocumentsRequest, CommitRequest, Document, DocumentMask, RunAggregationQueryRequest, RunQueryRequest,
    StructuredAggregationQuery, StructuredQuery, Write, WriteResult, run_aggregation_query_request, run_query_request,
    write,
};
use firestore::gcloud_sdk::google::firestore::v1::value::ValueType;
use firestore::gcloud_sdk::tonic::{Code, ConnectError, Request, Status, Streaming};
use firestore::gcloud_sdk::{GoogleAuthMiddleware, tonic};
use firestore::FirestoreDb;

use super::documents::{Names, corrupt};
use super::queries::COUNT;
use super::stamps::Stamps;
use crate::ports::{Entropy, StoreError, jitter};

/// How long is waited.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For a read, its repetitions included.
    pub(super) read: Duration,
    /// For a change, with all that has to be looked at and tried again.
    pub(super) commit: Duration,
}

/// How a call is waited for the first time; each repetition has as long again.
const ATTEMPT: u32 = 2;

/// The pause before a repetition is drawn from zero to this, doubled each time up to the second value.
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// The longest message that is taken: a document has 1 MiB at the most, and each comes in a message of its own.
const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What was asked of Firestore, as it is paid for.
#[derive(Debug, Default)]
pub(super) struct Counters {
    calls: AtomicU64,
    commits: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
    deletes: AtomicU64,
}

/// What this process has asked of Firestore since the store was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Operations {
    /// Calls, repeated ones included.
    pub calls: u64,
    /// Those of them that were commits.
    pub commits: u64,
    /// Documents read; a query that finds nothing counts as one, and so does a document that is not there.
    pub reads: u64,
    /// Documents written in commits that succeeded, guards that change nothing included.
    pub writes: u64,
    /// Documents deleted in commits that succeeded, guards that delete nothing included.
    pub deletes: u64,
}

impl Counters {
    pub(super) fn told(&self) -> Operations {
        let told = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Operations {
            calls: told(&self.calls),
            commits: told(&self.commits),
            reads: told(&self.reads),
            writes: told(&self.writes),
            deletes: told(&self.deletes),
        }
    }
}

fn add(counter: &AtomicU64, number: usize) {
    counter.fetch_add(number as u64, Ordering::Relaxed);
}

/// Why a commit did not succeed.
#[derive(Debug)]
pub(super) enum CommitFault {
    /// A precondition does not hold, or somebody else was at the same document: nothing was changed.
    Refused,
    /// It surely was not made: it did not get there, or was turned away. To try again may help.
    NotMade(Code),
    /// It surely was not made, and never will be.
    Never(StoreError),
    /// It was sent, and no answer came.
    Unknown(Code),
}

/// The connection to one database.
pub(super) struct Client {
    db: FirestoreDb,
    pub(super) names: Names,
    pub(super) limits: Limits,
    pub(super) counters: Counters,
    pub(super) stamps: Stamps,
    pub(super) entropy: Arc<dyn Entropy>,
}

type Api = FirestoreClient<GoogleAuthMiddleware>;

impl Client {
    pub(super) fn new(db: FirestoreDb, names: Names, limits: Limits, entropy: Arc<dyn Entropy>) -> Self {
        Self { db, names, limits, counters: Counters::default(), stamps: Stamps::default(), entropy }
    }

    fn api(&self) -> Api {
        add(&self.counters.calls, 1);
        self.db.client().get().max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Documents by their names, in the same order; `None` where there is none. All in one call. `fields` are the ones
    /// that are wanted; none means all.
    pub(super) async fn get(&self, names: &[String], fields: &[&str]) -> Result<Vec<Option<Document>>, StoreError> {
        let request = BatchGetDocumentsRequest {
            database: self.names.database.clone(),
            documents: names.to_vec(),
            mask: (!fields.is_empty()).then(|| mask(fields)),
            ..BatchGetDocumentsRequest::default()
        };
        let answers = self.read(request, |mut api, request| async move { api.batch_get_documents(request).await }).await?;
        add(&self.counters.reads, names.len());
        let mut found: std::collections::HashMap<String, Document> = answers
            .into_iter()
            .filter_map(|answer| match answer.result {
                Some(Got::Found(document)) => Some((document.name.clone(), document)),
                Some(Got::Missing(_)) | None => None,
            })
            .collect();
        Ok(names.iter().map(|name| found.remove(name)).collect())
    }

    /// One document.
    pub(super) async fn get_one(&self, name: String) -> Result<Option<Document>, StoreError> {
        Ok(self.get(&[name], &[]).await?.pop().flatten())
    }

    /// What a query finds.
    pub(super) async fn query(&self, query: StructuredQuery) -> Result<Vec<Document>, StoreError> {
        let request = RunQueryRequest {
            parent: self.names.documents.clone(),
            query_type: Some(run_query_request::QueryType::StructuredQuery(query)),
            ..RunQueryRequest::default()
        };
        let answers = self.read(request, |mut api, request| async move { api.run_query(request).await }).await?;
        let found: Vec<Document> = answers.into_iter().filter_map(|answer| answer.document).collect();
        add(&self.counters.reads, found.len().max(1));
        Ok(found)
    }

    /// How many documents a query would find.
    pub(super) async fn count(&self, query: StructuredAggregationQuery) -> Result<u64, StoreError> {
        let request = RunAggregationQueryRequest {
            parent: self.names.documents.clone(),
            query_type: Some(run_aggregation_query_request::QueryType::StructuredAggregationQuery(query)),
            ..RunAggregationQueryRequest::default()
        };
        let answers =
            self.read(request, |mut api, request| async move { api.run_aggregation_query(request).await }).await?;
        add(&self.counters.reads, 1);
        let counted = answers.into_iter().filter_map(|answer| answer.result).find_map(|mut result| {
            match result.aggregate_fields.remove(COUNT)?.value_type {
                Some(ValueType::IntegerValue(counted)) => u64::try_from(counted).ok(),
                _ => None,
            }
        });
        counted.ok_or_else(|| corrupt("a count is missing in its answer"))
    }

    /// Makes a change of several documents, wholly or not at all: one call, never repeated.
    pub(super) async fn commit(&self, writes: Vec<Write>, within: Duration) -> Result<Vec<WriteResult>, CommitFault> {
        let deletes = writes.iter().filter(|write| matches!(write.operation, Some(write::Operation::Delete(_)))).count();
        let updates = writes.len() - deletes;
        let request = CommitRequest { database: self.names.database.clone(), writes, ..CommitRequest::default() };
        let mut api = self.api();
        add(&self.counters.commits, 1);
        match tokio::time::timeout(within, api.commit(timed(request, within))).await {
            Ok(Ok(answer)) => {
                add(&self.counters.writes, updates);
                add(&self.counters.deletes, deletes);
                Ok(answer.into_inner().write_results)
            }
            Ok(Err(status)) => Err(commit_fault(&status)),
            Err(_elapsed) => Err(CommitFault::Unknown(Code::DeadlineExceeded)),
        }
    }

    /// Asks and gathers the whole answer, again and again while that can help.
    async fn read<Q, A, F>(&self, request: Q, ask: impl Fn(Api, Request<Q>) -> F) -> Result<Vec<A>, StoreError>
    where
        Q: Clone,
        F: Future<Output = Result<tonic::Response<Streaming<A>>, Status>>,
    {
        let mut last = Code::DeadlineExceeded;
        let attempt_limit = self.limits.read / ATTEMPT;
        let asked = async {
            for attempt in 0.. {
                let asked = async { gather(ask(self.api(), timed(request.clone(), attempt_limit)).await?).await };
                last = match tokio::time::timeout(attempt_limit, asked).await {
                    Ok(Ok(found)) => return Ok(found),
                    Ok(Err(status)) if !is_transient(status.code()) => return Err(status.code()),
                    Ok(Err(status)) => status.code(),
                    Err(_elapsed) => Code::DeadlineExceeded,
                };
                self.pause(attempt).await;
            }
            Err(last)
        };
        match tokio::time::timeout(self.limits.read, asked).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(code)) => Err(unavailable(code)),
            Err(_elapsed) => Err(unavailable(last)),
        }
    }

    /// Waits before the repetition with this number: full jitter, so that many who failed together do not come together.
    pub(super) async fn pause(&self, attempt: u32) {
        let most = BACKOFF_FIRST.saturating_mul(1 << attempt.min(10)).min(BACKOFF_MAX);
        tokio::time::sleep(most.mul_f64(jitter(self.entropy.as_ref()))).await;
    }
}

async fn gather<A>(answer: tonic::Response<Streaming<A>>) -> Result<Vec<A>, Status> {
    let mut stream = answer.into_inner();
    let mut all = Vec::new();
    while let Some(one) = stream.message().await? {
        all.push(one);
    }
    Ok(all)
}

/// Tells Firestore, too, how long is waited: what nobody waits for any more it need not do.
fn timed<Q>(request: Q, limit: Duration) -> Request<Q> {
    let mut request = Request::new(request);
    request.set_timeout(limit);
    request
}

pub(super) fn mask(fields: &[&str]) -> DocumentMask {
    DocumentMask { field_paths: fields.iter().map(|&field| field.to_owned()).collect() }
}

/// Google's list of codes that a read may be repeated for.
const fn is_transient(code: Code) -> bool {
    match code {
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Internal
        | Code::ResourceExhausted
        | Code::Cancelled
        | Code::Unknown => true,
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}

/// What a commit's status tells of the commit. Where it tells nothing, nothing is assumed.
fn commit_fault(status: &Status) -> CommitFault {
    if never_left(status) {
        return CommitFault::NotMade(status.code());
    }
    match status.code() {
        Code::Aborted | Code::FailedPrecondition | Code::AlreadyExists | Code::NotFound => CommitFault::Refused,
        Code::ResourceExhausted => CommitFault::NotMade(status.code()),
        Code::InvalidArgument | Code::OutOfRange => CommitFault::Never(corrupt("Firestore takes no such change")),
        Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented => {
            CommitFault::Never(unavailable(status.code()))
        }
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => CommitFault::Unknown(status.code()),
    }
}

/// Whether there was no connection that a call could have gone out on.
fn never_left(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// Only the code is told: a message of Firestore's may name documents.
pub(super) fn unavailable(code: Code) -> StoreError {
    let hint = match code {
        Code::PermissionDenied => ": the service account may not use this database",
        Code::Unauthenticated => ": no valid credentials",
        Code::NotFound => ": there is no such database",
        Code::FailedPrecondition => ": an index is missing (crisis-relay check says which)",
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => "",
    };
    StoreError::Unavailable { what: format!("Firestore answers {code:?}{hint}") }
}
