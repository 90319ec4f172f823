//! A ruleset of the user's: `nft -j list ruleset` of any host, swapped, changed and left alone.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use flannel_benches::{Case, OURS, Report};
use flannel_nft::{
    ChainName, Comment, Handle, Kernel as _, Netlink, RetainedRuleset, Rule, Ruleset, TableId, Transaction,
    converge, observe,
};
use serde_json::{Value, json};
use testkit::{in_netns, sh, try_sh};

use crate::timed;

/// Drops packets to the discard port before any rule of the user's. While the ruleset is there, such a packet is not
/// sent; while it is not, it is.
const PROBE: &str = "table inet flannel-bench-probe {
\tchain output { type filter hook output priority -2147483648; udp dport 9 drop; }
}
";

/// # Errors
/// The file cannot be read, or nft cannot load it here.
pub(crate) fn measure(path: &Path) -> Result<(), String> {
    let listing =
        fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let listing: Value = serde_json::from_str(&listing)
        .map_err(|error| format!("{} is not the output of `nft -j list ruleset`: {error}", path.display()))?;
    in_netns(|| in_namespace(&listing)).map_err(|error| error.to_string())?
}

fn in_namespace(listing: &Value) -> Result<(), String> {
    for device in devices(listing) {
        try_sh(&format!("ip link add '{device}' type dummy")).map_err(|error| error.to_string())?;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (text, json) = (file("ruleset.nft"), file("ruleset.json"));
    fs::write(&json, loadable(listing).to_string()).unwrap();
    try_sh(&format!("nft -j -f {json}")).map_err(|error| format!("nft cannot load the ruleset: {error}"))?;
    fs::write(&text, PROBE).unwrap();
    sh(&format!("nft -f {text}"));

    let listed = || sh("nft -s list ruleset");
    let expected = listed();
    fs::write(&text, format!("flush ruleset\n{expected}")).unwrap();
    let mut objects = loadable(&serde_json::from_str(&sh("nft -s -j list ruleset")).unwrap());
    objects["nftables"].as_array_mut().unwrap().insert(0, json!({ "flush": { "ruleset": null } }));
    fs::write(&json, objects.to_string()).unwrap();

    let kernel = RefCell::new(Netlink::open().unwrap());
    let tables = kernel.borrow_mut().tables().unwrap();
    let ruleset = observe(&mut *kernel.borrow_mut(), &tables).map_err(|error| error.to_string())?.ruleset;
    let rules: usize =
        ruleset.tables().iter().flat_map(|table| table.chains()).map(|chain| chain.list().len()).sum();
    let ours = || {
        timed(|| {
            let mut transaction = Transaction::unchecked();
            ruleset.tables().iter().for_each(|table| transaction.replace(table));
            transaction.seal().unwrap().commit(&mut *kernel.borrow_mut()).unwrap();
        })
    };
    let run = |command: String| move || timed(|| drop(sh(&command)));
    let nft = run(format!("exec nft -f {text}"));
    let nft_json = run(format!("exec nft -j -f {json}"));
    let flush_and_load = run(format!("nft flush ruleset; exec nft -f {text}"));
    let ways: [(&str, &dyn Fn() -> Duration); 4] = [
        (OURS, &ours),
        ("nft -f", &nft),
        ("nft -j -f", &nft_json),
        ("nft flush ruleset; nft -f", &flush_and_load),
    ];
    let mut slowest = Duration::ZERO;
    for (way, swap) in ways {
        slowest = slowest.max(swap());
        if listed() != expected {
            return Err(format!(
                "{way} does not restore the ruleset: `nft -s list ruleset` differs afterwards"
            ));
        }
    }

    let mut report = Report::new("own ruleset", "");
    let n = u64::try_from(rules).unwrap();
    let rounds = if slowest > Duration::from_secs(1) { 5 } else { 30 };
    let cases = ways.into_iter().map(|(way, swap)| -> Case<'_> { (way, Box::new(swap)) }).collect();
    report.race("whole-ruleset swap", n, rounds, cases);
    if let Some(last) = LastRule::of(&ruleset) {
        one_rule(&mut report, n, rounds, &kernel, &last, folder.path());
    }

    // The swaps above made other handles.
    converge(&mut *kernel.borrow_mut(), &ruleset).unwrap();
    let mut retained = RetainedRuleset::new(ruleset.clone());
    retained.reconcile(&mut *kernel.borrow_mut()).unwrap();
    let cases: Vec<Case<'_>> = vec![
        (OURS, Box::new(|| timed(|| assert!(retained.reconcile(&mut *kernel.borrow_mut()).is_ok())))),
        (
            "ours, by reading all and comparing",
            Box::new(|| timed(|| assert!(converge(&mut *kernel.borrow_mut(), &ruleset).is_ok()))),
        ),
    ];
    report.race("nothing to do", n, rounds, cases);
    gaps(&mut report, n, rounds.min(10), &ways);
    Ok(())
}

/// The listing in an order that nft can load: nft lists verdict maps before the chains that they name.
fn loadable(listing: &Value) -> Value {
    let mut objects = listing["nftables"].as_array().cloned().unwrap_or_default();
    let order = |object: &Value| match object {
        object if object.get("metainfo").is_some() => 0,
        object if object.get("table").is_some() => 1,
        object if object.get("chain").is_some() => 2,
        object if object.get("rule").is_some() => 4,
        _ => 3,
    };
    objects.sort_by_key(order);
    json!({ "nftables": objects })
}

/// The devices that chains and flowtables need.
fn devices(listing: &Value) -> Vec<String> {
    let objects = listing["nftables"].as_array().into_iter().flatten();
    let named = objects.flat_map(|object| [&object["chain"]["dev"], &object["flowtable"]["dev"]]);
    let mut devices: Vec<String> = named
        .flat_map(|dev| match dev {
            Value::Array(several) => several.iter().collect(),
            one => vec![one],
        })
        .filter_map(|dev| dev.as_str().map(str::to_owned))
        .filter(|dev| dev != "lo" && !dev.contains(['*', '\'']))
        .collect();
    devices.sort();
    devices.dedup();
    devices
}

/// The last rule of the longest chain.
struct LastRule {
    table: TableId,
    chain: ChainName,
    rule: Rule,
}

impl LastRule {
    fn of(ruleset: &Ruleset) -> Option<Self> {
        let chains =
            ruleset.tables().iter().flat_map(|table| table.chains().iter().map(move |chain| (table, chain)));
        let (table, chain) = chains.max_by_key(|(_, chain)| chain.list().len())?;
        let rule = chain.list().last()?.clone();
        Some(Self { table: table.id().clone(), chain: chain.name().clone(), rule })
    }
}

/// The rule is replaced by itself with another comment. Its handle is asked for beforehand, which is not timed.
fn one_rule(
    report: &mut Report,
    n: u64,
    rounds: usize,
    kernel: &RefCell<Netlink>,
    last: &LastRule,
    folder: &Path,
) {
    let LastRule { table, chain, rule } = last;
    let rules =
        ["round", "round the other way"].map(|text| rule.clone().comment(Comment::new(text).unwrap()));
    let turn = Cell::new(0_usize);
    let handle = || -> Handle {
        turn.set(1 - turn.get());
        *kernel.borrow_mut().rule_handles(table, chain).unwrap().last().unwrap()
    };
    let replace = |handle| {
        let mut transaction = Transaction::unchecked();
        transaction.replace_rule(table, chain, handle, &rules[turn.get()]);
        transaction
    };
    let script = folder.join("one");
    let listed: Value = serde_json::from_str(&sh(&format!("nft -j list chain {table} {chain}"))).unwrap();
    let mut found = listed["nftables"].as_array().unwrap().iter().filter(|object| object["rule"].is_object());
    let in_json = RefCell::new(found.next_back().unwrap()["rule"].clone());
    let cases: Vec<Case<'_>> = vec![
        (
            OURS,
            Box::new(|| {
                let old = handle();
                timed(|| assert!(replace(old).seal().unwrap().commit(&mut *kernel.borrow_mut()).is_ok()))
            }),
        ),
        (
            "nft -f",
            Box::new(|| {
                fs::write(&script, replace(handle()).to_string()).unwrap();
                timed(|| drop(sh(&format!("exec nft -f {}", script.display()))))
            }),
        ),
        (
            "nft -j -f",
            Box::new(|| {
                let mut rule = in_json.borrow_mut();
                rule["handle"] = json!(handle().number());
                rule["comment"] = json!(if turn.get() == 0 { "round" } else { "round the other way" });
                let command = json!({ "nftables": [{ "replace": { "rule": &*rule } }] });
                fs::write(&script, command.to_string()).unwrap();
                timed(|| drop(sh(&format!("exec nft -j -f {}", script.display()))))
            }),
        ),
    ];
    report.race("one rule changed", n, rounds, cases);
}

