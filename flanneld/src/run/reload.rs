//! A changed network configuration while the daemon runs: what can change does, anything else is refused and named.
//!
//! Upstream reads its configuration once. Here SIGHUP, a changed net-conf.json and a changed etcd key are followed. A
//! configuration is applied whole or not at all, so that flanneld always follows a configuration that an operator wrote.

use std::fmt::Display;

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use crate::config::{Backend, NetConf, Vxlan, Wireguard};
use crate::run::file_watch::FileWatch;
use crate::run::net_conf::Written;
use crate::status::readiness::{Readiness, update};
use flannel_lease::Backoff;
use flannel_lease::{Chain, StoreError};

/// A configuration that must not be taken while the daemon runs: each key, and why.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}: restart flanneld on every node to apply it", .0.join("; "))]
pub struct Refused(pub Vec<String>);

/// What the reconciler is asked to take, and where it says what came of it.
#[derive(Debug)]
pub struct Reload {
    /// What is written now.
    pub net_conf: NetConf,
    /// Whether anything has changed, or why nothing has.
    pub done: oneshot::Sender<Result<bool, String>>,
}

/// The configuration to go on with when `new` is written while `old` is in force.
///
/// Live: `NonMasqueradeCIDRs`, `IPMasq`, `IPMasqFullyRandom`, `Backend.MTU`, `Backend.DirectRouting`, `Backend.Learning`,
/// `Backend.TxChecksumOffload`, `Backend.PersistentKeepaliveInterval`, and `EnableNFTables`, which means nothing here. Everything else decides which subnets
/// there are, how nodes understand each other, or needs a new device.
///
/// # Errors
/// [`Refused`] names every key that would need a restart.
pub fn live_change(old: &NetConf, new: &NetConf) -> Result<NetConf, Refused> {
    let mut refused = Vec::new();
    let mut fixed = |key: &str, old: &dyn Display, new: &dyn Display, why: &str| {
        let (old, new) = (old.to_string(), new.to_string());
        if old != new {
            refused.push(format!("{key} {old} -> {new} {why}"));
        }
    };
    let pods = "would move running pods to other addresses";
    let range = "decides which subnets are leased";
    fixed("EnableIPv4", &old.ipv4.is_some(), &new.ipv4.is_some(), pods);
    fixed("EnableIPv6", &old.ipv6.is_some(), &new.ipv6.is_some(), pods);
    if let Some((old, new)) = old.ipv4.zip(new.ipv4) {
        fixed("Network", &old.network, &new.network, pods);
        fixed("SubnetLen", &old.subnet_len, &new.subnet_len, range);
        fixed("SubnetMin", &old.subnet_min, &new.subnet_min, range);
        fixed("SubnetMax", &old.subnet_max, &new.subnet_max, range);
    }
    if let Some((old, new)) = old.ipv6.zip(new.ipv6) {
        fixed("IPv6Network", &old.network, &new.network, pods);
        fixed("IPv6SubnetLen", &old.subnet_len, &new.subnet_len, range);
        fixed("IPv6SubnetMin", &old.subnet_min, &new.subnet_min, range);
        fixed("IPv6SubnetMax", &old.subnet_max, &new.subnet_max, range);
    }
    fixed("Backend.Type", &old.backend.name(), &new.backend.name(), "cannot change under running pods");
    if let (Backend::Vxlan(old), Backend::Vxlan(new)) = (&old.backend, &new.backend) {
        let Vxlan { vni, port, gbp, .. } = old;
        let device = "needs another device, which the other nodes must have too";
        fixed("Backend.VNI", vni, &new.vni, device);
        fixed("Backend.Port", port, &new.port, device);
        fixed("Backend.GBP", gbp, &new.gbp, device);
    }
    if let (Backend::Udp(old), Backend::Udp(new)) = (&old.backend, &new.backend) {
        fixed("Backend.Port", &old.port, &new.port, "is where the other nodes send to");
    }
    if let (Backend::Wireguard(old), Backend::Wireguard(new)) = (&old.backend, &new.backend) {
        let Wireguard { listen_port, listen_port_v6, psk, mode, .. } = old;
        let port = "is where the other nodes send to";
        fixed("Backend.ListenPort", listen_port, &new.listen_port, port);
        fixed("Backend.ListenPortV6", listen_port_v6, &new.listen_port_v6, port);
        fixed("Backend.Mode", &mode.as_str(), &new.mode.as_str(), "needs other devices");
        if *psk != new.psk {
            refused.push("Backend.PSK has changed and must be the same on all nodes".to_owned());
        }
    }
    if refused.is_empty() { Ok(new.clone()) } else { Err(Refused(refused)) }
}

