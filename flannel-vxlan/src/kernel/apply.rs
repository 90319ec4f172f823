//! Applies the steps of a plan: device steps one by one, steps of peers in batches.

use std::fs;
use std::num::NonZeroU16;
use std::ops::Range;

use flannel_netlink::{Batch, Errno, Refusal, TransactError};

use crate::error::{ApplyError, StepRefusal};
use crate::kernel::netlink::{Netlink, accept_ra_path};
use crate::kernel::{Applied, explain};
use crate::model::family::{Family, PerFamily};
use crate::model::if_name::IfName;
use crate::model::objects::{ObservedNexthop, ROUTE_PROTOCOL, RouteTo};
use crate::plan::Plan;
use crate::plan::step::{DeviceStep, Step};
use crate::wire::{encode, encode::Indexes, ethtool, fou, wireguard};

/// Messages per datagram, with one ack for all. From 64 on, more messages per datagram save no more time.
const STEPS_PER_DATAGRAM: usize = 128;
/// A datagram with this many bytes is sent. A WireGuard peer with many subnets takes up to 64 KiB.
const MAX_DATAGRAM_BYTES: usize = 64 * 1024;

pub(crate) fn apply(kernel: &mut Netlink, plan: &Plan) -> Result<Applied, ApplyError> {
    let mut applied = Applied::default();
    let is_device = |step: &Step| matches!(step, Step::Device(..));
    // The steps before the first device step delete routes, which needs no device index.
    let device = plan.steps().iter().position(is_device).unwrap_or(0);
    let rest = plan.steps().iter().rposition(is_device).map_or(0, |last| last + 1);
    entry_steps(kernel, plan, 0..device, PerFamily::default(), &mut applied)?;
    device_steps(kernel, plan, device..rest, &mut applied)?;
    let indexes = indexes(kernel, plan, &mut applied)?;
    applied.devices = PerFamily::from_fn(|family| indexes[family].device);
    entry_steps(kernel, plan, rest..plan.steps().len(), indexes, &mut applied)?;
    settle_nexthops(kernel, plan, indexes, &mut applied)?;
    applied.refused.sort_by_key(|refusal| refusal.step);
    Ok(applied)
}

fn device_steps(
    kernel: &mut Netlink,
    plan: &Plan,
    steps: Range<usize>,
    applied: &mut Applied,
) -> Result<(), ApplyError> {
    for (number, step) in numbered(plan, steps) {
        let Step::Device(family, step) = step else { continue };
        if applied.without_device.contains(family) {
            continue;
        }
        let Some(name) = plan.links(*family).and_then(|links| links.device) else { continue };
        let present = if let DeviceStep::Rename(from) = step { *from } else { name };
        let index = kernel.index_of(present).map_err(ApplyError::Lookup)?;
        let create = matches!(step, DeviceStep::Create(_));
        let refused = match (step, index) {
            (DeviceStep::Delete, None) => None,
            (DeviceStep::PutFouPort(port), _) => put_fou_port(kernel, *port)?,
            (DeviceStep::DeleteFouPort(port), _) => {
                let refused = execute_generic(kernel, fou::FAMILY, |batch, family| {
                    fou::delete_port(batch, family, *port);
                });
                refused.filter(|(errno, _)| *errno != Errno::ENOENT)
            }
            (_, None) if !create => Some((Errno::ENODEV, None)),
            (DeviceStep::IgnoreRouterAdvertisements, _) => ignore_router_advertisements(name),
            (DeviceStep::SetWireguard(spec), Some(index)) => {
                execute_generic(kernel, wireguard::FAMILY, |batch, family| {
                    wireguard::set_device(batch, family, index, spec);
                })
            }
            (DeviceStep::SetTxChecksum(on), Some(index)) => set_tx_checksum(kernel, index, *on),
            _ => {
                let mut execute = |down: bool| {
                    let mut batch = std::mem::take(&mut kernel.batch);
                    batch.clear();
                    if down {
                        encode::set_down(&mut batch, index.unwrap_or(0));
                    }
                    encode::device_step(&mut batch, step, name, index.unwrap_or(0));
                    let refused = kernel.route.execute(&mut batch, 1);
                    kernel.batch = batch;
                    let refused = refused.map_err(|source| cut_short(plan, number, number, source))?;
                    Ok(refused.into_iter().next().map(reason))
                };
                let refused = execute(false)?;
                // The next converge restores what the device loses while it is down.
                let up = matches!(step, DeviceStep::Rename(_)) && is_errno(&refused, Errno::EBUSY);
                if up { execute(true)?.or(refused) } else { refused }
            }
        };
        if let Some((errno, text)) = refused {
            if matches!(step, DeviceStep::DeleteAddress(..)) && errno == Errno::EADDRNOTAVAIL {
                continue;
            }
            let text = explain::device_step(kernel, plan, *family, step, errno).or(text);
            applied.refused.push(StepRefusal { step: number, errno, text });
            if create {
                let on_device =
                    |family: &Family| plan.links(*family).and_then(|links| links.device) == Some(name);
                applied.without_device.extend(Family::ALL.into_iter().filter(on_device));
            }
        }
    }
    Ok(())
}

