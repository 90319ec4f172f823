//! Checks of sets, without the rules that use them.

use std::time::Duration;

use flannel_netlink::Errno;

use crate::error::InvalidRule;
use crate::model::set::{Maps, Set};
use crate::model::validate::Invalid;

/// The kernel rejects longer timeouts (`nf_msecs_to_jiffies64`).
const MAX_TIMEOUT: Duration = Duration::from_millis(u64::MAX / 1_000_000 - 1);

/// Checks a set's properties.
pub(crate) fn check(set: &Set) -> Result<(), Invalid> {
    // `nft_select_set_ops`: no type of set has both features.
    if set.is_filled_by_rules() {
        let other = match set.maps {
            _ if set.is_interval() => Some("an interval set"),
            Maps::Object(_) => Some("a counter map"),
            _ => None,
        };
        if let Some(other) = other {
            return Err((InvalidRule::NotDynamic { other }, Some(Errno::EOPNOTSUPP)));
        }
    }
    timeout(set.timeout)
}

/// Checks an element's timeout, or the timeout of a set.
pub(crate) fn timeout(timeout: Option<Duration>) -> Result<(), Invalid> {
    match timeout {
        Some(timeout) if timeout > MAX_TIMEOUT => {
            Err((InvalidRule::Timeout { timeout }, Some(Errno::ERANGE)))
        }
        // The kernel takes it for no timeout.
        Some(timeout) if timeout < Duration::from_millis(1) => Err((InvalidRule::Timeout { timeout }, None)),
        _ => Ok(()),
    }
}

/// Checks that the elements fit into the set, and their timeouts.
pub(crate) fn check_elements(set: &Set) -> Result<(), Invalid> {
    if set.has_timeouts() {
        set.elements.values().try_for_each(|body| timeout(body.timeout))?;
    }
    match set.size {
        Some(size) if size > 0 && u32::try_from(set.elements.len()).is_ok_and(|elements| elements > size) => {
            Err((InvalidRule::SetFull { elements: set.elements.len(), size }, Some(Errno::ENFILE)))
        }
        _ => Ok(()),
    }
}
