//! Requests and their responses.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep_until, timeout};

use super::encode::Encoding;
use super::{Shared, lock};

type Response = hyper::Response<BoxBody<Bytes, Infallible>>;

/// How often an idle watch hears the current version.
const BOOKMARK: Duration = Duration::from_secs(1);

pub(super) async fn respond(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response, Infallible> {
    // Before anything is looked at: a watch that a change finds here, between the checks and its stream, is cut too.
    let epoch = shared.epoch.subscribe();
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let agent = request.headers().get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    lock(&shared.user_agents).insert(agent.to_owned());
    let Some(encoding) = Encoding::negotiate(request.headers(), *lock(&shared.media_types)) else {
        let text = "only the following media types are accepted: application/json";
        return Ok(status(&shared, Encoding::default(), 406, "NotAcceptable", text));
    };
    let token = lock(&shared.token).clone();
    if let Some(token) = token {
        let sent = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        if sent != Some(&format!("Bearer {token}")) {
            return Ok(status(&shared, encoding, 401, "Unauthorized", "Unauthorized"));
        }
    }
    if let Some(code) = next_refusal(&shared) {
        let reason = match code {
            403 => "Forbidden",
            410 => "Expired",
            429 => "TooManyRequests",
            500 => "InternalError",
            _ => "ServiceUnavailable",
        };
        return Ok(status(&shared, encoding, code, reason, &format!("refused with {code} on purpose")));
    }
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let query = query(request.uri().query().unwrap_or_default());
    let watching = query.get("watch").is_some_and(|value| value == "true" || value == "1");
    Ok(match (request.method(), parts.as_slice()) {
        (&Method::GET, ["api", "v1", "nodes"]) if watching => watch(&shared, &query, encoding, epoch),
        (&Method::GET, ["api", "v1", "nodes"]) => list(&shared, &query, encoding),
        (&Method::GET, ["api", "v1", "nodes", name]) => {
            let node = lock(&shared.nodes).read(name);
            node.map_or_else(
                || not_found(&shared, encoding, "nodes", name),
                |node| whole(&shared, encoding, 200, &node),
            )
        }
        (&Method::GET, ["api", "v1", "namespaces", namespace, "pods", name]) => {
            let pod = lock(&shared.nodes).pod(namespace, name);
            pod.map_or_else(
                || not_found(&shared, encoding, "pods", name),
                |pod| whole(&shared, encoding, 200, &pod),
            )
        }
        (&Method::PATCH, ["api", "v1", "nodes", name, "status"]) => {
            let name = (*name).to_owned();
            let kind = request.headers().get(CONTENT_TYPE).cloned();
            if kind.is_none_or(|kind| kind != "application/strategic-merge-patch+json") {
                return Ok(status(
                    &shared,
                    encoding,
                    415,
                    "UnsupportedMediaType",
                    "not a strategic merge patch",
                ));
            }
            let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
            let Some(patch) = body.ok().and_then(|body| serde_json::from_slice::<Value>(&body).ok()) else {
                return Ok(status(&shared, encoding, 400, "BadRequest", "the patch is not JSON"));
            };
            let patched = lock(&shared.nodes).patch_status(&name, &patch);
            shared.changed.send_replace(());
            patched.map_or_else(
                || not_found(&shared, encoding, "nodes", &name),
                |node| whole(&shared, encoding, 200, &node),
            )
        }
        _ => status(&shared, encoding, 404, "NotFound", "the server could not find the requested resource"),
    })
}

fn next_refusal(shared: &Shared) -> Option<u16> {
    let mut refusals = lock(&shared.refusals);
    let refusal = refusals.as_mut()?;
    let code = refusal.code;
    refusal.left = refusal.left.saturating_sub(1);
    if refusal.left == 0 {
        *refusals = None;
    }
    Some(code)
}

fn query(text: &str) -> HashMap<String, String> {
    let pair =
        |pair: &str| pair.split_once('=').map(|(key, value)| (key.to_owned(), value.replace("%2F", "/")));
    text.split('&').filter_map(pair).collect()
}

fn list(shared: &Shared, query: &HashMap<String, String>, encoding: Encoding) -> Response {
    let limit = query.get("limit").and_then(|limit| limit.parse().ok()).filter(|limit| *limit > 0);
    let token = query.get("continue").map(String::as_str).filter(|token| !token.is_empty());
    let least = query.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
    if lock(&shared.nodes).version() < least {
        return status(shared, encoding, 504, "Timeout", "Too large resource version");
    }
    let page = lock(&shared.nodes).page(token, limit.unwrap_or(usize::MAX));
    let Some((version, nodes, next)) = page else {
        return status(shared, encoding, 410, "Expired", "The provided continue parameter is too old");
    };
    let metadata = json!({ "resourceVersion": version.to_string(), "continue": next.unwrap_or_default() });
    let nodes: Vec<&Value> = nodes.iter().map(|node| &**node).collect();
    whole(
        shared,
        encoding,
        200,
        &json!({ "kind": "NodeList", "apiVersion": "v1", "metadata": metadata, "items": nodes }),
    )
}

fn watch(
    shared: &Arc<Shared>,
    query: &HashMap<String, String>,
    encoding: Encoding,
    epoch: Receiver<u64>,
) -> Response {
    let given = |key: &str| query.get(key).map(String::as_str).unwrap_or_default();
    let bookmarks = given("allowWatchBookmarks") == "true";
    let limit = given("timeoutSeconds").parse().unwrap_or(1800);
    lock(&shared.watch_timeouts).push(limit);
    let limit = Duration::from_secs(limit);
    let since = Some(given("resourceVersion")).filter(|text| !text.is_empty() && *text != "0");
    let Ok(since) = since.map(str::parse::<u64>).transpose() else {
        return status(shared, encoding, 400, "BadRequest", "resourceVersion is not a number");
    };
    let (lines, stream) = mpsc::channel(16);
    tokio::spawn(follow(Arc::clone(shared), lines, since, bookmarks, limit, encoding, epoch));
    answered(200, encoding.content_type(true), Stream(stream).boxed())
}

/// Sends the nodes there are unless `since` is given, then every change. A metaServer sends what it has in any case.
async fn follow(
    shared: Arc<Shared>,
    lines: mpsc::Sender<Bytes>,
    since: Option<u64>,
    bookmarks: bool,
    limit: Duration,
    encoding: Encoding,
    mut epoch: Receiver<u64>,
) {
    let mut changed = shared.changed.subscribe();
    let end = Instant::now() + limit;
    let send = async |kind: &str, object: &Value| {
        let line = encoding.event(kind, object);
        shared.bytes.fetch_add(u64::try_from(line.len()).unwrap_or_default(), Ordering::Relaxed);
        lines.send(Bytes::from(line)).await.is_ok()
    };
    let bookmark = |version: u64| {
        let metadata = json!({ "resourceVersion": version.to_string() });
        json!({ "kind": "Node", "apiVersion": "v1", "metadata": metadata, "spec": {}, "status": {} })
    };
    let local = lock(&shared.local).clone();
    let bookmarks = bookmarks && local.is_none();
    let mut at = match (since, &local) {
        (Some(since), None) => since,
        _ => {
            let (version, nodes) = lock(&shared.nodes).all();
            let is_gone = |former: &Arc<Value>| {
                nodes.iter().all(|node| node["metadata"]["name"] != former["metadata"]["name"])
            };
            let gone: Vec<_> = local.into_iter().flatten().filter(is_gone).collect();
            for node in gone.into_iter().chain(nodes) {
                if !send("ADDED", &node).await {
                    return;
                }
            }
            version
        }
    };
    loop {
        let silent = shared.silent.load(Ordering::SeqCst);
        let changes = if silent { Some(Vec::new()) } else { lock(&shared.nodes).changes(at) };
        let Some(changes) = changes else {
            let gone = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410,
                "reason": "Expired", "message": format!("too old resource version: {at}") });
            send("ERROR", &gone).await;
            return;
        };
        for (version, kind, node) in changes {
            at = version;
            if !send(kind, &node).await {
                return;
            }
        }
        tokio::select! {
            () = lines.closed() => return,
            () = sleep_until(end) => return,
            _ = epoch.changed() => return,
            waited = timeout(BOOKMARK, changed.changed()) => {
                if waited.is_err() && bookmarks && !silent {
                    // Compactions alone move the version too, and a bookmark is what saves a quiet watch from them.
                    let nodes = lock(&shared.nodes).version();
                    at = at.max(nodes);
                    if !send("BOOKMARK", &bookmark(at)).await {
                        return;
                    }
                }
            }
        }
    }
}

fn not_found(shared: &Shared, encoding: Encoding, kind: &str, name: &str) -> Response {
    status(shared, encoding, 404, "NotFound", &format!("{kind} \"{name}\" not found"))
}

fn status(shared: &Shared, encoding: Encoding, code: u16, reason: &str, message: &str) -> Response {
    let mut body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    });
    if code == 429 {
        body["details"] = json!({ "retryAfterSeconds": 1 });
    }
    let mut response = whole(shared, encoding, code, &body);
    if code == 429 {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn whole(shared: &Shared, encoding: Encoding, code: u16, body: &Value) -> Response {
    let (body, zipped) = encoding.whole(body);
    shared.bytes.fetch_add(u64::try_from(body.len()).unwrap_or_default(), Ordering::Relaxed);
    let mut response = answered(code, encoding.content_type(false), Full::new(Bytes::from(body)).boxed());
    if zipped {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn answered(code: u16, kind: &'static str, body: BoxBody<Bytes, Infallible>) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = hyper::StatusCode::from_u16(code).unwrap_or_default();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A body whose lines come from a task; it ends without a proper end when the task does, as a cut stream would.
struct Stream(mpsc::Receiver<Bytes>);

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}
