//! Named objects other than counters, and flowtables.

use std::time::Duration;

use crate::model::chain::{Device, Priority};
use crate::model::family::Family;
use crate::model::ids::Handle;
use crate::model::name::{Comment, InterfaceName, ObjectName};
use crate::model::opaque::Extra;
use crate::model::protocol::Protocol;
use crate::model::statement::Limit;
use crate::uapi::*;
use crate::wire::objects;

/// nft's name of a kind of object, by `NFT_OBJECT_*`.
pub(crate) fn object_kind(number: u32) -> &'static str {
    match number {
        NFT_OBJECT_COUNTER => "counter",
        NFT_OBJECT_CT_EXPECT => "ct expectation",
        NFT_OBJECT_CT_HELPER => "ct helper",
        NFT_OBJECT_CT_TIMEOUT => "ct timeout",
        NFT_OBJECT_LIMIT => "limit",
        NFT_OBJECT_QUOTA => "quota",
        NFT_OBJECT_SECMARK => "secmark",
        NFT_OBJECT_SYNPROXY => "synproxy",
        NFT_OBJECT_TUNNEL => "tunnel",
        _ => "unknown object",
    }
}

/// A named object: a quota, limit, conntrack helper, ... It keeps its state when rules that use it
/// change.
///
/// Objects of a kind that [`ObjectKind`] does not have are kept as the kernel returned them.
#[derive(Clone, Debug)]
pub struct Object {
    pub(crate) name: ObjectName,
    /// `NFT_OBJECT_*`.
    pub(crate) number: u32,
    /// The attributes in `NFTA_OBJ_DATA`.
    pub(crate) data: Box<[u8]>,
    pub(crate) comment: Option<Comment>,
    pub(crate) handle: Option<Handle>,
    pub(crate) extra: Extra,
}

/// What an [`Object`] is.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ObjectKind {
    /// `ct expectation`: connections that the kernel expects after a packet.
    CtExpectation {
        /// The address family; `None` for that of the packet's table.
        family: Option<Family>,
        /// Protocol of the expected connection.
        protocol: Protocol,
        /// Its destination port.
        port: u16,
        /// How long it is expected, in whole milliseconds.
        timeout: Duration,
        /// Maximum number of expected connections.
        size: u8,
    },
    /// `ct helper`: a conntrack helper such as `ftp`.
    CtHelper {
        /// Name of the helper.
        helper: String,
        /// The address family; `None` for that of the table.
        family: Option<Family>,
        /// The protocol.
        protocol: Protocol,
    },
    /// `ct timeout`: lifetimes of connections.
    CtTimeout {
        /// The address family; `None` for that of the table.
        family: Option<Family>,
        /// The protocol.
        protocol: Protocol,
        /// Lifetimes in seconds by state: `CTA_TIMEOUT_TCP_*`, `CTA_TIMEOUT_UDP_*`, ...
        seconds: Vec<(u16, u32)>,
    },
    /// `limit`: a rate limit that several rules share.
    Limit(Limit),
    /// `quota`: a number of bytes.
    Quota {
        /// The number of bytes.
        bytes: u64,
        /// Whether rules match after the quota is used up (`over`), instead of before.
        over: bool,
        /// Bytes that are used up.
        used: u64,
    },
    /// `secmark`: an SELinux context.
    Secmark {
        /// The context.
        context: String,
    },
    /// `synproxy`: answers for servers behind a SYN proxy.
    Synproxy {
        /// Maximum segment size of the servers.
        mss: Option<u16>,
        /// Window scale of the servers.
        window_scale: Option<u8>,
        /// Whether the servers use timestamps.
        timestamp: bool,
        /// Whether the servers permit selective acknowledgments.
        sack_permitted: bool,
    },
}

impl Object {
    /// An object of this kind.
    #[must_use]
    pub fn new(name: ObjectName, kind: &ObjectKind) -> Self {
        let (number, data) = objects::encode_kind(kind);
        Self { name, number, data, comment: None, handle: None, extra: Extra::default() }
    }

