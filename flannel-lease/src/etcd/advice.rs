//! What etcd said, or why it could not be asked, and what the operator has to do.

use std::error::Error as _;

use tonic::{Code, Status};

use super::connection::{NO_MEMBER, Unreachable, causes};
use crate::StoreErrorKind;

/// What messages of etcd itself begin with.
const ETCD_SAYS: &str = "etcdserver:";

/// What etcd said, or why it could not be asked, each cause once: a [`Status`] shows its causes itself, as `{:?}`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct RpcError(String);

impl RpcError {
    pub(super) fn by(status: &Status) -> Self {
        Self(match (status.source(), status.message()) {
            (Some(_), _) => causes(status),
            (None, "") => status.code().to_string(),
            (None, message) => message.to_owned(),
        })
    }
}

/// Whether a member answered, and does not do what was asked for.
pub(super) fn is_refusal(status: &Status) -> bool {
    use Code::{DataLoss, FailedPrecondition, PermissionDenied, ResourceExhausted, Unauthenticated};
    status.message().starts_with(ETCD_SAYS)
        || matches!(
            status.code(),
            DataLoss | FailedPrecondition | PermissionDenied | ResourceExhausted | Unauthenticated
        )
}

pub(super) fn advice(status: &Status) -> (StoreErrorKind, &'static str) {
    let text = status.message();
    match status.code() {
        Code::PermissionDenied => (
            StoreErrorKind::Unusable,
            "grant the user of --etcd-username read and write access under --etcd-prefix",
        ),
        Code::Unauthenticated => (
            StoreErrorKind::Unusable,
            "a new login did not help: check --etcd-username, --etcd-password and etcd's log",
        ),
        Code::InvalidArgument if text.contains("authentication failed") => {
            (StoreErrorKind::Unusable, "check --etcd-username and --etcd-password")
        }
        Code::InvalidArgument if text.contains("user name is empty") => {
            (StoreErrorKind::Unusable, "this etcd requires a user: pass --etcd-username and --etcd-password")
        }
        Code::FailedPrecondition if text.contains("authentication is not enabled") => {
            (StoreErrorKind::Unusable, "this etcd has no users: remove --etcd-username")
        }
        Code::DataLoss => (
            StoreErrorKind::Unavailable,
            "delete entries under --etcd-prefix that are not leases; peers stay as they are",
        ),
        Code::ResourceExhausted if text.contains("database space exceeded") => (
            StoreErrorKind::Unavailable,
            "its storage quota is used up: compact and defragment it, then run `etcdctl alarm disarm`",
        ),
        Code::Unavailable | Code::ResourceExhausted if text.starts_with(ETCD_SAYS) => (
            StoreErrorKind::Unavailable,
            "its members have no leader or are overloaded: check `etcdctl endpoint status --cluster`",
        ),
        _ if text.starts_with(ETCD_SAYS) => (StoreErrorKind::Unavailable, "see the log of etcd"),
        _ => {
            let advice = unreachable(status).map_or(NO_MEMBER, Unreachable::advice);
            (StoreErrorKind::Unavailable, advice)
        }
    }
}

/// Whether no member can be reached, and why.
pub(super) fn unreachable(status: &Status) -> Option<&Unreachable> {
    status.source().and_then(|source| source.downcast_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_member_answers_is_no_reason_to_look_for_a_member() {
        for (code, says, told) in [
            (Code::Unavailable, "etcdserver: no leader", "etcdctl endpoint status"),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", "etcdctl alarm disarm"),
            (Code::ResourceExhausted, "etcdserver: too many requests", "overloaded"),
            (Code::PermissionDenied, "etcdserver: permission denied", "--etcd-username"),
            (Code::InvalidArgument, "etcdserver: request is too large", "the log of etcd"),
        ] {
            let status = Status::new(code, says);
            let advice = advice(&status).1;
            assert!(is_refusal(&status) && advice.contains(told), "{says}: {advice}");
        }
        let silent = Status::deadline_exceeded("no answer in time");
        assert!(!is_refusal(&silent) && advice(&silent).1 == NO_MEMBER);
    }
}
