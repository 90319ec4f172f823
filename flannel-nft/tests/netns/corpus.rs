//! Every statement form of nft(8): what nft writes is understood, and displayed as nft displays it.
//!
//! A file in `tests/corpus` has sections, separated by `---`: a line with the family, the name `t`
//! and the definition of a base chain; lines with `> ` for sets, maps and objects of the table; and
//! a rule in each other line. A rule that this kernel or this nft refuses is skipped.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use flannel_nft::*;
use testkit::{kernel_version, netns, sh, try_sh};

/// The version in whose form this nft prints.
pub(crate) fn version() -> NftVersion {
    if sh("nft --version").contains("v1.0.") { NftVersion::V1_0 } else { NftVersion::V1_1 }
}

/// Runs each line as a transaction of its own, in one process: processes that start keep the sockets of other tests
/// open for a moment, and with them the tables that these own.
fn nft(script: &str) {
    let mut child = Command::new("nft")
        .arg("-i")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    child.wait().unwrap();
}

/// The rules of chain `c` as nft lists them, by handle.
fn listed(family: &str) -> BTreeMap<u64, String> {
    let list = sh(&format!("nft -a list chain {family} t c"));
    let lines = list.lines().filter_map(|line| line.strip_prefix("\t\t")?.rsplit_once(" # handle "));
    lines.filter_map(|(rule, handle)| Some((handle.parse().ok()?, rule.to_owned()))).collect()
}

#[derive(Default)]
struct Tally {
    rules: usize,
    refused: usize,
    different: String,
    opaque: String,
}

/// Has nft write a section to the kernel. Returns the family and the number of rules.
pub(crate) fn load(section: &str) -> (Family, usize) {
    load_with(section, |base| format!("{{ {base}; }}"))
}

/// The same with a regular chain, in which the kernel accepts statements for all hooks.
pub(crate) fn load_regular(section: &str) -> Family {
    load_with(section, |_| String::new()).0
}

fn load_with(section: &str, chain: impl Fn(&str) -> String) -> (Family, usize) {
    let lines: Vec<&str> =
        section.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let (head, lines) = lines.split_first().unwrap();
    let (family, base) = head.strip_prefix("table ").and_then(|head| head.split_once(" t ")).unwrap();
    let (objects, rules): (Vec<&str>, Vec<&str>) = lines.iter().partition(|line| line.starts_with("> "));
    let mut script = format!("flush ruleset\nadd table {family} t\n");
    for object in objects {
        let (kind, definition) = object.trim_start_matches("> ").split_once(' ').unwrap();
        writeln!(script, "add {kind} {family} t {}", definition.trim_start()).unwrap();
    }
    writeln!(script, "add chain {family} t c {}", chain(base)).unwrap();
    rules.iter().for_each(|rule| writeln!(script, "add rule {family} t c {rule}").unwrap());
    nft(&script);
    (family_of(family), rules.len())
}

fn check(section: &str, tally: &mut Tally) {
    let (family, rules) = load(section);
    let mut kernel = Netlink::open().unwrap();
    let id = TableId::new(family, TableName::new("t").unwrap());
    let observed = kernel.observe(&[id]).unwrap();
    let table = observed.ruleset.tables().first().unwrap();
    let text = version().display(table).to_string();
    let Some((_, chain)) = text.split_once("chain c {\n") else {
        tally.refused += rules;
        return;
    };
    let ours: Vec<&str> = chain.lines().skip(1).take_while(|line| *line != "\t}").collect();
    let theirs = listed(family.name());
    let found = table.chains().iter().find(|chain| chain.name().as_str() == "c").unwrap();
    tally.refused += rules - found.list().len();
    for (rule, text) in found.list().iter().zip(ours) {
        let Some(expected) = theirs.get(&rule.handle().unwrap().number()) else { continue };
        tally.rules += 1;
        let text = text.strip_prefix("\t\t").unwrap();
        if text != expected || !rule.is_understood() {
            writeln!(tally.different, "{family}: {expected}\n      {text}").unwrap();
        }
        let has_unknown = rule.statements().any(|found| matches!(found, StatementView::Unknown(_)));
        assert_eq!(rule.is_understood(), !has_unknown, "{expected}");
        if !rule.is_understood() {
            writeln!(tally.opaque, "{family}: {expected}").unwrap();
        }
    }
}

fn family_of(name: &str) -> Family {
    [Family::Arp, Family::Bridge, Family::Inet, Family::Ip, Family::Ip6, Family::Netdev]
        .into_iter()
        .find(|family| family.name() == name)
        .unwrap()
}

/// The sections of all files.
pub(crate) fn sections() -> Vec<String> {
    let texts = nft_files("tests/corpus").into_iter().map(|file| std::fs::read_to_string(file).unwrap());
    texts.flat_map(|text| text.split("\n---\n").map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// The files of a folder that end in `.nft`.
pub(crate) fn nft_files(folder: &str) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|file| file.extension().is_some_and(|end| end == "nft")).collect();
    files.sort();
    files
}