    /// Sets a comment, which `nft list` shows. Kernel ≥ 5.10.
    #[must_use]
    pub fn comment(mut self, comment: Comment) -> Self {
        self.extra.remove(NFTA_OBJ_USERDATA);
        self.comment = Some(comment);
        self
    }

    /// The name, unique among the table's objects of the same kind.
    #[must_use]
    pub fn name(&self) -> &ObjectName {
        &self.name
    }

    /// What the object is; `None` if this crate has no type for it.
    #[must_use]
    pub fn kind(&self) -> Option<ObjectKind> {
        objects::decode_kind(self.number, &self.data)
    }

    /// The comment.
    #[must_use]
    pub fn remark(&self) -> Option<&Comment> {
        self.comment.as_ref()
    }

    /// The kernel's number of an observed object.
    #[must_use]
    pub fn handle(&self) -> Option<Handle> {
        self.handle
    }

    /// Whether both are the same object: names are unique in a kind.
    pub(crate) fn is_same_object(&self, other: &Self) -> bool {
        (self.number, &self.name) == (other.number, &other.name)
    }

    /// Whether both are equal except for what packets change. The kernel cannot change an object.
    pub(crate) fn same_definition(&self, other: &Self) -> bool {
        self.is_same_object(other)
            && self.comment == other.comment
            && objects::without_state(self.number, &self.data)
                == objects::without_state(other.number, &other.data)
            && self.extra.same(&other.extra, NFTA_OBJ_USERDATA)
    }
}

/// A flowtable: forwards packets of known connections without the rules. Kernel with
/// `CONFIG_NF_FLOW_TABLE`.
///
/// # Kernel
/// `nft add flowtable inet TABLE NAME { hook ingress priority 0; devices = { eth0, eth1 }; }`
#[derive(Clone, Debug)]
pub struct Flowtable {
    pub(crate) name: ObjectName,
    pub(crate) hook: u32,
    pub(crate) priority: Priority,
    pub(crate) devices: Vec<Device>,
    pub(crate) flags: u32,
    pub(crate) handle: Option<Handle>,
    pub(crate) extra: Extra,
}

impl Flowtable {
    /// A flowtable at hook ingress.
    #[must_use]
    pub fn new(name: ObjectName, priority: Priority) -> Self {
        let (devices, extra) = (Vec::new(), Extra::default());
        Self { name, hook: NF_NETDEV_INGRESS, priority, devices, flags: 0, handle: None, extra }
    }

    /// Adds a device, whose packets it forwards.
    #[must_use]
    pub fn device(mut self, name: &InterfaceName) -> Self {
        self.devices.push(name.into());
        self
    }

    /// Lets the network card forward the packets (`flags offload`).
    #[must_use]
    pub fn offload(mut self) -> Self {
        self.flags |= NFT_FLOWTABLE_HW_OFFLOAD;
        self
    }

    /// Counts the packets in conntrack (`counter`). Kernel ≥ 5.7.
    #[must_use]
    pub fn counter(mut self) -> Self {
        self.flags |= NFT_FLOWTABLE_COUNTER;
        self
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &ObjectName {
        &self.name
    }

    /// The priority.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// The devices.
    #[must_use]
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The kernel's number of an observed flowtable.
    #[must_use]
    pub fn handle(&self) -> Option<Handle> {
        self.handle
    }

    /// Whether both are equal. A different flowtable is recreated.
    pub(crate) fn same_definition(&self, other: &Self) -> bool {
        let devices = |flowtable: &Self| {
            let mut devices: Vec<String> = flowtable.devices.iter().map(ToString::to_string).collect();
            devices.sort_unstable();
            devices
        };
        (&self.name, self.hook, self.priority, self.flags)
            == (&other.name, other.hook, other.priority, other.flags)
            && devices(self) == devices(other)
            && self.extra.same(&other.extra, NFTA_FLOWTABLE_FLAGS)
    }
}
