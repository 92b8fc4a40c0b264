//! The API's documentation: `/openapi.json`, and a page under `/docs` to read it and try it.
//!
//! The page is built into the program and loads nothing from elsewhere.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::middleware::map_response;
use axum::response::Response;
use utoipa_swagger_ui::SwaggerUi;

/// The page runs its own scripts, writes styles into its elements, and asks this service; nothing else.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; font-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// Serves `api` as `/openapi.json` and the page under `/docs`.
pub fn router<S: Clone + Send + Sync + 'static>(api: utoipa::openapi::OpenApi) -> Router<S> {
    let pages: Router<S> = SwaggerUi::new("/docs").url("/openapi.json", api).into();
    pages.layer(map_response(|mut response: Response| async {
        let policy = HeaderValue::from_static(CONTENT_SECURITY_POLICY);
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
        response
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::{Request, StatusCode};
    use tower::ServiceExt as _;

    async fn get(path: &str) -> (Response, String) {
        let api = utoipa::openapi::OpenApiBuilder::new().build();
        let response = router::<()>(api).oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 16 * 1024 * 1024).await.unwrap();
        (Response::from_parts(parts, Body::empty()), String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn the_description_is_served() {
        let (response, body) = get("/openapi.json").await;
        assert_eq!(response.status(), StatusCode::OK);
        let document: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    }

    #[tokio::test]
    async fn the_page_and_its_parts_are_built_in_and_allowed_by_its_policy() {
        assert_eq!(get("/docs").await.0.status(), StatusCode::SEE_OTHER);
        let (response, page) = get("/docs/").await;
        assert!(response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().contains("script-src 'self'"));
        for part in ["swagger-ui.css", "swagger-ui-bundle.js", "swagger-initializer.js"] {
            assert!(page.contains(part), "{part}");
            assert_eq!(get(&format!("/docs/{part}")).await.0.status(), StatusCode::OK);
        }
        assert!(!page.contains("http"), "the page loads something from elsewhere: {page}");
        assert!(!page.contains("<script>") && !page.contains("<style>"), "the policy would stop inline code");
        assert!(get("/docs/swagger-initializer.js").await.1.contains("/openapi.json"));
    }
}
