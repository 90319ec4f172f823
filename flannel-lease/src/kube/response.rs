//! Answers of the API server: unzipped, in pieces, never more of them in memory than a bound.

use std::io::Write as _;
use std::time::Duration;

use flate2::write::MultiGzDecoder;
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use kube::Client;
use kube::client::Body;
use kube::core::Status;
use tokio::time::timeout;

use super::decode::{Format, Unreadable};

/// Most bytes of an answer that is read as a whole.
const MAX_WHOLE_BYTES: usize = 4 << 20;
/// Bytes that are unzipped at a time, which gives at most a thousand times as many.
const PIECE_BYTES: usize = 4096;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The API server refuses the request or cannot serve it now.
    Refused(Box<Status>),
    /// The connection cannot be made or broke.
    Broken(Box<dyn std::error::Error + Send + Sync>),
    /// Nothing came for so long.
    Silent(Duration),
    /// The API server answered something else.
    Unreadable(Unreadable),
}

impl Failure {
    /// The HTTP status; 0 if there is none.
    pub(super) fn code(&self) -> u16 {
        match self {
            Self::Refused(status) => status.code,
            _ => 0,
        }
    }

    /// How long the API server asks to wait; at most a minute.
    pub(super) fn retry_after(&self) -> Duration {
        const MAX_SECONDS: u32 = 60;
        let details = match self {
            Self::Refused(status) => status.details.as_ref(),
            _ => None,
        };
        Duration::from_secs(details.map_or(0, |details| details.retry_after_seconds.min(MAX_SECONDS)).into())
    }

    /// Whether the API server is there and has too much to do.
    pub(super) fn is_overload(&self) -> bool {
        matches!(self.code(), 429 | 500..) || matches!(self, Self::Silent(_))
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused(status),
            // The innermost cause: the client's own words repeat it.
            kube::Error::Service(source) => Self::Broken(source),
            kube::Error::HyperError(source) => Self::Broken(source.into()),
            other => Self::Broken(other.into()),
        }
    }
}

/// An answer that has begun.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) format: Format,
    body: Body,
    chunk: Bytes,
    gzip: Option<MultiGzDecoder<Vec<u8>>>,
    plain: Vec<u8>,
}

impl Response {
    /// Sends a request and waits so long for the answer to begin.
    pub(super) async fn to(
        client: &Client,
        request: Request<Vec<u8>>,
        patience: Duration,
    ) -> Result<Self, Failure> {
        let sent = timeout(patience, client.send(request.map(Body::from))).await;
        let response = sent.map_err(|_elapsed| Failure::Silent(patience))??;
        let (head, body) = response.into_parts();
        let has = |name: HeaderName, text: &str| {
            let value = head.headers.get(name).and_then(|value| value.to_str().ok());
            value.is_some_and(|value| value.trim_start().starts_with(text))
        };
        let protobuf = has(CONTENT_TYPE, "application/vnd.kubernetes.protobuf");
        let this = Self {
            format: if protobuf { Format::Protobuf } else { Format::Json },
            body,
            chunk: Bytes::new(),
            gzip: has(CONTENT_ENCODING, "gzip").then(|| MultiGzDecoder::new(Vec::new())),
            plain: Vec::new(),
        };
        let code = head.status;
        if code.is_success() {
            return Ok(this);
        }
        let format = this.format;
        let text = this.whole(patience).await.unwrap_or_default();
        Err(Failure::Refused(Box::new(status(code.as_u16(), format, &text))))
    }

    /// The next piece; `None` at the end. Waits so long for it.
    pub(super) async fn next(&mut self, patience: Duration) -> Result<Option<&[u8]>, Failure> {
        while self.chunk.is_empty() {
            let frame = timeout(patience, self.body.frame()).await;
            match frame.map_err(|_elapsed| Failure::Silent(patience))? {
                None => return Ok(None),
                Some(frame) => self.chunk = frame?.into_data().unwrap_or_default(),
            }
        }
        let piece = self.chunk.split_to(PIECE_BYTES.min(self.chunk.len()));
        self.plain.clear();
        match &mut self.gzip {
            None => self.plain.extend_from_slice(&piece),
            Some(gzip) => {
                let unzipped = gzip.write_all(&piece).and_then(|()| gzip.flush());
                unzipped.map_err(|error| Failure::Unreadable(error.to_string()))?;
                std::mem::swap(gzip.get_mut(), &mut self.plain);
            }
        }
        Ok(Some(&self.plain))
    }

    /// All of it.
    pub(super) async fn whole(mut self, patience: Duration) -> Result<Vec<u8>, Failure> {
        let mut all = Vec::new();
        while let Some(piece) = self.next(patience).await? {
            all.extend_from_slice(piece);
            if all.len() > MAX_WHOLE_BYTES {
                return Err(Failure::Unreadable(format!("it has more than {MAX_WHOLE_BYTES} bytes")));
            }
        }
        Ok(all)
    }
}

/// The reason for a refusal: a `Status`, or what a proxy says.
pub(super) fn status(code: u16, format: Format, text: &[u8]) -> Status {
    const MAX_CHARACTERS: usize = 300;
    let parsed = match format {
        Format::Json => serde_json::from_slice(text).ok(),
        Format::Protobuf => super::decode::status(text).ok(),
    };
    let status = parsed.unwrap_or_else(|| {
        let text: String = String::from_utf8_lossy(text).trim().chars().take(MAX_CHARACTERS).collect();
        Status::failure(&text, "")
    });
    status.with_code(code)
}
