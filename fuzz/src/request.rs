//! Any request to any route: no answer that is the service's fault, and nothing is repeated.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, Request, Uri};

use super::{edge, first_line, parted};

/// Input: a line with method and target, lines with headers, an empty line, the body. What no HTTP library would let
/// through to the routes is passed over.
pub fn run(data: &[u8]) {
    let (head, body) = parted(data, b"");
    if let Some(request) = request(head, body) {
        edge::ask(request);
    }
}

fn request(head: &[u8], body: &[u8]) -> Option<Request<Body>> {
    let (line, headers) = first_line(head);
    let space = line.iter().position(|byte| *byte == b' ')?;
    let method = Method::from_bytes(&line[..space]).ok()?;
    let target = Uri::try_from(&line[space + 1..]).ok()?;
    let mut request = Request::builder().method(method).uri(target).body(Body::from(body.to_vec())).ok()?;
    for line in headers.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        request.headers_mut().append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
    }
    Some(request)
}
