//! The device feature `tx-checksum-ip-generic`, over the generic netlink family `ethtool` (since Linux 5.8).

use flannel_netlink::{Batch, Flags, Malformed, Message};

use crate::wire::uapi::*;

/// The generic netlink family (`ETHTOOL_GENL_NAME`).
pub(crate) const FAMILY: &str = "ethtool";
/// The feature's name in the kernel (net/ethtool/common.c).
const TX_CHECKSUM: &str = "tx-checksum-ip-generic";

/// Requests the device's features.
pub(crate) fn get_features(question: &mut Batch, family: u16, device: u32) {
    question.message(family, Flags::NONE, &[ETHTOOL_MSG_FEATURES_GET, ETHTOOL_GENL_VERSION, 0, 0], |a| {
        a.nested(ETHTOOL_A_FEATURES_HEADER, |a| a.u32(ETHTOOL_A_HEADER_DEV_INDEX, device));
    });
}

/// Whether the network card computes checksums, from the answer to [`get_features`].
pub(crate) fn tx_checksum(message: &Message<'_>) -> Result<bool, Malformed> {
    let (_, attributes) = message.split::<4>()?;
    for attribute in attributes {
        let attribute = attribute?;
        if attribute.kind != ETHTOOL_A_FEATURES_ACTIVE {
            continue;
        }
        // A bitset in its verbose form is a list of the features that are on.
        for part in attribute.nested() {
            let part = part?;
            if part.kind != ETHTOOL_A_BITSET_BITS {
                continue;
            }
            for bit in part.nested() {
                for field in bit?.nested() {
                    let field = field?;
                    if field.kind == ETHTOOL_A_BITSET_BIT_NAME && field.text()? == TX_CHECKSUM {
                        return Ok(true);
                    }
                }
            }
        }
    }
    Ok(false)
}

/// Turns the feature on or off.
pub(crate) fn set_tx_checksum(batch: &mut Batch, family: u16, device: u32, on: bool) {
    batch.message(family, Flags::NONE, &[ETHTOOL_MSG_FEATURES_SET, ETHTOOL_GENL_VERSION, 0, 0], |a| {
        a.nested(ETHTOOL_A_FEATURES_HEADER, |a| {
            a.u32(ETHTOOL_A_HEADER_DEV_INDEX, device);
            a.u32(ETHTOOL_A_HEADER_FLAGS, ETHTOOL_FLAG_OMIT_REPLY);
        });
        a.nested(ETHTOOL_A_FEATURES_WANTED, |a| {
            a.nested(ETHTOOL_A_BITSET_BITS, |a| {
                a.nested(ETHTOOL_A_BITSET_BITS_BIT, |a| {
                    a.text(ETHTOOL_A_BITSET_BIT_NAME, TX_CHECKSUM);
                    if on {
                        a.flag(ETHTOOL_A_BITSET_BIT_VALUE);
                    }
                });
            });
        });
    });
}
