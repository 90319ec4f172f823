use std::path::Path;
use std::process::Command;

use flannel_cni::SubnetEnv;

/// What a file says of which every value is valid.
fn parse(text: &str) -> SubnetEnv {
    let (env, invalid) = SubnetEnv::parse(text.as_bytes());
    assert_eq!(invalid, [], "{text}");
    env
}

#[test]
fn the_file_is_upstreams_to_the_byte() {
    let env = SubnetEnv {
        networks: vec!["10.244.0.0/16".parse().unwrap(), "fd00:10:244::/48".parse().unwrap()],
        ipv4_subnet: Some("10.244.62.0/24".parse().unwrap()),
        ipv6_subnet: Some("fd00:10:244:5d::/64".parse().unwrap()),
        mtu: Some(1450),
        ip_masq: Some(true),
    };
    let upstream = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.62.1/24\nFLANNEL_IPV6_NETWORK=fd00:10:244::/48\n\
                    FLANNEL_IPV6_SUBNET=fd00:10:244:5d::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
    assert_eq!(env.to_string(), upstream);
    assert_eq!(parse(upstream), env);
    let ipv4 = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.62.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n";
    assert_eq!(parse(ipv4).to_string(), ipv4);
}

#[test]
fn a_list_is_read_to_its_first_subnet_and_what_is_none_in_it_is_skipped() {
    let subnet = |value: &str| {
        let text = format!("FLANNEL_SUBNET={value}\nFLANNEL_IPV6_SUBNET=fd00:1::1/64,fd00:2::1/64\n");
        let (env, invalid) = SubnetEnv::parse(text.as_bytes());
        assert_eq!(env.ipv6_subnet, Some("fd00:1::/64".parse().unwrap()), "{value}");
        let invalid: Vec<String> = invalid.iter().map(ToString::to_string).collect();
        (env.ipv4_subnet.map(|subnet| subnet.to_string()), invalid.concat())
    };
    for list in ["10.1.2.1/24", "10.1.2.1/24,10.1.3.1/24", "banana, 10.1.2.1/24 ,fd00::1/64", "10.1.2.1/24,"]
    {
        assert_eq!(subnet(list), (Some("10.1.2.0/24".to_owned()), String::new()), "{list}");
    }
    assert_eq!(subnet(""), (None, String::new()));
    let invalid = "FLANNEL_SUBNET=banana,1.2.3 is not a network in CIDR notation".to_owned();
    assert_eq!(subnet("banana,1.2.3"), (None, invalid));
}

#[test]
fn lines_of_other_programs_stay_at_the_end_in_their_order() {
    let env = parse("FLANNEL_SUBNET=10.1.2.1/24\n");
    let present = b"DOCKER_OPTS=a\nFLANNEL_MTU=9\n# note\nFLANNEL_SUBN\n\nOTHER=b";
    let written = env.with_foreign_lines(present);
    assert_eq!(
        String::from_utf8_lossy(&written),
        "FLANNEL_SUBNET=10.1.2.1/24\nDOCKER_OPTS=a\n# note\n\nOTHER=b\n"
    );
    assert!(env.is_in(&written) && !env.is_in(present));
}

/// Ways in which a shell, or upstream's parser, reads the same four values.
const SPELLINGS: [&str; 4] = [
    "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.74.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n",
    "export FLANNEL_NETWORK=\"10.1.0.0/16\"\nexport FLANNEL_SUBNET=\"10.1.74.1/24\"\nexport FLANNEL_MTU=\"1472\"\nexport FLANNEL_IPMASQ=\"false\"\n",
    "FLANNEL_NETWORK='10.1.0.0/16'\r\nFLANNEL_SUBNET='10.1.74.1/24'\r\nFLANNEL_MTU='1472'\r\nFLANNEL_IPMASQ='false'\r\n",
    "# FLANNEL_SUBNET=10.9.9.1/24\nexport PATH\n  export\tFLANNEL_NETWORK=10.1.0.0/16 # all pods\n FLANNEL_SUBNET=\"10.1.74.1/24\" # ours\nFLANNEL_MTU=9\nFLANNEL_MTU=1472 # the last one counts\nFLANNEL_IPMASQ=false",
];

#[test]
fn exported_quoted_and_commented_lines_are_read_as_a_shell_reads_them() {
    for text in SPELLINGS {
        assert_eq!(parse(text), parse(SPELLINGS[0]), "{text}");
    }
    assert_eq!(parse(SPELLINGS[0]).to_string(), SPELLINGS[0]);
}

#[test]
fn mk_docker_opts_writes_upstreams_five_outputs_however_subnet_env_is_spelt() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/mk-docker-opts.sh");
    let directory = tempfile::tempdir().unwrap();
    let (env, out) = (directory.path().join("subnet.env"), directory.path().join("docker_opts.env"));
    let (bip, masq, mtu) = (
        "DOCKER_OPT_BIP=\"--bip=10.1.74.1/24\"\n",
        "DOCKER_OPT_IPMASQ=\"--ip-masq=true\"\n",
        "DOCKER_OPT_MTU=\"--mtu=1472\"\n",
    );
    let all = "=\" --bip=10.1.74.1/24 --ip-masq=true --mtu=1472\"\n";
    for text in SPELLINGS {
        std::fs::write(&env, text).unwrap();
        for (flags, wanted) in [
            (vec![], format!("{bip}{masq}{mtu}DOCKER_OPTS{all}")),
            (vec!["-i"], format!("{bip}{masq}{mtu}")),
            (vec!["-c"], format!("DOCKER_OPTS{all}")),
            (vec!["-k", "CUSTOM_KEY"], format!("{bip}{masq}{mtu}CUSTOM_KEY{all}")),
            (vec!["-m"], format!("{bip}{mtu}DOCKER_OPTS=\" --bip=10.1.74.1/24 --mtu=1472\"\n")),
        ] {
            let mut command = Command::new("sh");
            command.arg(&script).arg("-f").arg(&env).arg("-d").arg(&out).args(&flags);
            let done = command.env_remove("DOCKER_OPTS").env_remove("CUSTOM_KEY").output().unwrap();
            assert!(done.status.success(), "{text}{}", String::from_utf8_lossy(&done.stderr));
            assert_eq!(std::fs::read_to_string(&out).unwrap(), wanted, "{flags:?} {text}");
        }
    }
}
