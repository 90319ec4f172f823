//! What follows from steps that the kernel refuses.

use flannel_vxlan::{
    Applied, DeviceStep, Errno, FakeKernel, Family, Kernel, MacAddr, ObservedDevice, ObservedKind, Overlay,
    Peer, Plan, Report, Step, StepRefusal, Via,
};
use ipnet::IpNet;

use super::{device, family};

fn subnet(n: u8) -> IpNet {
    format!("10.244.{n}.0/24").parse().unwrap()
}

fn mac(n: u8) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, n]).unwrap()
}

fn peer(n: u8, of: u8) -> Peer {
    let underlay = [192, 168, 77, n].into();
    Peer { subnet: subnet(n), via: Via::Tunnel { mac: mac(of), underlay } }
}

/// A node with peer 2, which the kernel has, and with peer 3, which is to be written.
fn node() -> (Overlay, FakeKernel) {
    let own = device(1, "192.168.77.1", "10.244.1.0", mac(1));
    let mut overlay = Overlay::new([family(Family::V4).device(own)]);
    let mut kernel = FakeKernel::new([("192.168.77.1".parse().unwrap(), 24)]);
    overlay.set_peer(peer(2, 2)).unwrap();
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    overlay.set_peer(peer(3, 3)).unwrap();
    (overlay, kernel)
}

/// Applies the plan to the kernel, which refuses this step.
fn refuse(
    overlay: &mut Overlay,
    kernel: &mut FakeKernel,
    plan: &Plan,
    is_it: fn(&Step) -> bool,
    errno: Errno,
) -> Report {
    let step = plan.steps().iter().position(is_it).unwrap();
    let mut applied = kernel.clone().apply(plan).unwrap();
    applied.refused = vec![StepRefusal { step, errno, text: None }];
    overlay.settle(plan, applied)
}

const IS_FDB_ENTRY: fn(&Step) -> bool = |step| matches!(step, Step::PutFdbEntry(_));
const IS_NEXTHOP: fn(&Step) -> bool = |step| matches!(step, Step::PutNexthop { .. });
const IS_ROUTE: fn(&Step) -> bool = |step| matches!(step, Step::PutRoute { .. });

#[test]
fn the_kernel_is_observed_after_a_refusal_that_another_program_causes() {
    for (is_it, errno, is_observed) in [
        (IS_ROUTE, Errno::EEXIST, true),
        (IS_NEXTHOP, Errno::EEXIST, true),
        (IS_FDB_ENTRY, Errno::EEXIST, false),
        (IS_ROUTE, Errno::ENOBUFS, false),
        (IS_NEXTHOP, Errno::ENOBUFS, false),
        (IS_FDB_ENTRY, Errno::ENOBUFS, false),
        (IS_FDB_ENTRY, Errno::ENODEV, true),
    ] {
        let (mut overlay, mut kernel) = node();
        let plan = overlay.pending();
        let report = refuse(&mut overlay, &mut kernel, &plan, is_it, errno);
        assert_eq!((overlay.needs_observe(), overlay.is_refused(subnet(3))), (is_observed, true), "{errno}");
        assert!(report.is_clean_but_for_peers() && !report.is_clean());
    }
    // Not if the plan comes from an observation: the next would not tell more.
    let (mut overlay, mut kernel) = node();
    let plan = overlay.diff(&kernel.observe(&overlay.links()).unwrap());
    refuse(&mut overlay, &mut kernel, &plan, IS_ROUTE, Errno::EEXIST);
    assert!(!overlay.needs_observe() && overlay.is_refused(subnet(3)));
    // A removed peer that could not be deleted.
    let (mut overlay, mut kernel) = node();
    overlay.remove_peer(subnet(2));
    let plan = overlay.pending();
    refuse(&mut overlay, &mut kernel, &plan, |step| matches!(step, Step::DeleteRoute { .. }), Errno::EPERM);
    assert!(overlay.needs_observe());
}

#[test]
fn the_kernel_is_observed_if_there_was_no_device_for_the_steps() {
    let (mut overlay, _) = node();
    let plan = overlay.pending();
    let report = overlay.settle(&plan, Applied { without_device: vec![Family::V4], ..Applied::default() });
    assert!(overlay.needs_observe() && !report.is_clean_but_for_peers());
    let (mut overlay, mut kernel) = node();
    kernel.devices.values_mut().for_each(|device| device.kind = ObservedKind::Other("tun".to_owned()));
    let plan = overlay.diff(&kernel.observe(&overlay.links()).unwrap());
    assert_eq!(plan.taken().len(), 1);
    let report = overlay.settle(&plan, Applied::default());
    assert!(overlay.needs_observe() && !report.is_clean_but_for_peers());
}

