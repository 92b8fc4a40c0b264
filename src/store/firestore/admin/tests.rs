//! The set-up of a database, told as stories against an HTTP server that answers as Google documents it. Whether Google
//! answers so can only be seen with a real project.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::{Value, json};
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

use super::*;

/// What one database has, and how it answers.
#[derive(Default)]
struct World {
    indexes: Vec<Value>,
    fields: Vec<Value>,
    rulesets: Vec<Value>,
    release: Option<String>,
    /// Looks until what was asked for is built.
    looks_until_built: usize,
    looks: usize,
    /// Calls that are answered with this first.
    busy: Vec<u16>,
    denied_reads: bool,
    denied_changes: bool,
    denied_rules: bool,
    no_database: bool,
    page_size: Option<usize>,
    /// Changes, as method and path.
    changes: Vec<String>,
}

impl World {
    fn answer(&mut self, request: &Request) -> ResponseTemplate {
        let path = request.url.path().to_owned();
        let method = request.method.as_str().to_owned();
        let rules = !path.contains("/databases/");
        if request.headers.get(AUTHORIZATION).is_none_or(|value| value != "Bearer test-token") {
            return refusal(401, "no token");
        }
        if !self.busy.is_empty() {
            return refusal(self.busy.remove(0), "too many changes");
        }
        if (rules && self.denied_rules) || (method == "GET" && self.denied_reads) {
            return refusal(403, "Missing or insufficient permissions.");
        }
        if method != "GET" && self.denied_changes {
            return refusal(403, "Missing or insufficient permissions.");
        }
        if self.no_database && !rules {
            return refusal(404, "The database (default) does not exist.");
        }
        if method != "GET" {
            self.changes.push(format!("{method} {path}"));
        }
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let name = path.trim_start_matches("/v1/").to_owned();
        match method.as_str() {
            "GET" if path.ends_with("/-/indexes") => self.listed(request, "indexes"),
            "GET" if path.ends_with("/-/fields") => {
                let filter = request.url.query_pairs().find(|(key, _)| key == "filter").map(|(_, value)| value);
                assert_eq!(filter.as_deref(), Some("indexConfig.usesAncestorConfig=false OR ttlConfig:*"));
                self.listed(request, "fields")
            }
            "GET" if path.contains("/releases/") => match &self.release {
                Some(ruleset) => ok(&json!({"name": name, "rulesetName": ruleset})),
                None => refusal(404, "no release"),
            },
            "GET" => ok(self.rulesets.iter().find(|set| set["name"] == name.as_str()).unwrap()),
            "POST" if path.ends_with("/indexes") => self.create_index(&name, body),
            "PATCH" if path.contains("/fields/") => self.set_field(&name, body, request),
            "POST" if path.ends_with("/rulesets") => {
                let name = format!("{name}/{}", self.rulesets.len() + 1);
                self.rulesets.push(json!({"name": name, "source": body["source"]}));
                ok(&json!({"name": name}))
            }
            "POST" if path.ends_with("/releases") => {
                self.release = Some(body["rulesetName"].as_str().unwrap().to_owned());
                ok(&body)
            }
            "PATCH" if self.release.is_none() => refusal(404, "no release"),
            "PATCH" => {
                self.release = Some(body["release"]["rulesetName"].as_str().unwrap().to_owned());
                ok(&body["release"])
            }
            other => panic!("nobody answers {other} {path}"),
        }
    }

    /// A list, page by page; each look brings what is building nearer to its end.
    fn listed(&mut self, request: &Request, key: &str) -> ResponseTemplate {
        if key == "indexes" {
            self.looks += 1;
        }
        let built = self.looks > self.looks_until_built;
        let members = if key == "indexes" { &self.indexes } else { &self.fields };
        let at = request.url.query_pairs().find(|(key, _)| key == "pageToken").map_or(0, |(_, at)| at.parse().unwrap());
        let size = self.page_size.unwrap_or(usize::MAX);
        let mut page: Vec<Value> = members.iter().skip(at).take(size).cloned().collect();
        if built {
            page.iter_mut().for_each(finish);
        }
        let next = if at + page.len() < members.len() { (at + page.len()).to_string() } else { String::new() };
        ok(&json!({ key: page, "nextPageToken": next }))
    }

