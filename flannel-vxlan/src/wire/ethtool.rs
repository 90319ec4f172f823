//! The one device feature this crate reads and sets, over the generic netlink family `ethtool` (since 5.8).

use flannel_netlink::{Batch, Flags, Malformed, Message};

const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

const FEATURES_GET: u8 = 11;
const FEATURES_SET: u8 = 12;
const FEATURES_HEADER: u16 = 1;
const FEATURES_WANTED: u16 = 3;
const FEATURES_ACTIVE: u16 = 4;
const HEADER_DEV_INDEX: u16 = 1;
const HEADER_FLAGS: u16 = 3;
const FLAG_OMIT_REPLY: u32 = 2;
const BITSET_BITS: u16 = 3;
const BITSET_BITS_BIT: u16 = 1;
const BIT_NAME: u16 = 2;
const BIT_VALUE: u16 = 3;

/// The feature's name in the kernel (`net/ethtool/common.c`).
const FEATURE: &str = "tx-checksum-ip-generic";

/// Asks for the number of the family `ethtool`.
pub(crate) fn get_family(question: &mut Batch) {
    question.message(GENL_ID_CTRL, Flags::NONE, &[CTRL_CMD_GETFAMILY, 1, 0, 0], |a| {
        a.text(CTRL_ATTR_FAMILY_NAME, "ethtool");
    });
}

pub(crate) fn family(message: &Message<'_>) -> Result<u16, Malformed> {
    let (_, attributes) = message.split::<4>()?;
    for attribute in attributes {
        let attribute = attribute?;
        if attribute.kind == CTRL_ATTR_FAMILY_ID {
            return attribute.u16();
        }
    }
    Err(Malformed::Value { what: "generic netlink family without a number" })
}

/// Asks for the device's features.
pub(crate) fn get_features(question: &mut Batch, family: u16, device: u32) {
    question.message(family, Flags::NONE, &[FEATURES_GET, 1, 0, 0], |a| {
        a.nested(FEATURES_HEADER, |a| a.u32(HEADER_DEV_INDEX, device));
    });
}

/// Whether checksums are left to the device, in the answer to [`get_features`].
pub(crate) fn tx_checksum(message: &Message<'_>) -> Result<bool, Malformed> {
    let (_, attributes) = message.split::<4>()?;
    for attribute in attributes {
        let attribute = attribute?;
        if attribute.kind != FEATURES_ACTIVE {
            continue;
        }
        // A bitset in its verbose form is a list of names; being listed is being set.
        for part in attribute.nested() {
            let part = part?;
            if part.kind != BITSET_BITS {
                continue;
            }
            for bit in part.nested() {
                for field in bit?.nested() {
                    let field = field?;
                    if field.kind == BIT_NAME && field.text()? == FEATURE {
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
    batch.message(family, Flags::NONE, &[FEATURES_SET, 1, 0, 0], |a| {
        a.nested(FEATURES_HEADER, |a| {
            a.u32(HEADER_DEV_INDEX, device);
            a.u32(HEADER_FLAGS, FLAG_OMIT_REPLY);
        });
        a.nested(FEATURES_WANTED, |a| {
            a.nested(BITSET_BITS, |a| {
                a.nested(BITSET_BITS_BIT, |a| {
                    a.text(BIT_NAME, FEATURE);
                    if on {
                        a.flag(BIT_VALUE);
                    }
                });
            });
        });
    });
}
