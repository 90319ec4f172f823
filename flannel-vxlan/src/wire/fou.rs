//! UDP ports at which the kernel receives FOU datagrams, over the generic netlink family `fou`.

use std::num::NonZeroU16;

use flannel_netlink::{Attributes, Batch, Flags, Malformed, Message};

use crate::wire::uapi::*;

/// The generic netlink family (`FOU_GENL_NAME`).
pub(crate) const FAMILY: &str = "fou";

/// Requests all ports.
pub(crate) fn get_ports(question: &mut Batch, family: u16) {
    question.message(family, Flags::DUMP, &[FOU_CMD_GET, FOU_GENL_VERSION, 0, 0], |_| {});
}

/// A port that receives IP-in-IP packets over IPv4, on every address and interface; `None` for another port.
pub(crate) fn ipip_port(message: &Message<'_>) -> Result<Option<u16>, Malformed> {
    let (_, attributes) = message.split::<4>()?;
    let (mut port, mut matches) = (None, true);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            FOU_ATTR_PORT => port = Some(attribute.be16()?),
            FOU_ATTR_AF => matches &= attribute.u8()? == AF_INET,
            FOU_ATTR_IPPROTO => matches &= attribute.u8()? == IPPROTO_IPIP,
            FOU_ATTR_TYPE => matches &= attribute.u8()? == FOU_ENCAP_DIRECT,
            // The kernel reports them also if they are not set.
            FOU_ATTR_LOCAL_V4 | FOU_ATTR_PEER_V4 | FOU_ATTR_IFINDEX => matches &= attribute.u32()? == 0,
            FOU_ATTR_PEER_PORT => matches &= attribute.be16()? == 0,
            _ => {}
        }
    }
    Ok(port.filter(|_| matches))
}

/// Receives at this port.
pub(crate) fn add_port(batch: &mut Batch, family: u16, port: NonZeroU16) {
    batch.message(family, Flags::NONE, &[FOU_CMD_ADD, FOU_GENL_VERSION, 0, 0], |a| {
        put_port(a, port.get());
        a.u8(FOU_ATTR_IPPROTO, IPPROTO_IPIP);
        a.u8(FOU_ATTR_TYPE, FOU_ENCAP_DIRECT);
    });
}

/// Stops receiving at this port.
pub(crate) fn delete_port(batch: &mut Batch, family: u16, port: u16) {
    batch.message(family, Flags::NONE, &[FOU_CMD_DEL, FOU_GENL_VERSION, 0, 0], |a| put_port(a, port));
}

fn put_port(a: &mut Attributes<'_>, port: u16) {
    a.be16(FOU_ATTR_PORT, port);
    a.u8(FOU_ATTR_AF, AF_INET);
}
