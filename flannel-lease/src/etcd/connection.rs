//! A connection to the first member that answers, and why there is none.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::iter::successors;
use std::sync::Arc;
use std::time::Duration;

use hyper::http::uri::PathAndQuery;
use rustls::{AlertDescription, Error as TlsError};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::error::with_causes;
use crate::file::limit_advice;
use crate::resolver::LookupError;

use super::member::Member;
use super::wire::{AuthenticateRequest, AuthenticateResponse, Nothing};

/// How long a member may take before the next one is tried as well.
const NEXT_MEMBER_DELAY: Duration = Duration::from_millis(100);

/// What to do if no setting is known to be wrong.
pub(super) const NO_MEMBER: &str = "check that an etcd member runs there";

/// Bytes of the largest answer accepted.
const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// A connection to a member that has answered on it.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) channel: Channel,
    pub(super) token: Option<MetadataValue<Ascii>>,
    /// Counts sessions, so that only the one that failed is given up.
    pub(super) number: u64,
}

impl Session {
    pub(super) fn authorize<T>(&self, request: Request<T>) -> Request<T> {
        let mut request = with_leader(request);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }
}

/// Asks the member to refuse the call while it has no leader.
fn with_leader<T>(mut request: Request<T>) -> Request<T> {
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    request
}

pub(super) async fn grpc(channel: Channel) -> Result<Grpc<Channel>, Status> {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES);
    grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
    Ok(grpc)
}

/// Connects to the member that answers first. Starts with `first`; whenever a member takes longer
/// than [`NEXT_MEMBER_DELAY`] or fails, the next one is tried as well. A hung member therefore costs 100 ms,
/// and no other member is tried if the first one answers at once.
///
/// # Errors
/// No member answered by `deadline`.
pub(super) async fn first_to_answer(
    members: &[Arc<Member>],
    first: usize,
    deadline: Instant,
) -> Result<(usize, Channel), Unreachable> {
    let count = members.len();
    let order = (first..first.saturating_add(count)).map(|index| index % count);
    let mut waiting: VecDeque<_> = order.filter_map(|index| Some((index, members.get(index)?))).collect();
    let mut asked = JoinSet::new();
    let mut failures: Vec<Option<Failure>> = members.iter().map(|_| None).collect();
    loop {
        match waiting.pop_front() {
            Some((index, member)) => {
                let member = Arc::clone(member);
                asked.spawn(async move { (index, open(&member).await) });
            }
            None if asked.is_empty() => break,
            None => {}
        }
        let patience =
            if waiting.is_empty() { deadline } else { deadline.min(Instant::now() + NEXT_MEMBER_DELAY) };
        match timeout_at(patience, asked.join_next()).await {
            Ok(Some(Ok((index, Ok(channel))))) => return Ok((index, channel)),
            Ok(Some(Ok((index, Err(failure))))) => {
                if let Some(place) = failures.get_mut(index) {
                    *place = Some(failure);
                }
            }
            Ok(Some(Err(_)) | None) => {}
            Err(_elapsed) if Instant::now() >= deadline => break,
            Err(_elapsed) => {}
        }
    }
    let reason = |(member, failure): (&Arc<Member>, Option<Failure>)| {
        (member.url.clone(), failure.unwrap_or_else(Failure::silent))
    };
    Err(Unreachable(members.iter().zip(failures).map(reason).collect()))
}

/// Connects, and waits for an answer: the kernel accepts connections for a process that hangs.
async fn open(member: &Member) -> Result<Channel, Failure> {
    let channel = member.connect().await.map_err(|error| Failure::by(member, &error))?;
    let path = PathAndQuery::from_static("/etcdserverpb.Maintenance/Status");
    let codec = ProstCodec::<Nothing, Nothing>::default();
    let answer = match grpc(channel.clone()).await {
        Ok(mut grpc) => grpc.unary(with_leader(Request::new(Nothing {})), path, codec).await.map(drop),
        Err(status) => Err(status),
    };
    match answer {
        Err(status) if is_silence(&status) => {
            let refusal = member.tls_refusal().await;
            Err(refusal.map_or_else(
                || Failure::unanswered(member, &status),
                |refusal| Failure::by(member, &refusal),
            ))
        }
        // Any answer will do: without a login the member may refuse the call.
        _ => Ok(channel),
    }
}

/// Whether the member gave no answer, or one that another member may improve on.
pub(super) fn is_silence(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled | Code::Internal
    )
}