#[test]
fn a_peer_takes_another_nexthop_id_only_if_its_own_is_taken() {
    for (errno, is_kept) in [(Errno::ENOBUFS, true), (Errno::EEXIST, false)] {
        let (mut overlay, mut kernel) = node();
        let id = |plan: &Plan| {
            plan.steps().iter().find_map(|step| match step {
                Step::PutNexthop { nexthop, .. } => Some(nexthop.id),
                _ => None,
            })
        };
        let plan = overlay.pending();
        refuse(&mut overlay, &mut kernel, &plan, IS_NEXTHOP, errno);
        overlay.retry();
        let again = match overlay.needs_observe() {
            true => {
                // Another program has it.
                let taken = id(&plan).unwrap();
                let mut other = *kernel.nexthops.values().next().unwrap();
                (other.id, other.protocol) = (taken, 4);
                kernel.nexthops.insert(taken, other);
                overlay.diff(&kernel.observe(&overlay.links()).unwrap())
            }
            false => overlay.pending(),
        };
        assert_eq!(id(&again) == id(&plan), is_kept, "{errno}");
    }
}

#[test]
fn a_nexthop_object_is_replaced_if_the_kernel_has_it_for_the_peer_and_else_added() {
    let (mut overlay, _) = node();
    overlay.set_peer(peer(2, 9)).unwrap();
    let plan = overlay.pending();
    let replaced = plan.steps().iter().filter_map(|step| match step {
        Step::PutNexthop { replace, .. } => Some(*replace),
        _ => None,
    });
    assert_eq!(replaced.collect::<Vec<_>>(), [true, false], "peers 2 and 3");
}

#[test]
fn a_device_whose_options_cannot_be_changed_in_place_is_recreated() {
    type Change = fn(&mut ObservedDevice);
    let learns: Change = |device| {
        let ObservedKind::Vxlan(vxlan) = &mut device.kind else { unreachable!() };
        vxlan.learning = !vxlan.learning;
    };
    let is_smaller: Change = |device| device.mtu -= 1;
    let is_change: fn(&Step) -> bool = |step| matches!(step, Step::Device(_, DeviceStep::Change(_)));
    let is_mtu: fn(&Step) -> bool = |step| matches!(step, Step::Device(_, DeviceStep::SetMtu(_)));
    for (change, is_it, errno, is_recreated) in [
        (learns, is_change, Errno::EOPNOTSUPP, true),
        (learns, is_change, Errno::EPERM, false),
        (is_smaller, is_mtu, Errno::EOPNOTSUPP, false),
        (is_smaller, is_mtu, Errno::EBUSY, false),
    ] {
        let (mut overlay, mut kernel) = node();
        assert!(overlay.flush(&mut kernel).unwrap().is_clean());
        kernel.devices.values_mut().for_each(change);
        let plan = overlay.diff(&kernel.observe(&overlay.links()).unwrap());
        let report = refuse(&mut overlay, &mut kernel, &plan, is_it, errno);
        assert!(overlay.needs_observe() && !report.is_clean_but_for_peers());
        let next = overlay.diff(&kernel.observe(&overlay.links()).unwrap());
        let creates = next.steps().iter().any(|step| matches!(step, Step::Device(_, DeviceStep::Create(_))));
        assert_eq!(creates, is_recreated, "{errno}: {next}");
    }
}

#[test]
fn a_refusal_names_the_peer_the_command_and_the_reason() {
    let (mut overlay, mut kernel) = node();
    let plan = overlay.pending();
    let report = refuse(&mut overlay, &mut kernel, &plan, IS_FDB_ENTRY, Errno::EPERM);
    let [refused] = &report.refused[..] else { unreachable!("{report:?}") };
    let text = "peer 10.244.3.0/24 (node 192.168.77.3): the kernel refused `bridge fdb replace 02:00:00:00:00:03 dev flannel.1 dst 192.168.77.3 self \
                extern_learn permanent`: Operation not permitted (EPERM)";
    assert_eq!(refused.to_string(), text);
    let mut explained = refused.clone();
    (explained.peer, explained.text) = (None, Some("the device is gone".to_owned()));
    assert_eq!(
        explained.to_string(),
        format!("{}: the device is gone", &text["peer 10.244.3.0/24 (node 192.168.77.3): ".len()..])
    );
}
