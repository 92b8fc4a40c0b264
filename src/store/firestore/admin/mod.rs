//! Indexes, TTL policies and security rules: what a Firestore database needs besides its documents.
//!
//! On SQLite a migration is a step in the file; here it is a state of the database's set-up, which Google brings about in
//! its own time. So nothing is numbered: what is wanted stands in one list (`migrations/firestore/`), what is there is asked
//! of Google, and only the difference is made. To run it twice, or beside Terraform, does no harm. What is there and not
//! wanted is told and left alone: it costs writes, but somebody may be using it.
//!
//! The emulator needs none of it: it serves every query without an index, has no TTL, and knows no rules for a server.

mod api;
mod credentials;
#[cfg(test)]
mod tests;
mod wanted;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use url::Url;

pub use self::api::{AdminError, Credentials, Endpoints};
use self::api::{Api, Progress, StoredField, StoredIndex, readable};
pub use self::credentials::GoogleCredentials;
pub use self::wanted::{ArrayConfig, CompositeIndex, FieldIndex, FieldOverride, IndexField, Order, QueryScope, Wanted};
use crate::ports::Clock;

/// Between two looks at what is building. An index of an empty database takes a minute or two.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// One thing that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// An index over several fields.
    Index(CompositeIndex),
    /// What differs from the defaults for a field.
    Field(FieldOverride),
    /// The security rules.
    Rules,
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => index.fmt(f),
            Self::Field(field) => field.fmt(f),
            Self::Rules => f.write_str("rules: deny every client"),
        }
    }
}

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is there and serves.
    Ready,
    /// It is there and does not serve yet.
    Building,
    /// It is not there, or not as it should be.
    Missing,
    /// Google could not build it: it must be looked at, and deleted, by hand.
    Failed,
}

/// The whole set-up as it stands.
#[derive(Debug)]
pub struct Survey {
    /// Each thing that is wanted.
    pub pieces: Vec<(Piece, Standing)>,
    /// Indexes of our collections that are not wanted, by their full names.
    pub unwanted: Vec<String>,
    /// Why the rules could not be looked at. The service's own account may not see them.
    pub rules_unseen: Option<AdminError>,
}

impl Survey {
    /// The pieces that stand so.
    pub fn of(&self, standing: Standing) -> impl Iterator<Item = &Piece> {
        self.pieces.iter().filter(move |(_, found)| *found == standing).map(|(piece, _)| piece)
    }

    /// Whether nothing is left to be done or waited for.
    pub fn is_complete(&self) -> bool {
        self.rules_unseen.is_none() && self.pieces.iter().all(|(_, standing)| *standing == Standing::Ready)
    }
}

/// Looks after one database's set-up.
pub struct Admin {
    api: Api,
    endpoints: Endpoints,
    project: String,
    database: String,
    wanted: Wanted,
    clock: Arc<dyn Clock>,
}