fn cut_short(plan: &Plan, first: usize, last: usize, source: TransactError) -> ApplyError {
    let command = plan.steps().get(first).map(|step| plan.command(step)).unwrap_or_default();
    ApplyError::Batch { first, last, command, source }
}

/// The error and its explanation.
fn reason(refusal: Refusal) -> (Errno, Option<String>) {
    (refusal.errno, refusal.explanation().map(str::to_owned))
}

fn is_errno(refused: &Option<(Errno, Option<String>)>, errno: Errno) -> bool {
    refused.as_ref().is_some_and(|refused| refused.0 == errno)
}

/// Without IPv6 the sysctl does not exist, and in an unprivileged container it is read-only. The overlay works
/// nevertheless, as upstream's does.
fn ignore_router_advertisements(device: IfName) -> Option<(Errno, Option<String>)> {
    let error = fs::write(accept_ra_path(device), "0").err()?;
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
    let tolerable = matches!(errno, Errno::ENOENT | Errno::EROFS | Errno::EACCES | Errno::EPERM);
    (!tolerable).then_some((errno, None))
}

/// Receives FOU datagrams at this port, unless the kernel already does.
fn put_fou_port(
    kernel: &mut Netlink,
    port: NonZeroU16,
) -> Result<Option<(Errno, Option<String>)>, ApplyError> {
    match kernel.fou_ports().transpose().map_err(ApplyError::Lookup)? {
        Some(ports) if ports.contains(&port.get()) => Ok(None),
        Some(_) => Ok(execute_generic(kernel, fou::FAMILY, |batch, family| {
            fou::add_port(batch, family, port);
        })),
        // The kernel does not load this module by itself.
        None => Ok(Some((Errno::EOPNOTSUPP, None))),
    }
}

fn set_tx_checksum(kernel: &mut Netlink, device: u32, on: bool) -> Option<(Errno, Option<String>)> {
    execute_generic(kernel, ethtool::FAMILY, |batch, family| {
        ethtool::set_tx_checksum(batch, family, device, on);
    })
}

/// Sends one request of a generic netlink family. Returns the refusal; `EOPNOTSUPP` if the kernel has no such family.
fn execute_generic(
    kernel: &mut Netlink,
    family: &str,
    build: impl FnOnce(&mut Batch, u16),
) -> Option<(Errno, Option<String>)> {
    let number = kernel.generic_family(family);
    let (Some(number), Some(socket)) = (number, kernel.generic.as_mut()) else {
        return Some((Errno::EOPNOTSUPP, explain::missing_family(family)));
    };
    let mut batch = Batch::new();
    build(&mut batch, number);
    match socket.execute(&mut batch, 1) {
        Ok(refused) => refused.into_iter().next().map(reason),
        Err(error) => Some((Errno::EIO, Some(explain::chain(&error)))),
    }
}

/// Looks up the devices that steps need and whose index the plan does not know.
fn indexes(
    kernel: &mut Netlink,
    plan: &Plan,
    applied: &mut Applied,
) -> Result<PerFamily<Indexes>, ApplyError> {
    let mut all = PerFamily::<Indexes>::default();
    for family in Family::ALL {
        let (indexes, known) = (&mut all[family], plan.devices[family]);
        let Some(links) = plan.links(family) else { continue };
        indexes.underlay = links.underlay.index;
        if known != 0 {
            indexes.device = known;
            continue;
        }
        let Some(name) =
            links.device.filter(|_| plan.steps().iter().any(|step| device_of(step) == Some(family)))
        else {
            continue;
        };
        if applied.without_device.contains(&family) {
            continue;
        }
        match kernel.index_of(name).map_err(ApplyError::Lookup)? {
            Some(index) => indexes.device = index,
            None => applied.without_device.push(family),
        }
    }
    Ok(all)
}

/// The family whose device a step needs; `None` if it needs none.
fn device_of(step: &Step) -> Option<Family> {
    match step {
        Step::Device(family, _)
        | Step::PutWireguardPeer(family, _)
        | Step::DeleteWireguardPeer(family, _) => Some(*family),
        Step::PutFdbEntry(entry) | Step::DeleteFdbEntry(entry) => Some(entry.family),
        Step::PutNeighbor(entry) => Some(Family::of(entry.address)),
        Step::DeleteNeighbor { address } => Some(Family::of(*address)),
        Step::PutNexthop { .. } => Some(Family::V4),
        Step::PutRoute { route, .. } => match route.to {
            RouteTo::Nexthop { .. } | RouteTo::Onlink { .. } | RouteTo::Device => {
                Some(Family::of_net(route.subnet))
            }
            RouteTo::Direct { .. } | RouteTo::Blackhole => None,
        },
        Step::DeleteNexthop { .. } | Step::DeleteRoute { .. } => None,
    }
}

