//! The same table by `rustables` and by `nftnl` with `mnl`, written as their users write it, with nothing worked out
//! beforehand that ours works out while it is timed.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use flannel_netlink::messages;
use ipnet::Ipv4Net;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt,
};

/// What both make: the table's name, its chain's, and the rules' source prefixes, of whole bytes, and cluster.
pub(crate) struct Wanted<'a> {
    pub(crate) table: &'a str,
    pub(crate) chain: &'a str,
    pub(crate) sources: &'a [Ipv4Net],
    pub(crate) cluster: Ipv4Net,
}

/// Offsets in an IPv4 header, and how many bytes of the address decide.
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;

fn bytes(net: Ipv4Net) -> (u32, Vec<u8>) {
    let length = net.prefix_len() / 8;
    let octets: [u8; 4] = Ipv4Addr::octets(&net.network());
    (length.into(), octets.into_iter().take(length.into()).collect())
}

pub(crate) mod with_rustables {
    use rustables::expr::{Cmp, CmpOp, Masquerade, Payload, Register};
    use rustables::{
        Batch, Chain, ChainPolicy, ChainType, Hook, HookClass, MsgType, ProtocolFamily, Rule, Table,
    };

    use super::{DESTINATION, SOURCE, Wanted, bytes};

    pub(crate) fn batch(wanted: &Wanted<'_>) -> Batch {
        let table = Table::new(ProtocolFamily::Ipv4).with_name(wanted.table);
        let chain = Chain::new(&table)
            .with_name(wanted.chain)
            .with_type(ChainType::Nat)
            .with_hook(Hook::new(HookClass::PostRouting, 100))
            .with_policy(ChainPolicy::Accept);
        let mut batch = Batch::new();
        batch.add(&table, MsgType::Add);
        batch.add(&table, MsgType::Del);
        batch.add(&table, MsgType::Add);
        batch.add(&chain, MsgType::Add);
        for source in wanted.sources {
            let mut rule = Rule::new(&chain).unwrap();
            for (offset, net, operation) in
                [(SOURCE, *source, CmpOp::Eq), (DESTINATION, wanted.cluster, CmpOp::Neq)]
            {
                let (length, value) = bytes(net);
                let load = Payload::default().with_base(1_u32).with_offset(offset).with_len(length);
                rule.add_expr(load.with_dreg(Register::Reg1));
                rule.add_expr(Cmp::new(operation, value));
            }
            rule.add_expr(Masquerade::default());
            batch.add(&rule, MsgType::Add);
        }
        batch
    }

    /// Over a socket of its own, which is closed behind it.
    pub(crate) fn as_shipped(wanted: &Wanted<'_>) -> Result<(), String> {
        batch(wanted).send().map_err(|error| error.to_string())
    }
}

pub(crate) mod with_nftnl {
    use std::ffi::CString;

    use nftnl::expr::{Cmp, CmpOp, Masquerade, NetworkHeaderField, Payload};
    use nftnl::{Batch, Chain, ChainType, FinalizedBatch, Hook, MsgType, Policy, ProtoFamily, Rule, Table};

    use super::{DESTINATION, SOURCE, Wanted, bytes};

    pub(crate) fn batch(wanted: &Wanted<'_>) -> FinalizedBatch {
        let table = Table::new(CString::new(wanted.table).unwrap(), ProtoFamily::Ipv4);
        let mut chain = Chain::new(CString::new(wanted.chain).unwrap(), &table);
        chain.set_type(ChainType::Nat);
        chain.set_hook(Hook::PostRouting, 100);
        chain.set_policy(Policy::Accept);
        let mut batch = Batch::new();
        batch.add(&table, MsgType::Add);
        batch.add(&table, MsgType::Del);
        batch.add(&table, MsgType::Add);
        batch.add(&chain, MsgType::Add);
        for source in wanted.sources {
            let mut rule = Rule::new(&chain);
            for (offset, net, operation) in
                [(SOURCE, *source, CmpOp::Eq), (DESTINATION, wanted.cluster, CmpOp::Neq)]
            {
                let (length, value) = bytes(net);
                // Bits by their names, but nftnl 0.9 hands them on as bytes.
                let field = NetworkHeaderField::Raw { offset_bits: offset, length_bits: length };
                rule.add_expr(&Payload::Network(field));
                rule.add_expr(&Cmp::new(operation, value.as_slice()));
            }
            rule.add_expr(&Masquerade);
            batch.add(&rule, MsgType::Add);
        }
        batch.finalize()
    }

    /// As its example does: over a socket of its own, which is closed behind it.
    pub(crate) fn as_shipped(wanted: &Wanted<'_>) -> Result<(), String> {
        flannel_nft_oracle::with_nftnl::send(&batch(wanted)).map_err(|error| match error {
            flannel_nft_oracle::with_nftnl::Error::Send(error) => error.to_string(),
            other => format!("{other:?}"),
        })
    }
}

/// A socket that is kept and has large buffers, for what rivals encode: what their users can do better than they ship.
pub(crate) struct Kept {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Kept {
    pub(crate) fn open() -> io::Result<Self> {
        let protocol = SockProtocol::NetlinkNetFilter;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&socket, sockopt::SndBufForce, &(64 << 20))?;
        setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20))?;
        Ok(Self { socket, buffer: vec![0; 65_536] })
    }

    /// Sends the whole batch as one datagram and reads every ack that it asks for.
    pub(crate) fn exchange(&mut self, batch: &[u8]) -> io::Result<()> {
        const ACK: u16 = 0x4;
        const ERROR: u16 = 0x2;
        send(self.socket.as_raw_fd(), batch, MsgFlags::empty())?;
        let asks = messages(batch).flatten().filter(|message| message.flags & ACK != 0);
        for _ in asks {
            let length = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT)?;
            for message in messages(&self.buffer[..length]).flatten() {
                if message.kind == ERROR && message.payload[..4] != [0; 4] {
                    let errno = i32::from_ne_bytes(message.payload[..4].try_into().unwrap());
                    return Err(io::Error::from_raw_os_error(-errno));
                }
            }
        }
        Ok(())
    }
}
