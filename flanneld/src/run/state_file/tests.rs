use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use flannel_lease::{BackendData, BackendType};

fn saved() -> SavedState {
    let net_conf = br#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#;
    let attributes = |n: u8| {
        let json = format!(
            r#"{{"PublicIP":"192.168.77.{n}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:00:0{n}"}}}}"#
        );
        LeaseAttributes::from_json(json.as_bytes()).unwrap()
    };
    let key = |n: u8| format!("10.244.{n}.0-24").parse().unwrap();
    SavedState {
        net_conf: NetConf::parse(net_conf).unwrap(),
        psk_withheld: false,
        machine: Some(Machine::this(Some("02:00:00:00:00:01".to_owned()), "a")),
        key: key(1),
        attributes: attributes(1),
        node_public: (Some(Ipv4Addr::new(203, 0, 113, 1)), None),
        peers: vec![(key(2), Arc::new(attributes(2))), (key(3), Arc::new(attributes(3)))],
        unswept: vec![
            NetConf::parse(br#"{"Network": "10.9.0.0/16", "Backend": {"Type": "host-gw"}}"#).unwrap(),
        ],
    }
}

fn text(saved: &SavedState) -> String {
    let mut text = Vec::new();
    saved.write_json(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
fn what_is_written_is_what_is_read_and_nobody_else_may_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = path(&folder.path().join("subnet.env"));
    assert!(path.ends_with("subnet.state.json"));
    assert!(SavedState::read(&path).unwrap().is_none());
    saved().write(&path).unwrap();
    assert_eq!(SavedState::read(&path).unwrap(), Some(saved()));
    assert_eq!(file::mode(&path), Some(0o600));
}

#[tokio::test(start_paused = true)]
async fn a_state_that_could_not_be_written_is_written_once_there_is_space() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("flannel");
    std::fs::write(&place, "").unwrap();
    let path = path(&place.join("subnet.env"));
    let (states_tx, states) = mpsc::channel(1);
    let writer = tokio::spawn(keep(path.clone(), states));
    states_tx.send(saved()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(300)).await;
    std::fs::remove_file(&place).unwrap();
    tokio::time::sleep(MAX_RETRY_DELAY).await;
    assert_eq!(SavedState::read(&path).unwrap(), Some(saved()));
    drop(states_tx);
    writer.await.unwrap();
}

#[test]
fn a_damaged_foreign_or_later_file_is_refused_with_its_name_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("subnet.state.json");
    let whole = text(&saved());
    for (text, expected) in [
        (&whole[..whole.len() / 2], "EOF while parsing"),
        ("", "EOF while parsing"),
        ("\0\0\0\0", "expected value"),
        ("[]", "invalid"),
        (&whole.replace("10.244.2.0-24", "10.244.2.1-24"), "address bits set"),
        (&whole.replace("\"Type\":\"vxlan\"", "\"Type\":\"sneakernet\""), "net_conf: Backend.Type"),
        (&whole.replace("\"version\":1", "\"version\":2"), "has format 2, this flanneld reads format 1"),
    ] {
        std::fs::write(&path, text).unwrap();
        let refused = SavedState::read(&path).unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
        assert!(refused.contains("subnet.state.json"), "{refused}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}

/// Kubernetes nodes may claim what is no lease in any other store, and one that cannot be read back would spoil the file.
#[test]
fn a_peer_that_could_not_be_read_back_costs_the_others_nothing() {
    let mut all = saved();
    let key = |v4: &str| LeaseKey::new(v4.parse().ok(), None).unwrap();
    let long = BackendData::from_json(format!("\"{}\"", "x".repeat(10_000))).ok();
    let whole = all.peers[0].1.clone();
    let long = LeaseAttributes { backend_data: long.clone(), backend_v6_data: long, ..(*whole).clone() };
    let wordy = BackendType::Other("\n".repeat(10_000).into());
    let wordy = LeaseAttributes { backend_type: wordy, ..(*whole).clone() };
    all.peers.extend([
        (key("0.0.0.0/0"), whole.clone()),
        (key("10.244.9.1/32"), whole),
        (key("10.244.8.0/24"), long.into()),
        (key("10.244.7.0/24"), wordy.into()),
    ]);
    let read = SavedState::parse(text(&all).as_bytes());
    assert_eq!(read.ok(), Some(saved()));
}

proptest! {
    #[test]
    fn no_state_file_is_a_panic(damage in prop::collection::vec((any::<Index>(), any::<u8>()), 1..8)) {
        let mut text = text(&saved()).into_bytes();
        for (at, value) in damage {
            *at.get_mut(&mut text) = value;
        }
        let _read_or_refused = SavedState::parse(&text);
    }
}

#[test]
fn it_does_not_stand_in_for_another_network() {
    let conf = |text: &str| NetConf::parse(text.as_bytes()).unwrap();
    let same = conf(r#"{"Network": "10.244.0.0/16", "SubnetLen": 26, "Backend": {"Type": "host-gw"}}"#);
    assert_eq!(saved().unfit_for(&same), None);
    let other = conf(r#"{"Network": "10.245.0.0/16", "Backend": {"Type": "vxlan"}}"#);
    assert_eq!(
        saved().unfit_for(&other).as_deref(),
        Some("it is about network 10.244.0.0/16, not 10.245.0.0/16")
    );
    let stray = SavedState { key: "10.9.1.0-24".parse().unwrap(), ..saved() };
    assert!(stray.unfit_for(&same).unwrap().contains("10.9.1.0-24"));
}

#[test]
fn a_psk_is_not_in_the_file_and_nothing_starts_without_it() {
    const PSK: &str = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
    let conf =
        format!(r#"{{"Network": "10.244.0.0/16", "Backend": {{"Type": "wireguard", "PSK": "{PSK}"}}}}"#);
    let net_conf = NetConf::parse(conf.as_bytes()).unwrap();
    let saved = SavedState { net_conf: net_conf.clone(), unswept: vec![net_conf], ..saved() };
    let mut text = Vec::new();
    saved.write_json(&mut text).unwrap();
    assert!(!String::from_utf8(text.clone()).unwrap().contains(PSK));
    let read = SavedState::parse(&text).ok().unwrap();
    assert_eq!((read.usable_net_conf(), read.net_conf.backend.has_psk()), (None, false));
    let mut again = Vec::new();
    read.write_json(&mut again).unwrap();
    assert_eq!(again, text);
}

#[test]
fn a_node_that_turns_one_family_off_keeps_what_it_has_of_the_other() {
    let conf = |text: &str| NetConf::parse(text.as_bytes()).unwrap();
    let v4 = conf(r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#);
    let dual = conf(
        r#"{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/48", "Backend": {"Type": "vxlan"}}"#,
    );
    let both = SavedState {
        net_conf: dual.clone(),
        key: "10.244.1.0-24&fd00:10:244:1::-64".parse().unwrap(),
        ..saved()
    };
    assert_eq!(both.unfit_for(&dual), None);
    assert_eq!(both.unfit_for(&v4), None);
    let (network, none) = v4.networks();
    assert_eq!(both.key.within(network, none), Some(saved().key));
    assert!(saved().unfit_for(&dual).unwrap().contains("not 10.244.0.0/16 and fd00:10:244::/48"));
    assert_eq!(saved().key.within(dual.networks().0, dual.networks().1), None);
}