fn measure() -> Tally {
    sh("ip link set lo up");
    let mut tally = Tally::default();
    sections().iter().for_each(|section| check(section, &mut tally));
    let different = tally.different.lines().count() / 2;
    eprintln!("{} rules, {different} differ, {} refused", tally.rules, tally.refused);
    tally
}

/// Whether this nft is one of the two that this crate displays like: versions between them sort sets differently and
/// print some statements as 1.0.6 does.
pub(crate) fn is_displayed() -> bool {
    let nft = sh("nft --version");
    nft.contains("v1.0.6") || !["v0.", "v1.0.", "v1.1.3"].iter().any(|other| nft.contains(other))
}

/// Compares what this crate displays otherwise than nft with what is known.
fn compare(different: &str) {
    let known = if version() == NftVersion::V1_0 { "different-1.0.txt" } else { "different-1.1.txt" };
    if is_displayed() {
        testkit::golden(format!("tests/corpus/{known}"), different);
    }
}

#[test]
fn every_statement_of_nft_is_understood_and_displayed_as_nft_does() {
    netns(|| compare(&measure().different));
}

/// Rulesets in the form of kube-proxy's, firewalld's, Docker's, netavark's and Calico's, and of a host firewall.
#[test]
fn rulesets_of_other_programs_are_understood_and_displayed_as_nft_does() {
    let (mut opaque, mut different) = (Vec::new(), Vec::new());
    let mut files: Vec<_> =
        std::fs::read_dir("tests/rulesets").unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        let loaded = testkit::in_netns(|| {
            if let Err(refused) = try_sh(&format!("nft -f {}", file.display())) {
                assert!(kernel_version() < (6, 1), "{refused}");
                return None;
            }
            let mut kernel = Netlink::open().unwrap();
            let tables = kernel.tables().unwrap();
            Some((sh("nft list ruleset"), kernel.observe(&tables).unwrap()))
        });
        let Some((listed, observed)) = loaded.unwrap() else { continue };
        let rules = observed.ruleset.tables().iter().flat_map(Table::chains).flat_map(Chain::list);
        opaque.extend(rules.filter(|rule| !rule.is_understood()).map(Rule::to_string));
        let text = version().display(&observed.ruleset).to_string();
        let lines = listed.lines().zip(text.lines()).filter(|(listed, ours)| listed != ours);
        different.extend(lines.map(|(listed, ours)| format!("{listed}\n{ours}")));
    }
    assert_eq!(opaque.join("\n"), "");
    if is_displayed() {
        assert_eq!(different.join("\n"), "");
    }
}

/// Other versions of nft make other expressions of some statements. `make test-compat` runs it with each.
#[test]
#[ignore = "for other versions of nft: make test-compat"]
fn every_statement_of_this_nft_is_understood_and_displayed() {
    netns(|| {
        let tally = measure();
        compare(&tally.different);
        assert_eq!(tally.opaque, "");
    });
}

/// nft 1.1 and newer compare a range with one expression.
#[test]
fn a_range_in_one_expression_is_understood() {
    let number = |number: u32| number.to_be_bytes();
    // NFTA_DATA_VALUE: length 6, type 1, two bytes and padding.
    let value = |port: u16| [&[6, 0, 1, 0][..], &port.to_be_bytes(), &[0, 0]].concat();
    let load = RawExpression::new("payload")
        .attribute(1, &number(1)) // NFTA_PAYLOAD_DREG: NFT_REG_1
        .attribute(2, &number(2)) // NFTA_PAYLOAD_BASE: NFT_PAYLOAD_TRANSPORT_HEADER
        .attribute(3, &number(2)) // NFTA_PAYLOAD_OFFSET
        .attribute(4, &number(2)); // NFTA_PAYLOAD_LEN
    let range = RawExpression::new("range")
        .attribute(1, &number(1)) // NFTA_RANGE_SREG: NFT_REG_1
        .attribute(2, &number(0)) // NFTA_RANGE_OP: NFT_RANGE_EQ
        .attribute(3, &value(22))
        .attribute(4, &value(80));
    let id = TableId::new(Family::Inet, TableName::new("t").unwrap());
    let chain = Chain::regular(ChainName::new("c").unwrap())
        .rule(Rule::new().when(meta::l4proto(Protocol::TCP)).raw(load).raw(range).accept());
    let desired = Ruleset::new().table(Table::new(Family::Inet, id.name.clone()).chain(chain));
    netns(move || {
        let mut kernel = Netlink::open().unwrap();
        converge(&mut kernel, &desired).unwrap();
        let observed = kernel.observe(&[id]).unwrap();
        let rule = &observed.ruleset.tables()[0].chains()[0].list()[0];
        assert!(rule.is_understood());
        assert_eq!(rule.to_string(), "tcp dport 22-80 accept");
        assert!(sh("nft list ruleset").contains("tcp dport 22-80 accept"));
        assert!(matches!(converge(&mut kernel, &desired).unwrap(), Outcome::Unchanged { .. }));
    });
}
