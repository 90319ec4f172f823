//! Numbers of generic netlink families, which the kernel assigns at run time.

use flannel_netlink::{Batch, Flags, Malformed, Message};

use crate::wire::uapi::*;

/// Version of the generic netlink controller's commands. The kernel ignores it.
const CTRL_VERSION: u8 = 1;

/// Requests the number of the family with this name.
pub(crate) fn get_family(question: &mut Batch, name: &str) {
    question.message(GENL_ID_CTRL, Flags::NONE, &[CTRL_CMD_GETFAMILY, CTRL_VERSION, 0, 0], |a| {
        a.text(CTRL_ATTR_FAMILY_NAME, name);
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
    Err(Malformed::Value { what: "number of a generic netlink family" })
}