impl Admin {
    /// For `database` (as a rule `(default)`) of `project`. Asks nothing yet.
    ///
    /// # Errors
    /// No HTTP client can be made.
    pub fn new(
        project: &str,
        database: &str,
        endpoints: Endpoints,
        credentials: Arc<dyn Credentials>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, AdminError> {
        let api = Api::new(credentials, Arc::clone(&clock))?;
        let (project, database) = (project.to_owned(), database.to_owned());
        Ok(Self { api, endpoints, project, database, wanted: Wanted::of_this_build(), clock })
    }

    /// How everything stands. Changes nothing.
    ///
    /// # Errors
    /// Indexes and fields cannot be read; that rules cannot is part of the answer.
    pub async fn survey(&self) -> Result<Survey, AdminError> {
        let mut indexes = self.stored_indexes().await?;
        let fields = self.stored_fields().await?;
        let mut pieces = Vec::new();
        for wanted in &self.wanted.indexes {
            let found = indexes.iter().position(|stored| is_index(stored, wanted)).map(|at| indexes.swap_remove(at));
            let standing = found.map_or(Standing::Missing, |stored| standing(stored.state));
            pieces.push((Piece::Index(wanted.clone()), standing));
        }
        for wanted in &self.wanted.field_overrides {
            let standing = fields.iter().find(|stored| is_field(&stored.name, wanted)).map(|found| held(found, wanted));
            pieces.push((Piece::Field(wanted.clone()), standing.unwrap_or(Standing::Missing)));
        }
        let rules = self.rules().await;
        if let Ok(standing) = rules {
            pieces.push((Piece::Rules, standing));
        }
        let ours = |name: &str| self.wanted.field_overrides.iter().any(|field| is_of(name, &field.collection_group));
        let unwanted = indexes.into_iter().map(|index| index.name).filter(|name| ours(name)).collect();
        Ok(Survey { pieces, unwanted, rules_unseen: rules.err() })
    }

    /// Makes what is missing. Google builds it afterwards: see [`Admin::wait`].
    ///
    /// # Errors
    /// The first refusal. What was asked for until then is made; the next run does the rest.
    pub async fn apply(&self, survey: &Survey) -> Result<(), AdminError> {
        for piece in survey.of(Standing::Missing) {
            match piece {
                Piece::Index(index) => self.create_index(index).await?,
                Piece::Field(field) => self.set_field(field).await?,
                Piece::Rules => self.publish_rules().await?,
            }
        }
        Ok(())
    }

    /// Looks again until nothing is missing or building, for `within` at the most. The last look.
    ///
    /// # Errors
    /// As [`Admin::survey`].
    pub async fn wait(&self, within: Duration) -> Result<Survey, AdminError> {
        let until = self.clock.now().saturating_add(within).unwrap_or(jiff::Timestamp::MAX);
        loop {
            let survey = self.survey().await?;
            // Right after a change the list may not show it yet: what is missing is waited for, too.
            let more_to_come = survey.of(Standing::Building).chain(survey.of(Standing::Missing)).next().is_some();
            if !more_to_come || self.clock.now() >= until {
                return Ok(survey);
            }
            self.clock.sleep(LOOK_EVERY).await;
        }
    }

    fn database_url(&self, rest: &str) -> Url {
        let path = format!("/v1/projects/{}/databases/{}/{rest}", self.project, self.database);
        at(&self.endpoints.firestore, &path)
    }

    fn rules_url(&self, rest: &str) -> Url {
        at(&self.endpoints.rules, &format!("/v1/projects/{}/{rest}", self.project))
    }

    async fn stored_indexes(&self) -> Result<Vec<StoredIndex>, AdminError> {
        let url = self.database_url("collectionGroups/-/indexes");
        let mut indexes: Vec<StoredIndex> = readable(self.api.list("list indexes", &url, "indexes").await?);
        for index in &mut indexes {
            // Every index ends by the document's name, and Google lists it.
            if index.fields.last().is_some_and(|field| field.field_path == "__name__") {
                index.fields.pop();
            }
        }
        Ok(indexes)
    }

    async fn stored_fields(&self) -> Result<Vec<StoredField>, AdminError> {
        let mut url = self.database_url("collectionGroups/-/fields");
        // The one filter that Google has for this list.
        url.query_pairs_mut().append_pair("filter", "indexConfig.usesAncestorConfig=false OR ttlConfig:*");
        Ok(readable(self.api.list("list field settings", &url, "fields").await?))
    }

    async fn create_index(&self, index: &CompositeIndex) -> Result<(), AdminError> {
        let url = self.database_url(&format!("collectionGroups/{}/indexes", index.collection_group));
        let body = json!({"queryScope": index.query_scope, "fields": index.fields});
        match self.api.call("create an index", Method::POST, &url, Some(&body)).await {
            // Somebody else has asked for it at the same time.
            Err(AdminError::Refused { status: StatusCode::CONFLICT, .. }) => Ok(()),
            other => self.found(other),
        }
    }

    async fn set_field(&self, field: &FieldOverride) -> Result<(), AdminError> {
        let mut url =
            self.database_url(&format!("collectionGroups/{}/fields/{}", field.collection_group, field.field_path));
        let indexes: Vec<Value> = field.indexes.iter().map(|index| field_index(&field.field_path, index)).collect();
        let mut body = json!({"indexConfig": {"indexes": indexes}});
        // Only what is named is changed.
        let mask = if field.ttl { "indexConfig,ttlConfig" } else { "indexConfig" };
        url.query_pairs_mut().append_pair("updateMask", mask);
        if field.ttl {
            body["ttlConfig"] = json!({});
        }
        let set = self.api.call("set a field's indexes and TTL", Method::PATCH, &url, Some(&body)).await;
        self.found(set)
    }

    /// Where a database or project is not there, a change is answered by 404.
    fn found(&self, answer: Result<Option<Value>, AdminError>) -> Result<(), AdminError> {
        let missing = || AdminError::NotFound(format!("{} in {}", self.database, self.project));
        answer?.map(|_| ()).ok_or_else(missing)
    }

    /// The name of what is in force: the default database's release has no suffix.
    fn release(&self) -> String {
        let suffix = if self.database == "(default)" { String::new() } else { format!("/{}", self.database) };
        format!("projects/{}/releases/cloud.firestore{suffix}", self.project)
    }

    async fn rules(&self) -> Result<Standing, AdminError> {
        const WHAT: &str = "read the security rules";
        let url = at(&self.endpoints.rules, &format!("/v1/{}", self.release()));
        let Some(release) = self.api.call(WHAT, Method::GET, &url, None).await? else { return Ok(Standing::Missing) };
        let Some(ruleset) = release.get("rulesetName").and_then(Value::as_str) else {
            return Err(AdminError::Garbled { what: WHAT, detail: "the release names no ruleset".to_owned() });
        };
        let url = at(&self.endpoints.rules, &format!("/v1/{ruleset}"));
        let stored = self.api.call(WHAT, Method::GET, &url, None).await?.unwrap_or_default();
        let files = stored.pointer("/source/files").and_then(Value::as_array);
        let only = files.and_then(|files| if let [file] = files.as_slice() { file.get("content") } else { None });
        let same = only.and_then(Value::as_str).is_some_and(|content| content.trim() == wanted::RULES.trim());
        Ok(if same { Standing::Ready } else { Standing::Missing })
    }

    /// A ruleset is made, then put in force; whoever is stopped in between has changed nothing that counts.
    async fn publish_rules(&self) -> Result<(), AdminError> {
        const WHAT: &str = "publish the security rules";
        let file = json!({"name": wanted::RULES_FILE, "content": wanted::RULES});
        let body = json!({"source": {"files": [file]}});
        let made = self.api.call(WHAT, Method::POST, &self.rules_url("rulesets"), Some(&body)).await?;
        let Some(ruleset) = made.as_ref().and_then(|made| made.get("name")).and_then(Value::as_str) else {
            return Err(AdminError::NotFound(format!("project {} for rules", self.project)));
        };
        let release = json!({"name": self.release(), "rulesetName": ruleset});
        let url = at(&self.endpoints.rules, &format!("/v1/{}", self.release()));
        let body = json!({"release": release});
        if self.api.call(WHAT, Method::PATCH, &url, Some(&body)).await?.is_none() {
            let answer = self.api.call(WHAT, Method::POST, &self.rules_url("releases"), Some(&release)).await;
            self.found(answer)?;
        }
        Ok(())
    }
}

fn at(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(path);
    url
}

fn field_index(field: &str, index: &FieldIndex) -> Value {
    let field = IndexField { field_path: field.to_owned(), order: index.order, array_config: index.array_config };
    json!({"queryScope": index.query_scope, "fields": [field]})
}

/// Whether a resource's full name lies in this collection.
fn is_of(name: &str, collection: &str) -> bool {
    name.split_once("/collectionGroups/")
        .and_then(|(_, rest)| rest.split_once('/'))
        .is_some_and(|(found, _)| found == collection)
}

fn is_index(stored: &StoredIndex, wanted: &CompositeIndex) -> bool {
    is_of(&stored.name, &wanted.collection_group)
        && stored.query_scope == wanted.query_scope
        && stored.fields == wanted.fields
}

fn is_field(name: &str, wanted: &FieldOverride) -> bool {
    is_of(name, &wanted.collection_group)
        && name.rsplit_once("/fields/").is_some_and(|(_, path)| path == wanted.field_path)
}

fn standing(progress: Option<Progress>) -> Standing {
    match progress {
        Some(Progress::Ready | Progress::Active) => Standing::Ready,
        Some(Progress::NeedsRepair) => Standing::Failed,
        Some(Progress::Creating | Progress::Unspecified) | None => Standing::Building,
    }
}

/// How a field's settings stand against what is wanted.
fn held(stored: &StoredField, wanted: &FieldOverride) -> Standing {
    let same = |index: &StoredIndex, other: &FieldIndex| {
        let fits = |field: &IndexField| field.order == other.order && field.array_config == other.array_config;
        index.query_scope == other.query_scope && index.fields.first().is_some_and(fits)
    };
    let indexes = &stored.index_config.indexes;
    let all_there = wanted.indexes.iter().all(|other| indexes.iter().any(|index| same(index, other)));
    let own = !stored.index_config.uses_ancestor_config;
    if !own || !all_there || indexes.len() != wanted.indexes.len() || wanted.ttl != stored.ttl_config.is_some() {
        return Standing::Missing;
    }
    let ttl = stored.ttl_config.iter().map(|ttl| standing(ttl.state));
    let all: Vec<Standing> = indexes.iter().map(|index| standing(index.state)).chain(ttl).collect();
    let worst = [Standing::Failed, Standing::Building].into_iter().find(|worst| all.contains(worst));
    worst.unwrap_or(Standing::Ready)
}
