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
use testkit::{netns, sh};

fn nft(script: &str) -> bool {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    child.wait().unwrap().success()
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
}

fn check(section: &str, tally: &mut Tally) {
    let lines: Vec<&str> =
        section.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let (head, lines) = lines.split_first().unwrap();
    let (family, base) = head.strip_prefix("table ").and_then(|head| head.split_once(" t ")).unwrap();
    let (objects, rules): (Vec<&str>, Vec<&str>) = lines.iter().partition(|line| line.starts_with("> "));
    let objects: String = objects.iter().fold(String::new(), |text, line| text + &line[2..] + "\n");
    if !nft(&format!("flush ruleset; table {family} t {{\n{objects} chain c {{ {base}; }}\n}}")) {
        tally.refused += rules.len();
        return;
    }
    for rule in &rules {
        tally.refused += usize::from(!nft(&format!("add rule {family} t c {rule}")));
    }
    let mut kernel = Netlink::open().unwrap();
    let id = TableId::new(family_of(family), TableName::new("t").unwrap());
    let observed = kernel.observe(&[id]).unwrap();
    let table = observed.ruleset.tables().first().unwrap();
    let text = table.to_string();
    let (_, chain) = text.split_once("chain c {\n").unwrap();
    let ours: Vec<&str> = chain.lines().skip(1).take_while(|line| *line != "\t}").collect();
    let theirs = listed(family);
    let found = table.chains().iter().find(|chain| chain.name().as_str() == "c").unwrap();
    for (rule, text) in found.list().iter().zip(ours) {
        let Some(expected) = theirs.get(&rule.handle().unwrap().number()) else { continue };
        tally.rules += 1;
        let text = text.strip_prefix("\t\t").unwrap();
        if text != expected || !rule.is_understood() {
            writeln!(tally.different, "{family}: {expected}\n      {text}").unwrap();
        }
    }
}

fn family_of(name: &str) -> Family {
    [Family::Arp, Family::Bridge, Family::Inet, Family::Ip, Family::Ip6, Family::Netdev]
        .into_iter()
        .find(|family| family.name() == name)
        .unwrap()
}

#[test]
fn every_statement_of_nft_is_understood_and_displayed_as_nft_does() {
    netns(|| {
        sh("ip link set lo up");
        let mut files: Vec<_> =
            std::fs::read_dir("tests/corpus").unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "nft"));
        files.sort();
        let mut tally = Tally::default();
        for file in files {
            let text = std::fs::read_to_string(file).unwrap();
            text.split("\n---\n").for_each(|section| check(section, &mut tally));
        }
        let different = tally.different.lines().count() / 2;
        println!("{} rules, {different} differ, {} refused", tally.rules, tally.refused);
        testkit::golden("tests/corpus/different.txt", &tally.different);
    });
}