pub(super) async fn login(
    channel: Channel,
    user: AuthenticateRequest,
) -> Result<MetadataValue<Ascii>, Status> {
    let path = PathAndQuery::from_static("/etcdserverpb.Auth/Authenticate");
    let codec = ProstCodec::<AuthenticateRequest, AuthenticateResponse>::default();
    let answer = grpc(channel).await?.unary(Request::new(user), path, codec).await?.into_inner();
    let mut token: MetadataValue<Ascii> =
        answer.token.parse().map_err(|error| Status::from_error(Box::new(error)))?;
    // Kept out of what connections log of themselves.
    token.set_sensitive(true);
    Ok(token)
}

/// No member can be reached: the URL of each, and why.
#[derive(Debug, thiserror::Error)]
pub(super) struct Unreachable(Vec<(String, Failure)>);

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(_, only)] = self.0.as_slice() {
            return f.write_str(&only.cause);
        }
        for (index, (url, failure)) in self.0.iter().enumerate() {
            write!(f, "{}{url}: {}", if index == 0 { "" } else { "; " }, failure.cause)?;
        }
        Ok(())
    }
}

impl Unreachable {
    /// What to do about it: wrong settings first, since an unreachable member may just be down.
    pub(super) fn advice(&self) -> &'static str {
        let known = self.0.iter().find_map(|(_, failure)| failure.advice);
        known.unwrap_or(NO_MEMBER)
    }
}

/// Why a member cannot be reached.
#[derive(Debug)]
struct Failure {
    cause: String,
    /// What to do, if a setting is at fault.
    advice: Option<&'static str>,
}

impl Failure {
    fn by(member: &Member, error: &(dyn Error + 'static)) -> Self {
        Self { cause: causes(error), advice: connection_advice(member, error) }
    }

    /// The member accepted a connection and did not answer as etcd.
    fn unanswered(member: &Member, status: &Status) -> Self {
        let failure = Self::by(member, status);
        let advice = (!member.is_encrypted())
            .then_some("check that an etcd member runs there, and whether its URL begins with https://");
        Self { advice: failure.advice.or(advice), ..failure }
    }

    fn silent() -> Self {
        Self { cause: "no answer in time".to_owned(), advice: None }
    }
}

/// The causes of an error, each once.
pub(super) fn causes(error: &(dyn Error + 'static)) -> String {
    let below = successors(error.source(), |cause| (*cause).source()).map(ToString::to_string);
    let mut causes: Vec<String> = below.filter(|text| text != "transport error").collect();
    if causes.is_empty() {
        causes.extend(cause::<TlsError>(error).map(ToString::to_string));
    }
    causes.dedup();
    if causes.is_empty() { error.to_string() } else { causes.join(": ") }
}

/// The cause of this type.
fn cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    with_causes(error).find_map(|cause| cause.downcast_ref())
}

/// What to do about an error of the connection, if a setting may be at fault.
fn connection_advice(member: &Member, error: &(dyn Error + 'static)) -> Option<&'static str> {
    if let Some(advice) = limit_advice(error) {
        return Some(advice);
    }
    if cause::<LookupError>(error).is_some() {
        return Some("check the name in --etcd-endpoints and the DNS servers in /etc/resolv.conf");
    }
    cause(error).and_then(|error| tls_advice(member, error))
}

fn tls_advice(member: &Member, error: &TlsError) -> Option<&'static str> {
    match error {
        TlsError::InvalidCertificate(_) => Some(
            "its certificate is not trusted: check --etcd-cafile, and that the certificate is for the host of this URL",
        ),
        TlsError::AlertReceived(alert) if is_about_certificates(*alert) && member.shows_certificate => Some(
            "it refuses the client certificate: check the dates and the authority of --etcd-certfile, and that \
             --etcd-keyfile is its key",
        ),
        TlsError::AlertReceived(alert) if is_about_certificates(*alert) => {
            Some("it requires a client certificate: pass --etcd-certfile and --etcd-keyfile")
        }
        _ => Some("check that it speaks TLS there"),
    }
}

fn is_about_certificates(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::AccessDenied
            | Alert::BadCertificate
            | Alert::CertificateExpired
            | Alert::CertificateRequired
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::DecryptError
            | Alert::HandshakeFailure
            | Alert::NoCertificate
            | Alert::UnknownCA
            | Alert::UnsupportedCertificate
    )
}