/// How long packets find no rule during a swap: another thread sends packets without pause, and each that is not dropped
/// adds the time since the packet before it.
fn gaps(report: &mut Report, n: u64, rounds: usize, ways: &[(&str, &dyn Fn() -> Duration)]) {
    let (gap, packets, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let send = || -> io::Result<()> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let mut before = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let sent = socket.send_to(&[0], "127.0.0.1:9").is_ok();
            let now = Instant::now();
            if sent {
                let passed = u64::try_from((now - before).as_nanos()).unwrap_or(u64::MAX);
                gap.fetch_add(passed, Ordering::Relaxed);
            }
            packets.fetch_add(1, Ordering::Relaxed);
            before = now;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let sender = scope.spawn(send);
        for (way, swap) in ways {
            let mut taken: Vec<f64> = (0..rounds)
                .map(|_| {
                    let before = gap.load(Ordering::Relaxed);
                    swap();
                    f64::from(u32::try_from(gap.load(Ordering::Relaxed) - before).unwrap_or(u32::MAX)) / 1e3
                })
                .collect();
            report.figure("swap: packets find no rule", way, n, "us", &mut taken);
        }
        stop.store(true, Ordering::Relaxed);
        sender.join().unwrap().unwrap();
    });
    assert!(packets.into_inner() > 0, "no packet was sent");
}