    fn create_index(&mut self, parent: &str, mut body: Value) -> ResponseTemplate {
        assert_eq!(body["queryScope"], "COLLECTION");
        let last = body["fields"].as_array().unwrap().last().unwrap().clone();
        let order = last.get("order").cloned().unwrap_or_else(|| "ASCENDING".into());
        // Google adds what every index ends by.
        body["fields"].as_array_mut().unwrap().push(json!({"fieldPath": "__name__", "order": order}));
        if self.indexes.iter().any(|index| index["fields"] == body["fields"] && under(index, parent)) {
            return refusal(409, "index already exists");
        }
        body["name"] = format!("{parent}/{}", self.indexes.len() + 1).into();
        body["state"] = "CREATING".into();
        self.indexes.push(body);
        ok(&json!({"name": "operations/1"}))
    }

    fn set_field(&mut self, name: &str, body: Value, request: &Request) -> ResponseTemplate {
        let mask = request.url.query_pairs().find(|(key, _)| key == "updateMask").map(|(_, mask)| mask.into_owned());
        let ttl = body.get("ttlConfig").is_some();
        assert_eq!(mask.as_deref(), Some(if ttl { "indexConfig,ttlConfig" } else { "indexConfig" }), "{name}");
        self.fields.retain(|field| field["name"] != name);
        let mut field = json!({"name": name, "indexConfig": body["indexConfig"]});
        for index in field["indexConfig"]["indexes"].as_array_mut().unwrap() {
            index["state"] = "CREATING".into();
        }
        // An empty list is left out, as Google leaves it out.
        if body["indexConfig"]["indexes"] == json!([]) {
            field["indexConfig"] = json!({});
        }
        if ttl {
            field["ttlConfig"] = json!({"state": "CREATING"});
        }
        self.fields.push(field);
        ok(&json!({"name": "operations/1"}))
    }
}

fn under(index: &Value, parent: &str) -> bool {
    index["name"].as_str().unwrap().starts_with(parent)
}

/// What was building serves.
fn finish(member: &mut Value) {
    if member["state"] == "CREATING" {
        member["state"] = "READY".into();
    }
    if member["ttlConfig"]["state"] == "CREATING" {
        member["ttlConfig"]["state"] = "ACTIVE".into();
    }
    if let Some(indexes) = member.pointer_mut("/indexConfig/indexes").and_then(Value::as_array_mut) {
        indexes.iter_mut().for_each(|index| index["state"] = "READY".into());
    }
}

fn ok(body: &Value) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(body)
}

fn refusal(status: u16, message: &str) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_json(json!({"error": {"code": status, "message": message}}))
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<World>>);

impl Respond for Shared {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        self.0.lock().answer(request)
    }
}

struct Token;

#[async_trait]
impl Credentials for Token {
    async fn headers(&self) -> Result<HeaderMap, AdminError> {
        Ok(HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("Bearer test-token"))]))
    }
}

/// A clock that runs as fast as it is waited for.
struct HastyClock(Mutex<Timestamp>);

#[async_trait]
impl Clock for HastyClock {
    fn now(&self) -> Timestamp {
        *self.0.lock()
    }

    async fn sleep(&self, duration: Duration) {
        let mut now = self.0.lock();
        *now = now.saturating_add(duration).unwrap();
    }
}

/// A database in this world, and who looks after it.
async fn set_up(world: World) -> (MockServer, Shared, Admin) {
    let (server, shared) = (MockServer::start().await, Shared(Arc::new(Mutex::new(world))));
    Mock::given(any()).respond_with(shared.clone()).mount(&server).await;
    let url: Url = server.uri().parse().unwrap();
    let endpoints = Endpoints { firestore: url.clone(), rules: url };
    let clock = Arc::new(HastyClock(Mutex::new(Timestamp::UNIX_EPOCH)));
    let admin = Admin::new("college-1", "(default)", endpoints, Arc::new(Token), clock).unwrap();
    (server, shared, admin)
}

/// A database that a run has set up completely, with its changes forgotten.
async fn complete() -> (MockServer, Shared, Admin) {
    let (server, shared, admin) = set_up(World::default()).await;
    let survey = admin.survey().await.unwrap();
    admin.apply(&survey).await.unwrap();
    shared.0.lock().changes.clear();
    (server, shared, admin)
}

