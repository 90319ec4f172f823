//! A bridge that still has the address of a subnet that the node no longer holds.
//!
//! The `bridge` plugin refuses such a bridge ("already has an IP address different from"), so that no pod can start until
//! an operator removes it. Once no pod is left on it, nothing needs it, and the plugin creates it again with the right
//! address.

use std::error::Error;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use flannel_netlink::{Batch, Flags, Protocol, Socket};
use nix::fcntl::{Flock, FlockArg};

use crate::error::CniError;
use crate::spec::IO;
use crate::subnet_env::SubnetEnv;
use crate::uapi::*;

/// Removes the bridge `name` if it has addresses of a family in use but none in the node's subnet, and no interface is
/// attached to it. Two requests at once wait for each other: a lock in `data_dir`.
///
/// # Errors
/// The kernel cannot be asked, or refuses. A bridge that is in use is no error: the delegate will report it.
///
/// # Kernel
/// `ip link del cni0`
pub(crate) fn remove_if_stale(name: &str, env: &SubnetEnv, data_dir: &Path) -> Result<(), CniError> {
    let failed = |error: Box<dyn Error>| {
        let message = format!(
            "cannot check whether bridge {name} has the address of another subnet than this node's; the pod's interface is not \
             added"
        );
        CniError::of(IO, message, &*error)
    };
    let mut socket = Socket::open(Protocol::Route).map_err(|error| failed(error.into()))?;
    if find_stale(&mut socket, name, env).map_err(failed)?.is_none() {
        return Ok(());
    }
    let lock = fs::create_dir_all(data_dir).and_then(|()| fs::File::create(data_dir.join(".lock")));
    let lock = lock.map_err(|error| failed(error.into()))?;
    let _held = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| failed(errno.into()))?;
    // Another request may have removed and recreated it meanwhile.
    let Some(index) = find_stale(&mut socket, name, env).map_err(failed)? else { return Ok(()) };
    let mut batch = Batch::new();
    batch.message(RTM_DELLINK, Flags::NONE, &ifinfomsg(index), |_| {});
    let refusals = socket.execute(&mut batch, 1).map_err(|error| failed(error.into()))?;
    refusals.into_iter().next().map_or(Ok(()), |refusal| {
        let message = format!(
            "cannot delete bridge {name}, which has no address in this node's subnet and no interface attached; run `ip link \
             del {name}`"
        );
        Err(CniError::new(IO, message, refusal))
    })
}

/// Index of the bridge, if it has an address of another subnet and no interface attached to it.
fn find_stale(socket: &mut Socket, name: &str, env: &SubnetEnv) -> Result<Option<u32>, Box<dyn Error>> {
    let mut question = Batch::new();
    question.message(RTM_GETLINK, Flags::DUMP, &ifinfomsg(0), |_| {});
    let links: Vec<Link> = socket.dump(&mut question, |links: &mut Vec<Link>, message| {
        let ([_family, _pad, _kind0, _kind1, index @ .., _, _, _, _, _, _, _, _], attributes) =
            message.split::<16>()?;
        let mut link = Link { index: u32::from_ne_bytes(*index), ..Link::default() };
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                IFLA_IFNAME => link.is_named = attribute.payload.strip_suffix(&[0]) == Some(name.as_bytes()),
                IFLA_MASTER => link.master = attribute.u32()?,
                IFLA_LINKINFO => {
                    for inner in attribute.nested() {
                        let inner = inner?;
                        link.is_bridge |=
                            inner.kind == IFLA_INFO_KIND && inner.payload.starts_with(b"bridge\0");
                    }
                }
                _ => {}
            }
        }
        links.push(link);
        Ok(())
    })?;
    let Some(index) = links.iter().find(|link| link.is_named && link.is_bridge).map(|link| link.index) else {
        return Ok(None);
    };
    if links.iter().any(|link| link.master == index) {
        return Ok(None);
    }
    Ok(is_stale(&addresses(socket, index)?, env).then_some(index))
}

/// What matters of an interface.
#[derive(Debug, Default)]
struct Link {
    index: u32,
    master: u32,
    is_named: bool,
    is_bridge: bool,
}

/// Whether the bridge has global addresses of a family in use, and none of them is in the node's subnet. An address that an
/// operator put beside the right one does not make it stale.
fn is_stale(addresses: &[IpAddr], env: &SubnetEnv) -> bool {
    env.subnets().any(|subnet| {
        let mut same_family =
            addresses.iter().filter(|address| address.is_ipv4() == subnet.addr().is_ipv4()).peekable();
        same_family.peek().is_some() && same_family.all(|address| !subnet.contains(address))
    })
}

/// The addresses of an interface, without link-local ones.
fn addresses(socket: &mut Socket, index: u32) -> Result<Vec<IpAddr>, Box<dyn Error>> {
    let mut question = Batch::new();
    question.message(RTM_GETADDR, Flags::DUMP, &[0; 8], |_| {}); // struct ifaddrmsg
    let found: Vec<IpAddr> = socket.dump(&mut question, |found: &mut Vec<IpAddr>, message| {
        let ([_family, _length, _flags, _scope, here @ ..], attributes) = message.split::<8>()?;
        if u32::from_ne_bytes(*here) != index {
            return Ok(());
        }
        let (mut address, mut local) = (None, None);
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                IFA_ADDRESS => address = ip(attribute.payload),
                IFA_LOCAL => local = ip(attribute.payload),
                _ => {}
            }
        }
        found.extend(local.or(address).filter(|address| !is_link_local(address)));
        Ok(())
    })?;
    Ok(found)
}

fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// `struct ifinfomsg` with nothing but the index.
fn ifinfomsg(index: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bridge_without_an_address_of_the_subnet_is_stale() {
        let env = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
        let (env, _) = SubnetEnv::parse(env.as_bytes());
        for (addresses, stale) in [
            (&[][..], false),
            (&["10.244.7.1"], false),
            (&["10.244.3.1"], true),
            (&["10.244.7.1", "192.0.2.9"], false),
            (&["10.244.7.1", "2001:db8::9"], false),
            (&["2001:db8::9"], false),
        ] {
            let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
            assert_eq!(is_stale(&addresses, &env), stale, "{addresses:?}");
        }
    }
}
