//! Runs every example as its documentation says, in a network namespace.

#![allow(clippy::panic, clippy::unwrap_used, reason = "clippy.toml allows it in test functions only")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testkit::{may_make_namespaces, netns, sh, wait_for};

/// Cargo builds examples beside the folder of the tests.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let built: PathBuf = test.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(built.exists(), "cargo has not built {}", built.display());
    Command::new(built)
}

fn output(name: &str, arguments: &[&str]) -> String {
    let done = example(name).args(arguments).output().unwrap();
    let (out, error) = (String::from_utf8(done.stdout).unwrap(), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{name} {arguments:?}: {}\n{out}{error}", done.status);
    out
}

/// A program that runs until it is told to stop; ends with the test.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Waits for a line that it prints.
    fn says(&mut self, wanted: &str) {
        let mut lines = Vec::new();
        // One byte at a time, so that nothing of the next line is swallowed.
        let out = BufReader::with_capacity(1, self.0.stdout.as_mut().unwrap());
        for line in out.lines() {
            let line = line.unwrap();
            if line.contains(wanted) {
                return;
            }
            lines.push(line);
        }
        panic!("it ended without `{wanted}` after {lines:?}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn soon(what: impl Fn() -> bool) -> bool {
    wait_for(Duration::from_secs(10), || what().then_some(())).is_some()
}

#[test]
fn masquerade_needs_one_commit_and_then_none() {
    netns(|| {
        let said = output("masquerade", &["10.244.0.0/16"]);
        assert!(said.starts_with("3 changes in one commit"), "{said}");
        let rule = "ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade fully-random";
        assert!(sh("nft list table ip pods").contains(rule));
        let said = output("masquerade", &["10.244.0.0/16"]);
        assert!(said.starts_with("as it should be"), "{said}");
        let refused = example("masquerade").arg("10.244.0.1/16").output().unwrap();
        assert!(!refused.status.success(), "host bits");
    });
}

#[test]
fn watch_and_repair_undoes_what_nft_does_and_names_it() {
    netns(|| {
        let mut watcher = Running::start(&mut example("watch_and_repair"));
        watcher.says("watching");
        let before = sh("nft list ruleset");
        assert!(before.contains("tcp dport 25"), "{before}");
        let break_it = ["flush ruleset", "flush chain inet guard forward", "delete table inet guard"];
        for command in break_it {
            sh(&format!("nft {command}"));
            watcher.says("to repair what nft");
            assert_eq!(sh("nft list ruleset"), before, "after nft {command}");
        }
    });
}

#[test]
fn ip_masq_agent_follows_its_file_with_elements_only() {
    netns(|| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("non-masquerade.txt");
        fs::write(&file, "10.0.0.0/8 # ours\n\n192.168.0.0/16\n").unwrap();
        let program = format!("exec {:?} {file:?} 2>&1", example("ip_masq_agent").get_program());
        let mut agent = Running::start(Command::new("sh").args(["-c", &program]));
        agent.says("add element ip ip-masq-agent non-masquerade { 10.0.0.0/8, 192.168.0.0/16 }");
        let chain = || sh("nft -a list chain ip ip-masq-agent postrouting");
        assert!(soon(|| sh("nft list ruleset").contains("fib daddr type != local")));
        let before = chain();

        fs::write(&file, "10.0.0.0/8\n172.16.0.0/12\n").unwrap();
        agent.says("add element ip ip-masq-agent non-masquerade { 172.16.0.0/12 }");
        let set = || sh("nft list set ip ip-masq-agent non-masquerade");
        assert!(soon(|| set().contains("172.16.0.0/12") && !set().contains("192.168.0.0/16")));
        assert_eq!(chain(), before, "rules keep their handles");

        let before = set();
        fs::write(&file, "10.0.0.0/9\nnonsense\n").unwrap();
        agent.says("`nonsense`: ");
        assert_eq!(set(), before, "half a file is none");
    });
}

#[test]
fn who_drops_names_the_rule() {
    netns(|| {
        let script = "table inet guard {
    chain deny { counter packets 3 bytes 252 drop; }
    chain forward { type filter hook forward priority 0; policy accept; ip saddr 10.0.0.0/8 tcp dport 22 drop; ip saddr 10.0.0.0/8 jump deny; }
}
table ip strict {
    chain forward { type filter hook forward priority 10; policy drop; ip saddr 192.168.0.0/16 accept; }
}
table ip open {
    chain forward { type filter hook forward priority 20; policy accept; tcp sport 1 tcp dport 2 drop; }
}
";
        sh(&format!("nft -f - <<'END'\n{script}END"));
        let found = output("who_drops", &["10.244.0.0/16"]);
        let lines: Vec<&str> = found.lines().collect();
        assert_eq!(lines.len(), 4, "{found}");
        assert!(
            lines[0]
                .starts_with("chain inet guard forward: in deny: counter packets 3 bytes 252 drop # handle "),
            "{found}"
        );
        assert_eq!(lines[1], "  3 packets and 252 bytes so far");
        assert_eq!(lines[2], "chain ip strict forward: policy drop");
        let some = "chain inet guard forward drops some of its packets: ip saddr 10.0.0.0/8 tcp dport 22 drop # handle ";
        assert!(lines[3].starts_with(some), "{found}");
        let none = output("who_drops", &["fd00::/64"]);
        assert_eq!(none, "no chain on the forward hook drops fd00::/64\n");
    });
}

