//! Which differences of a device are repaired, and which devices are another program's.

use flannel_vxlan::{
    DeviceSpec, FakeKernel, Family, IpipSpec, MacAddr, ObservedDevice, ObservedKind, ObservedVxlan, Overlay,
};

use super::{device, family, ipip, with};

/// A node with this device, and a kernel that has it.
fn node(device: DeviceSpec) -> (Overlay, FakeKernel) {
    let mut overlay = Overlay::new([family(Family::V4).device(device)]);
    let mut kernel = FakeKernel::new([("192.168.77.1".parse().unwrap(), 24)]);
    assert!(overlay.flush(&mut kernel).unwrap().is_clean());
    (overlay, kernel)
}

fn vxlan() -> DeviceSpec {
    device(1, "192.168.77.1", "10.244.1.0", MacAddr::new([2, 0, 0, 0, 0, 1]).unwrap())
}

/// Each change alone is undone in one step; then nothing is left to do.
fn each_is_repaired_alone(device: DeviceSpec, changes: &[fn(&mut ObservedDevice)]) {
    let (mut overlay, mut kernel) = node(device);
    let made = kernel.devices.clone();
    for (number, change) in changes.iter().enumerate() {
        kernel.devices.values_mut().for_each(change);
        assert_ne!(kernel.devices, made, "change {number}");
        assert_eq!(overlay.converge(&mut kernel).unwrap().steps, 1, "change {number}");
        assert_eq!(kernel.devices, made, "change {number}");
        assert_eq!(overlay.converge(&mut kernel).unwrap().steps, 0, "change {number}");
    }
}

#[test]
fn an_ip_in_ip_device_is_repaired_if_its_interface_or_its_local_address_alone_differs() {
    fn found(device: &mut ObservedDevice) -> &mut flannel_vxlan::ObservedIpip {
        let ObservedKind::Ipip(found) = &mut device.kind else { unreachable!() };
        found
    }
    each_is_repaired_alone(
        ipip(IpipSpec::new()),
        &[
            |device| found(device).underlay += 1,
            |device| found(device).local = Some("192.168.77.9".parse().unwrap()),
            |device| found(device).local = None,
        ],
    );
}

#[test]
fn checksum_offload_is_written_only_where_it_is_another_than_the_configured() {
    each_is_repaired_alone(
        with(vxlan(), |vxlan| vxlan.tx_checksum(Some(false))),
        &[|device| device.tx_checksum = Some(true), |device| device.tx_checksum = None],
    );
    let (mut overlay, mut kernel) = node(vxlan());
    kernel.devices.values_mut().for_each(|device| device.tx_checksum = Some(false));
    assert_eq!(overlay.converge(&mut kernel).unwrap().steps, 0, "nothing is configured");
}

#[test]
fn a_vxlan_device_is_recreated_if_an_option_that_the_kernel_cannot_change_differs() {
    let changes: [fn(&mut ObservedVxlan); 4] = [
        |found| found.port += 1,
        |found| found.gbp = true,
        |found| found.fixed_options_differ = true,
        |found| found.local = Some("fd77::1".parse().unwrap()),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let (mut overlay, mut kernel) = node(vxlan());
        let made = kernel.devices.clone();
        for device in kernel.devices.values_mut() {
            let ObservedKind::Vxlan(found) = &mut device.kind else { unreachable!() };
            change(found);
        }
        assert!(overlay.converge(&mut kernel).unwrap().is_clean());
        let index = |device: &ObservedDevice| device.index;
        assert!(!kernel.devices.values().map(index).eq(made.values().map(index)), "change {number}");
        assert_eq!(overlay.converge(&mut kernel).unwrap().steps, 0, "change {number}");
    }
}

#[test]
fn a_device_with_another_vni_is_another_programs() {
    let (mut overlay, mut kernel) = node(vxlan());
    for device in kernel.devices.values_mut() {
        let ObservedKind::Vxlan(found) = &mut device.kind else { unreachable!() };
        found.vni = 7;
    }
    let before = kernel.devices.clone();
    let report = overlay.converge(&mut kernel).unwrap();
    assert_eq!((report.taken.len(), report.steps), (1, 0));
    assert_eq!(kernel.devices, before);
}
