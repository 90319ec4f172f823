use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpStream};
use std::time::Duration;

use flanneld::config::HealthzAddress;
use flanneld::serve::listen::listen;
use nix::net::if_::if_nametoindex;
use testkit::{netns, sh, try_sh, wait_for};

fn address(ip: &str) -> HealthzAddress {
    HealthzAddress { ip: ip.parse().unwrap(), port: 0 }
}

/// Which of the targets take connections when the health port is opened at `ip`.
fn reached(ip: &str, targets: &[&str]) -> Vec<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let listener = listen(&address(ip)).map_err(|error| format!("{ip}: {error}")).unwrap();
    let port = listener.local_addr().unwrap().port();
    let connects = |target: &&str| {
        let (target, zone) = target.split_once('%').unwrap_or((target, "lo"));
        let target = match target.parse().unwrap() {
            IpAddr::V4(v4) => SocketAddr::from((v4, port)),
            IpAddr::V6(v6) => SocketAddrV6::new(v6, port, 0, if_nametoindex(zone).unwrap()).into(),
        };
        TcpStream::connect_timeout(&target, Duration::from_secs(2)).is_ok()
    };
    targets.iter().map(connects).collect()
}

#[test]
fn an_unspecified_address_is_both_families_as_in_go() {
    netns(|| {
        // Go does not follow this setting for addresses that are unspecified.
        sh("sysctl -qw net.ipv6.bindv6only=1");
        let targets = ["127.0.0.1", "127.0.0.2", "::1"];
        for ip in ["0.0.0.0", "", "::", "::ffff:0.0.0.0"] {
            assert_eq!(reached(ip, &targets), [true; 3], "{ip}");
        }
        for ip in ["127.0.0.1", "::ffff:127.0.0.1"] {
            assert_eq!(reached(ip, &targets), [true, false, false], "{ip}");
        }
        assert_eq!(reached("::1", &targets), [false, false, true]);
        sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
        for ip in ["0.0.0.0", "", "::"] {
            assert_eq!(reached(ip, &targets), [true, true, false], "{ip}");
        }
    });
}

#[test]
fn a_link_local_address_is_opened_on_the_interface_of_its_zone() {
    netns(|| {
        sh("ip link add z0 type veth peer name z1; ip link set z0 up; ip link set z1 up");
        sh("ip -6 addr add fe80::a/64 dev z0 nodad; ip -6 addr add fe80::a/64 dev z1 nodad");
        // The kernel adds the route to an address later, from a work queue.
        let is_usable = || try_sh("ip -6 route show table local dev z0 | grep -q '^local fe80::a '").ok();
        wait_for(Duration::from_secs(10), is_usable).expect("fe80::a is usable on z0");
        let index = if_nametoindex("z0").unwrap();
        for ip in ["fe80::a%z0".to_owned(), format!("fe80::a%{index}")] {
            assert_eq!(reached(&ip, &["fe80::a%z0", "fe80::a%z1", "::1"]), [true, false, false], "{ip}");
        }
        let error = listen(&address("fe80::a%none")).unwrap_err();
        assert!(error.to_string().contains("interface none"), "{error}");
    });
}

#[tokio::test]
async fn a_port_that_is_taken_in_one_family_is_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let asked = HealthzAddress { ip: "0.0.0.0".parse().unwrap(), port };
    assert_eq!(listen(&asked).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
}