#[test]
fn the_list_can_be_read_and_says_nothing_twice() {
    let wanted = Wanted::of_this_build();
    for (at, index) in wanted.indexes.iter().enumerate() {
        assert!(!wanted.indexes[..at].contains(index), "{index} stands twice in the list");
        assert!(index.fields.len() > 1, "{index}: Firestore takes no index of one field here");
        for field in &index.fields {
            assert!(field.order.is_some() != field.array_config.is_some(), "{index}: order or array, not both");
        }
        let exempt = |field: &&FieldOverride| {
            field.collection_group == index.collection_group && field.field_path == "*" && field.indexes.is_empty()
        };
        assert!(wanted.field_overrides.iter().any(|field| exempt(&field)), "{index}: its collection is not exempt");
    }
    for (at, field) in wanted.field_overrides.iter().enumerate() {
        let same = |other: &FieldOverride| {
            other.collection_group == field.collection_group && other.field_path == field.field_path
        };
        assert!(!wanted.field_overrides[..at].iter().any(same), "{field} stands twice in the list");
    }
    assert!(wanted::RULES.contains("allow read, write: if false;"), "every client is denied");
    assert_eq!(wanted::RULES.matches("allow").count(), 1, "nothing else is allowed");
}

#[tokio::test]
async fn an_empty_database_gets_everything_and_a_second_run_does_nothing() {
    let (_server, shared, admin) = set_up(World { looks_until_built: 3, ..World::default() }).await;
    let wanted = Wanted::of_this_build();
    let survey = admin.survey().await.unwrap();
    assert_eq!(survey.of(Standing::Missing).count(), wanted.indexes.len() + wanted.field_overrides.len() + 1);
    assert!(!survey.is_complete());
    admin.apply(&survey).await.unwrap();
    assert!(admin.survey().await.unwrap().of(Standing::Building).count() > 0, "Google builds in its own time");
    let survey = admin.wait(Duration::from_secs(600)).await.unwrap();
    assert!(survey.is_complete(), "{survey:#?}");
    {
        let mut world = shared.0.lock();
        assert_eq!(world.indexes.len(), wanted.indexes.len());
        assert_eq!(world.fields.len(), wanted.field_overrides.len());
        assert_eq!(world.rulesets[0]["source"]["files"][0]["content"], wanted::RULES);
        assert_eq!(world.release.as_deref(), Some("projects/college-1/rulesets/1"));
        world.changes.clear();
    }
    admin.apply(&admin.survey().await.unwrap()).await.unwrap();
    assert_eq!(shared.0.lock().changes, Vec::<String>::new(), "a second run changes nothing");
}

#[tokio::test]
async fn only_what_is_missing_is_made() {
    let (_server, shared, admin) = complete().await;
    let gone = shared.0.lock().indexes.remove(2);
    let survey = admin.survey().await.unwrap();
    assert_eq!(survey.of(Standing::Missing).count(), 1, "{survey:#?}");
    admin.apply(&survey).await.unwrap();
    let parent = gone["name"].as_str().unwrap().rsplit_once('/').unwrap().0;
    assert_eq!(shared.0.lock().changes, [format!("POST /v1/{parent}")]);
}

#[tokio::test]
async fn a_setting_that_was_changed_by_hand_is_set_again() {
    let (_server, shared, admin) = complete().await;
    let ttl = |field: &Value| field["name"].as_str().unwrap().ends_with("/idempotency_keys/fields/expires_at");
    shared.0.lock().fields.iter_mut().find(|field| ttl(field)).unwrap().as_object_mut().unwrap().remove("ttlConfig");
    let survey = admin.survey().await.unwrap();
    let missing: Vec<String> = survey.of(Standing::Missing).map(ToString::to_string).collect();
    assert_eq!(missing, ["TTL idempotency_keys.expires_at"], "only the one that was taken away");
    admin.apply(&survey).await.unwrap();
    assert!(shared.0.lock().fields.iter().any(|field| ttl(field) && field.get("ttlConfig").is_some()));
}

#[tokio::test]
async fn rules_that_let_somebody_in_are_replaced() {
    let (_server, shared, admin) = complete().await;
    let open = "service cloud.firestore { match /{any=**} { allow read, write: if true; } }";
    shared.0.lock().rulesets[0]["source"]["files"][0]["content"] = open.into();
    let survey = admin.survey().await.unwrap();
    assert_eq!(survey.of(Standing::Missing).collect::<Vec<_>>(), [&Piece::Rules]);
    admin.apply(&survey).await.unwrap();
    assert_eq!(shared.0.lock().release.as_deref(), Some("projects/college-1/rulesets/2"));
    assert!(admin.survey().await.unwrap().is_complete());
}