fn entry_steps(
    kernel: &mut Netlink,
    plan: &Plan,
    steps: Range<usize>,
    indexes: PerFamily<Indexes>,
    applied: &mut Applied,
) -> Result<(), ApplyError> {
    let mut batch = std::mem::take(&mut kernel.batch);
    let mut sent = Vec::with_capacity(STEPS_PER_DATAGRAM);
    let has_device = |(_, step): &(usize, &Step)| {
        !device_of(step).is_some_and(|family| applied.without_device.contains(&family))
    };
    let steps: Vec<(usize, &Step)> = numbered(plan, steps).filter(has_device).collect();
    let mut steps = steps.into_iter().peekable();
    let wireguard = match plan.steps().iter().any(is_wireguard) {
        true => kernel.generic_family(wireguard::FAMILY),
        false => None,
    };
    loop {
        batch.clear();
        sent.clear();
        let by_generic = steps.peek().is_some_and(|(_, step)| is_wireguard(step));
        while sent.len() < STEPS_PER_DATAGRAM && batch.as_bytes().len() < MAX_DATAGRAM_BYTES {
            let Some((number, step)) = steps.next_if(|(_, step)| is_wireguard(step) == by_generic) else {
                break;
            };
            match step {
                Step::PutWireguardPeer(family, peer) => {
                    let index = indexes[*family].device;
                    wireguard::put_peer(&mut batch, wireguard.unwrap_or(0), index, peer);
                }
                Step::DeleteWireguardPeer(family, key) => {
                    let index = indexes[*family].device;
                    wireguard::delete_peer(&mut batch, wireguard.unwrap_or(0), index, *key);
                }
                _ => encode::step(&mut batch, step, &indexes),
            }
            sent.push(number);
        }
        let (Some(start), Some(last)) = (sent.first(), sent.last()) else { break };
        let socket = match (by_generic, kernel.generic.as_mut()) {
            (false, _) => &mut kernel.route,
            (true, Some(generic)) if wireguard.is_some() => generic,
            // The module is gone, and its devices with it.
            (true, _) => {
                let text = explain::missing_module("wireguard", "CONFIG_WIREGUARD");
                let refusal = |step: &usize| StepRefusal {
                    step: *step,
                    errno: Errno::ENODEV,
                    text: Some(text.clone()),
                };
                applied.refused.extend(sent.iter().map(refusal));
                continue;
            }
        };
        let refused =
            socket.execute(&mut batch, u32::MAX).map_err(|source| cut_short(plan, *start, *last, source))?;
        let refused = refused.into_iter().filter_map(|refusal| {
            let step = *sent.get(usize::try_from(refusal.message).ok()?)?;
            let (errno, text) = reason(refusal);
            let refused = plan.steps().get(step)?;
            let text = explain::entry_step(refused, errno, text);
            let gone = refused.is_delete() && matches!(errno, Errno::ENOENT | Errno::ESRCH);
            (!gone).then_some(StepRefusal { step, errno, text })
        });
        applied.refused.extend(refused);
    }
    kernel.batch = batch;
    Ok(())
}

fn is_wireguard(step: &Step) -> bool {
    matches!(step, Step::PutWireguardPeer(..) | Step::DeleteWireguardPeer(..))
}

fn numbered(plan: &Plan, steps: Range<usize>) -> impl Iterator<Item = (usize, &Step)> {
    plan.steps().iter().enumerate().take(steps.end).skip(steps.start)
}

/// Removes refusals of nexthop objects that exist already as desired, after an earlier plan was cut short.
fn settle_nexthops(
    kernel: &mut Netlink,
    plan: &Plan,
    indexes: PerFamily<Indexes>,
    applied: &mut Applied,
) -> Result<(), ApplyError> {
    let mut kept = Vec::new();
    for refusal in std::mem::take(&mut applied.refused) {
        let is_right = match plan.steps().get(refusal.step) {
            Some(Step::PutNexthop { nexthop, .. }) if refusal.errno == Errno::EEXIST => {
                let found = kernel.nexthop(nexthop.id).map_err(ApplyError::Lookup)?;
                let wanted = ObservedNexthop {
                    id: nexthop.id,
                    protocol: ROUTE_PROTOCOL,
                    interface: indexes[Family::V4].device,
                    gateway: Some(nexthop.gateway),
                };
                found == Some(wanted)
            }
            _ => false,
        };
        if !is_right {
            kept.push(refusal);
        }
    }
    applied.refused = kept;
    Ok(())
}
