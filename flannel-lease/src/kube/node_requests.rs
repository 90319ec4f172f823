//! Requests for all nodes: a list, and a watch of what changes after it.
//!
//! Both ask for metadata only, in protobuf and zipped, which is a sixth of the bytes and a quarter of
//! the API server's work of a list of whole nodes. Every request names what else it takes, so that a
//! server or proxy that knows less answers what it can.

use std::fmt::Write as _;
use std::time::Duration;

use hyper::Request;
use hyper::header::{ACCEPT, ACCEPT_ENCODING};
use rand::RngExt as _;

use super::client::ApiServer;
use super::decode::{ListDecoder, ListEnd, WatchDecoder, WatchItem};
use super::node::Node;
use super::response::{Failure, Response};

/// Longest time in which nothing comes of a list. The API server gives up after 60 s.
const LIST_IDLE_TIMEOUT: Duration = Duration::from_secs(65);
/// Longest time in which nothing comes of a watch. The API server sends a bookmark every minute.
const WATCH_IDLE_TIMEOUT: Duration = Duration::from_secs(180);
/// The API server ends a watch after a time in this range, in seconds: different watches at different
/// times.
const WATCH_SECONDS: std::ops::RangeInclusive<u32> = 300..=600;

/// How much of each node to ask for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Detail {
    Metadata,
    Whole,
}

/// What a list may be answered from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) enum Since {
    /// Whatever the API server has at hand.
    #[default]
    Any,
    /// The same, if it is not older than this version.
    Version(String),
    /// What etcd holds now.
    Now,
}

impl Since {
    fn parameter(&self) -> &str {
        match self {
            Self::Any => "0",
            Self::Version(version) => version,
            Self::Now => "",
        }
    }
}

/// A list that has begun.
#[derive(Debug)]
pub(super) struct NodeList {
    response: Response,
    decoder: ListDecoder,
}

impl NodeList {
    /// The next nodes; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Node>>, Failure> {
        let mut nodes = Vec::new();
        while nodes.is_empty() {
            let Some(piece) = self.response.next(LIST_IDLE_TIMEOUT).await? else { return Ok(None) };
            self.decoder.feed(piece, &mut nodes).map_err(Failure::Unreadable)?;
        }
        Ok(Some(nodes))
    }

    /// To be called after its last node.
    pub(super) fn end(self) -> Result<ListEnd, Failure> {
        self.decoder.finish().map_err(Failure::Unreadable)
    }
}

/// A watch that has begun.
#[derive(Debug)]
pub(super) struct NodeWatch {
    response: Response,
    decoder: WatchDecoder,
}

impl NodeWatch {
    /// What it says next; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<WatchItem>>, Failure> {
        let mut items = Vec::new();
        while items.is_empty() {
            let Some(piece) = self.response.next(WATCH_IDLE_TIMEOUT).await? else { return Ok(None) };
            self.decoder.feed(piece, &mut items).map_err(Failure::Unreadable)?;
        }
        Ok(Some(items))
    }
}

impl ApiServer {
    /// Lists nodes; `page` is where the page before ended. `simple` asks for JSON and nothing else.
    pub(super) async fn list_nodes(
        &self,
        detail: Detail,
        since: &Since,
        page: &str,
        simple: bool,
    ) -> Result<NodeList, Failure> {
        let query = match page {
            "" => format!("resourceVersion={}", escaped(since.parameter())),
            page => format!("continue={}", escaped(page)),
        };
        let response = self.ask_for_nodes(&query, "List", detail, simple, LIST_IDLE_TIMEOUT).await?;
        Ok(NodeList { decoder: ListDecoder::new(response.format), response })
    }

    /// Watches nodes from a version on.
    pub(super) async fn watch_nodes(&self, version: &str, simple: bool) -> Result<NodeWatch, Failure> {
        let seconds = rand::rng().random_range(WATCH_SECONDS);
        let version = escaped(version);
        let query =
            format!("watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={version}");
        let response = self.ask_for_nodes(&query, "", Detail::Metadata, simple, LIST_IDLE_TIMEOUT).await?;
        Ok(NodeWatch { decoder: WatchDecoder::new(response.format), response })
    }

    async fn ask_for_nodes(
        &self,
        query: &str,
        list: &str,
        detail: Detail,
        simple: bool,
        patience: Duration,
    ) -> Result<Response, Failure> {
        const NOT_ACCEPTABLE: u16 = 406;
        let metadata = format!("as=PartialObjectMetadata{list};g=meta.k8s.io;v=v1");
        let accept = match detail {
            Detail::Metadata => format!(
                "application/vnd.kubernetes.protobuf;{metadata},application/json;{metadata},application/json"
            ),
            Detail::Whole => "application/vnd.kubernetes.protobuf,application/json".to_owned(),
        };
        let ask = async |accept: &str| {
            let request = Request::get(format!("/api/v1/nodes?{query}"))
                .header(ACCEPT, accept)
                .header(ACCEPT_ENCODING, "gzip")
                .body(Vec::new());
            let request = request.map_err(|error| Failure::Broken(error.into()))?;
            Response::to(&self.client, request, patience).await
        };
        let response = if simple { ask("application/json").await } else { ask(&accept).await };
        match response {
            Err(failure) if failure.code() == NOT_ACCEPTABLE && !simple => ask("application/json").await,
            response => response,
        }
    }
}

/// A value of a query, with everything escaped that may mean something there.
fn escaped(value: &str) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(byte.into());
        } else {
            let _infallible = write!(text, "%{byte:02X}");
        }
    }
    text
}