/// Takes every changed configuration to the reconciler, and on `sighups` (SIGHUP) the present one, for as long as there is a
/// reconciler.
/// A refused or unreadable one is logged once and noted in `readiness` for as long as it stands there.
///
/// `around` is called before (`false`) and after (`true`) each re-reading that was asked for.
pub async fn follow(
    written: Written,
    mut sighups: mpsc::Receiver<()>,
    reloads: mpsc::Sender<Reload>,
    readiness: watch::Sender<Readiness>,
    around: impl Fn(bool),
) {
    let (texts_tx, mut texts_rx) = mpsc::channel(1);
    tokio::spawn(report(written.clone(), texts_tx));
    let mut last = None;
    // Whether what was last asked for could not be read: who watches the store hears of changes only, not of its return.
    let mut unread = false;
    let mut backoff = Backoff::default();
    loop {
        let (text, asked) = tokio::select! {
            text = texts_rx.recv() => match text {
                Some(text) => (text, false),
                None => return,
            },
            Some(()) = sighups.recv() => {
                info!("rereading the network configuration");
                around(false);
                (written.read().await, true)
            }
            () = tokio::time::sleep(backoff.next_delay()), if unread => (written.read().await, false),
        };
        if asked || text.is_ok() {
            unread = text.is_err();
            backoff.reset();
        }
        if asked || last.as_ref() != Some(&text) {
            let outcome = take(&written, text.clone(), &reloads).await;
            last = Some(text);
            if asked && matches!(outcome, Ok(false)) {
                info!("the network configuration is unchanged");
            }
            let trouble = outcome.err();
            if let Some(problem) = &trouble {
                warn!(
                    "keeping the present network configuration, traffic is not affected; flanneld reads it again when it changes: {problem}"
                );
            }
            update(&readiness, |readiness| readiness.note("configuration", trouble));
        }
        if asked {
            around(true);
        }
    }
}

/// The text, or why there is none.
type Text = Result<String, String>;

async fn take(written: &Written, text: Text, reloads: &mpsc::Sender<Reload>) -> Result<bool, String> {
    let net_conf = written.parse(&text?)?;
    let (done, outcome) = oneshot::channel();
    if reloads.send(Reload { net_conf, done }).await.is_err() {
        return Ok(false);
    }
    match outcome.await {
        Ok(outcome) => outcome,
        Err(_shutting_down) => Ok(false),
    }
}