#[tokio::test]
async fn what_is_not_wanted_is_told_and_left_alone() {
    let (_server, shared, admin) = complete().await;
    let name =
        |collection: &str| format!("projects/college-1/databases/(default)/collectionGroups/{collection}/indexes/x");
    for collection in ["crisis_alerts", "of_somebody_else"] {
        shared.0.lock().indexes.push(json!({
            "name": name(collection), "queryScope": "COLLECTION", "state": "READY",
            "fields": [{"fieldPath": "a", "order": "ASCENDING"}, {"fieldPath": "b", "order": "ASCENDING"}],
        }));
    }
    let survey = admin.survey().await.unwrap();
    assert_eq!(survey.unwanted, [name("crisis_alerts")], "another's collection is none of ours");
    admin.apply(&survey).await.unwrap();
    assert_eq!(shared.0.lock().changes, Vec::<String>::new());
}

#[tokio::test]
async fn long_lists_are_read_to_their_end() {
    let (_server, shared, admin) = complete().await;
    shared.0.lock().page_size = Some(2);
    let survey = admin.survey().await.unwrap();
    assert!(survey.is_complete(), "{survey:#?}");
}

#[tokio::test]
async fn an_index_that_google_cannot_build_is_told() {
    let (_server, shared, admin) = complete().await;
    shared.0.lock().indexes[0]["state"] = "NEEDS_REPAIR".into();
    let survey = admin.wait(Duration::from_secs(60)).await.unwrap();
    assert_eq!(survey.of(Standing::Failed).count(), 1, "{survey:#?}");
    assert!(!survey.is_complete());
}

#[tokio::test]
async fn waiting_ends_where_the_building_does_not() {
    let (_server, _shared, admin) = set_up(World { looks_until_built: usize::MAX, ..World::default() }).await;
    admin.apply(&admin.survey().await.unwrap()).await.unwrap();
    let survey = admin.wait(Duration::from_secs(60)).await.unwrap();
    let wanted = Wanted::of_this_build();
    let ttl = wanted.field_overrides.iter().filter(|field| field.ttl).count();
    assert_eq!(
        survey.of(Standing::Building).count(),
        wanted.indexes.len() + ttl,
        "exemptions are not built: {survey:#?}"
    );
}

#[tokio::test]
async fn credentials_that_may_not_look_are_told_what_they_lack() {
    let (_server, _shared, admin) = set_up(World { denied_reads: true, ..World::default() }).await;
    let error = admin.survey().await.unwrap_err();
    assert_eq!(error.to_string(), "these credentials may not list indexes: Missing or insufficient permissions.");
    assert!(error.remedy().contains("roles/datastore.indexAdmin"), "{}", error.remedy());
}

#[tokio::test]
async fn credentials_that_may_look_but_not_change_are_told_so() {
    let (_server, shared, admin) = set_up(World { denied_changes: true, ..World::default() }).await;
    let error = admin.apply(&admin.survey().await.unwrap()).await.unwrap_err();
    assert!(matches!(error, AdminError::Denied { what: "create an index", .. }), "{error}");
    assert!(shared.0.lock().indexes.is_empty());
}

#[tokio::test]
async fn the_services_own_account_sees_all_but_the_rules() {
    let (_server, shared, admin) = complete().await;
    shared.0.lock().denied_rules = true;
    let survey = admin.survey().await.unwrap();
    assert!(survey.pieces.iter().all(|(_, standing)| *standing == Standing::Ready), "{survey:#?}");
    assert!(matches!(survey.rules_unseen, Some(AdminError::Denied { .. })), "{survey:#?}");
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named() {
    let (_server, _shared, admin) = set_up(World { no_database: true, ..World::default() }).await;
    let error = admin.survey().await.unwrap_err();
    assert!(matches!(&error, AdminError::NotFound(what) if what.contains("college-1")), "{error}");
}

#[tokio::test]
async fn a_busy_answer_is_waited_out_and_one_that_stays_busy_is_told() {
    let (_server, shared, admin) = set_up(World { busy: vec![429, 503], ..World::default() }).await;
    admin.survey().await.unwrap();
    shared.0.lock().busy = vec![429; 5];
    let error = admin.survey().await.unwrap_err();
    assert!(matches!(error, AdminError::Refused { status: StatusCode::TOO_MANY_REQUESTS, .. }), "{error}");
}

#[tokio::test]
async fn an_index_that_somebody_else_has_asked_for_meanwhile_is_no_fault() {
    let (_server, _shared, admin) = set_up(World::default()).await;
    let survey = admin.survey().await.unwrap();
    admin.apply(&survey).await.unwrap();
    admin.apply(&survey).await.unwrap();
    assert!(admin.wait(Duration::from_secs(60)).await.unwrap().is_complete());
}
