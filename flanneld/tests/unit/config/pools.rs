//! Which subnets of a network may be allocated.

use flanneld::config::{Ipv4Pool, NetConf};

fn pool(members: &str) -> Result<Ipv4Pool, String> {
    let text = format!(r#"{{"Network": "10.244.0.0/16", {members}}}"#);
    match NetConf::parse(text.as_bytes()) {
        Ok(net_conf) => Ok(net_conf.ipv4.unwrap()),
        Err(problems) => Err(problems.to_string()),
    }
}

#[test]
fn the_range_may_begin_with_the_network_end_with_it_and_have_one_subnet() {
    for (min, max) in [
        ("10.244.0.0", "10.244.255.0"),
        ("10.244.0.0", "10.244.0.0"),
        ("10.244.7.0", "10.244.7.0"),
        ("10.244.255.0", "10.244.255.0"),
    ] {
        let pool = pool(&format!(r#""SubnetMin": "{min}", "SubnetMax": "{max}""#)).unwrap();
        assert_eq!(
            (pool.subnet_min.to_string(), pool.subnet_max.to_string()),
            (min.to_owned(), max.to_owned())
        );
    }
    for (member, reason) in [
        (r#""SubnetMax": "10.244.255.255""#, "SubnetMax is not on a SubnetLen boundary: 10.244.255.255"),
        (r#""SubnetMax": "10.245.0.0""#, "SubnetMax is not in the range of the Network"),
        (r#""SubnetMin": "10.243.255.0""#, "SubnetMin is not in the range of the Network"),
    ] {
        let problem = pool(member).unwrap_err();
        assert!(problem.contains(reason), "{problem}");
    }
}