#[test]
fn dry_run_rules_prints_what_nft_can_run_and_changes_nothing() {
    netns(|| {
        let script = output("dry_run_rules", &[]);
        assert_eq!(sh("nft list ruleset"), "");
        sh(&format!("nft -f - <<'END'\n{script}END"));
        assert!(sh("nft list ruleset").contains("iifname \"eth0\" tcp dport { 80, 443 } accept"));
        let nothing = output("dry_run_rules", &[]);
        assert!(nothing.starts_with("# 0 changes"), "{nothing}");
    });
}

#[test]
fn dry_run_prints_commands_and_changes_nothing() {
    netns(|| {
        sh(
            "ip link add eth0 type veth peer eth1 && ip address add 192.0.2.1/24 dev eth0 && ip link set eth0 up",
        );
        let before = sh("ip -d link; ip route");
        assert!(output("dry_run", &[]).contains("ip link add flannel.1"));
        assert_eq!(sh("ip -d link; ip route"), before);
    });
}

#[test]
fn blue_green_swaps_without_a_leak() {
    if may_make_namespaces() {
        let said = output("blue_green", &[]);
        assert!(said.ends_with(": 0 lost, 0 under the pod's own address\n"), "{said}");
    }
}

#[test]
fn two_namespaces_reach_each_other() {
    if may_make_namespaces() {
        assert!(output("two_namespaces", &[]).ends_with("10.244.1.0 reaches 10.244.2.0\n"));
    }
}

#[test]
fn two_agents_that_share_a_lease_file_learn_each_others_subnets() {
    let folder = tempfile::tempdir().unwrap();
    let start = |address| {
        Running::start(example("lease_and_follow").arg(folder.path().join("leases.db")).arg(address))
    };
    let mut first = start("192.0.2.1");
    first.says("leased 10.244.");
    let mut second = start("192.0.2.2");
    second.says("via 192.0.2.1");
    first.says("via 192.0.2.2");
}

#[test]
fn from_nftables_crate() {
    netns(|| {
        let said = output("from_nftables_crate", &[]);
        assert!(said.contains("4 changes in one commit") && said.contains("has 2 statements"), "{said}");
        let listed = sh("nft list table ip forwarded-ports");
        assert!(listed.contains("tcp dport 8081 dnat to 10.88.0.3:80"), "{listed}");
        assert!(output("from_nftables_crate", &[]).starts_with("nothing to do\n"));
    });
}

#[test]
fn json_converge() {
    netns(|| {
        sh("nft 'table inet t { set s { type ipv4_addr; elements = { 10.0.0.1, 10.0.0.2 }; }; chain c { \
            type filter hook input priority 0; policy drop; ip saddr @s counter accept; tcp dport { 22, 80 } accept; }; }'");
        let file = std::env::temp_dir().join(format!("json-converge-{}.json", std::process::id()));
        let path = file.display().to_string();
        sh(&format!("nft -j list ruleset >{path}"));
        let before = sh("nft list ruleset");
        assert_eq!(output("json_converge", &[&path]), "");
        sh("nft 'delete table inet t; table ip other { }'");
        assert!(output("json_converge", &[&path]).contains("add rule inet t c tcp dport { 22, 80 } accept"));
        assert_eq!(sh("nft list table inet t"), before);
        assert_eq!(sh("nft list tables").lines().count(), 2);
        // Its own output too.
        fs::write(&file, output("json_converge", &[])).unwrap();
        assert_eq!(output("json_converge", &[&path]), "");
        fs::write(&file, "{}").unwrap();
        let refused = example("json_converge").arg(&path).output().unwrap();
        assert!(
            String::from_utf8_lossy(&refused.stderr).contains("expected an object with property `nftables`")
        );
        fs::remove_file(&file).unwrap();
    });
}
