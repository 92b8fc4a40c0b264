//! Operations without a query take none: a parameter that nobody reads would pass for one that is obeyed.
//!
//! Which operations have one is read off the API's description, so that it holds for every route there is.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::{OpenApi, RefOr};

use super::problem::{FieldError, Problem, ProblemCode};

/// Where this holds. Twilio's callbacks bear what Twilio likes.
const UNDER: &str = "/api/";

/// The operations that have no query, by method and path.
#[derive(Debug, Clone)]
pub(super) struct Unread(Arc<BTreeSet<(String, String)>>);

impl Unread {
    /// Those of a description.
    pub(super) fn of(api: &OpenApi) -> Self {
        let has_query = |operation: &Operation| {
            let mut parameters = operation.parameters.iter().flatten();
            parameters.any(|parameter| match parameter {
                RefOr::T(parameter) => matches!(parameter.parameter_in, ParameterIn::Query),
                // There is none. What cannot be read off is let through.
                RefOr::Ref(_) => true,
            })
        };
        let of_path = api.paths.paths.iter().flat_map(|(path, item)| {
            let operations = [
                (Method::GET, &item.get),
                (Method::POST, &item.post),
                (Method::PUT, &item.put),
                (Method::DELETE, &item.delete),
                (Method::PATCH, &item.patch),
            ];
            let without =
                operations.into_iter().filter(|(_, operation)| operation.as_ref().is_some_and(|o| !has_query(o)));
            without.map(|(method, _)| (method.to_string(), path.clone())).collect::<Vec<_>>()
        });
        Self(Arc::new(of_path.collect()))
    }

    /// Whether a query would be read by nobody. What is no operation at all is answered as that.
    fn is_unread(&self, method: &Method, path: &str) -> bool {
        // A HEAD is a GET without its body.
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        path.starts_with(UNDER) && self.0.contains(&(method.to_string(), path.to_owned()))
    }
}

/// Refuses a query where there is none to be read.
pub(super) async fn refuse_unread(queries: Unread, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let query = request.uri().query().unwrap_or_default();
    if query.is_empty() || !path.is_some_and(|path| queries.is_unread(request.method(), path)) {
        return next.run(request).await;
    }
    let first = form_urlencoded::parse(query.as_bytes()).next();
    let name = first.map(|(name, _)| name.into_owned()).unwrap_or_default();
    Problem::of_field(ProblemCode::UnknownField, FieldError::new(name, "is not known here")).into_response()
}