/// Sends the present text and each later one. Equal ones may come twice.
async fn report(written: Written, texts_rx: mpsc::Sender<Text>) {
    match written {
        Written::File(path) => {
            let mut watch = FileWatch::new(&path);
            loop {
                if texts_rx.send(Written::File(path.clone()).read().await).await.is_err() {
                    return;
                }
                tokio::select! {
                    () = texts_rx.closed() => return,
                    () = watch.changed() => {}
                }
            }
        }
        Written::Etcd(store) => {
            let (configs, mut changes) = mpsc::channel::<Result<String, StoreError>>(1);
            let forward = async {
                while let Some(config) = changes.recv().await {
                    let text = config.map_err(|error| Chain(&error).to_string());
                    if texts_rx.send(text).await.is_err() {
                        return;
                    }
                }
            };
            tokio::join!(store.watch_config(configs), forward);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BASE: &str = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#;

    fn conf(text: &str) -> NetConf {
        NetConf::parse(text.as_bytes()).unwrap()
    }

    fn change(new: &str) -> Result<NetConf, Vec<String>> {
        live_change(&conf(BASE), &conf(new)).map_err(|Refused(keys)| keys)
    }

    #[test]
    fn what_can_change_live_does() {
        for new in [
            BASE,
            r#"{"Network": "10.244.0.0/16", "NonMasqueradeCIDRs": ["10.0.0.0/8"], "Backend": {"Type": "vxlan"}}"#,
            r#"{"Network": "10.244.0.0/16", "IPMasq": false, "Backend": {"Type": "vxlan"}}"#,
            r#"{"Network": "10.244.0.0/16", "IPMasqFullyRandom": false, "Backend": {"Type": "vxlan"}}"#,
            r#"{"Network": "10.244.0.0/16", "EnableNFTables": true, "Backend": {"Type": "vxlan"}}"#,
            r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "MTU": 1400}}"#,
            r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "DirectRouting": true}}"#,
            r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "Learning": true}}"#,
            r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "TxChecksumOffload": "off"}}"#,
        ] {
            assert_eq!(change(new), Ok(conf(new)));
        }
        let wireguard = conf(r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "wireguard"}}"#);
        let new = conf(
            r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "wireguard", "PersistentKeepaliveInterval": 25, "MTU": 1400}}"#,
        );
        assert_eq!(live_change(&wireguard, &new), Ok(new));
    }

    #[test]
    fn what_cannot_is_named_key_by_key() {
        let dual = r#""EnableIPv6": true, "IPv6Network": "fd00:10:244::/56", "#;
        for (new, keys) in [
            (BASE.replace("10.244", "10.245"), &["Network", "SubnetMin", "SubnetMax"][..]),
            (BASE.replace("/16\"", "/16\", \"SubnetLen\": 26"), &["SubnetLen", "SubnetMin", "SubnetMax"]),
            (BASE.replace("{\"N", &format!("{{{dual}\"N")), &["EnableIPv6"]),
            (BASE.replace("vxlan", "host-gw"), &["Backend.Type"]),
            (BASE.replace("vxlan\"", "vxlan\", \"VNI\": 2, \"GBP\": true"), &["Backend.VNI", "Backend.GBP"]),
            (BASE.replace("vxlan\"", "vxlan\", \"Port\": 4789, \"MTU\": 1400"), &["Backend.Port"]),
        ] {
            let refused = change(&new).unwrap_err();
            let named: Vec<&str> = refused.iter().filter_map(|line| line.split(' ').next()).collect();
            assert_eq!(named, keys, "{new}");
        }
        let both = |network: &str, more: &str| {
            conf(&format!(
                r#"{{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "{network}"{more}, "Backend": {{"Type": "vxlan"}}}}"#
            ))
        };
        let old = both("fd00:10:244::/56", "");
        for (new, keys) in [
            (both("fd00:10:245::/56", ""), &["IPv6Network", "IPv6SubnetMin", "IPv6SubnetMax"][..]),
            (
                both("fd00:10:244::/56", ", \"IPv6SubnetLen\": 60"),
                &["IPv6SubnetLen", "IPv6SubnetMin", "IPv6SubnetMax"],
            ),
        ] {
            let Refused(refused) = live_change(&old, &new).unwrap_err();
            let named: Vec<&str> = refused.iter().filter_map(|line| line.split(' ').next()).collect();
            assert_eq!(named, keys);
        }
        let udp = |port| {
            conf(&format!(r#"{{"Network": "10.244.0.0/16", "Backend": {{"Type": "udp", "Port": {port}}}}}"#))
        };
        let Refused(refused) = live_change(&udp(8285), &udp(8286)).unwrap_err();
        assert_eq!(refused, ["Backend.Port 8285 -> 8286 is where the other nodes send to"]);
        const PSK: &str = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
        let wireguard = |members: &str| {
            conf(&format!(r#"{{"Network": "10.244.0.0/16", "Backend": {{"Type": "wireguard"{members}}}}}"#))
        };
        let new = format!(r#", "ListenPort": 7000, "ListenPortV6": 7001, "Mode": "auto", "PSK": "{PSK}""#);
        let Refused(refused) = live_change(&wireguard(""), &wireguard(&new)).unwrap_err();
        let named: Vec<&str> = refused.iter().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(named, ["Backend.ListenPort", "Backend.ListenPortV6", "Backend.Mode", "Backend.PSK"]);
        assert!(!refused.join(" ").contains(PSK));
        let refused = live_change(&conf(BASE), &conf(&BASE.replace("vxlan\"", "vxlan\", \"Port\": 4789")));
        assert_eq!(
            refused.unwrap_err().to_string(),
            "Backend.Port 8472 -> 4789 needs another device, which the other nodes must have too: restart flanneld on every node to apply it"
        );
    }

    #[tokio::test]
    async fn a_file_is_followed_through_writing_renaming_and_a_swapped_config_map() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net-conf.json");
        let version = |n: u8| {
            let data = folder.path().join(format!("..{n}"));
            std::fs::create_dir(&data).unwrap();
            std::fs::write(data.join("net-conf.json"), format!("map {n}")).unwrap();
            std::os::unix::fs::symlink(format!("..{n}"), folder.path().join("..new")).unwrap();
            std::fs::rename(folder.path().join("..new"), folder.path().join("..data")).unwrap();
        };
        let (texts_tx, mut texts_rx) = mpsc::channel(1);
        tokio::spawn(report(Written::File(path.clone()), texts_tx));
        let mut until = async |expected: &str| {
            let limit = Duration::from_secs(10);
            while tokio::time::timeout(limit, texts_rx.recv()).await.unwrap().unwrap().as_deref()
                != Ok(expected)
            {}
        };
        std::fs::write(&path, "written").unwrap();
        until("written").await;
        std::fs::write(folder.path().join("other"), "renamed").unwrap();
        std::fs::rename(folder.path().join("other"), &path).unwrap();
        until("renamed").await;
        std::fs::remove_file(&path).unwrap();
        version(1);
        std::os::unix::fs::symlink("..data/net-conf.json", &path).unwrap();
        until("map 1").await;
        version(2);
        until("map 2").await;
    }
}
