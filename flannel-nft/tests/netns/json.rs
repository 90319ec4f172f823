//! JSON against nft: what `nft -j list ruleset` prints is read and written again as it is.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use flannel_nft::*;
use serde_json::{Value, json};
use testkit::{causes, in_netns, may_make_namespaces, sh, try_sh};

use crate::corpus::{load, nft_files, sections, version};

/// The objects that `nft -j list ruleset` prints.
fn listed() -> Result<Vec<Value>, String> {
    let text = try_sh("nft -j list ruleset 2>/dev/null").map_err(|error| error.to_string())?;
    let mut document: Value = serde_json::from_str(&text).unwrap();
    let objects = document["nftables"].as_array_mut().unwrap();
    objects.remove(0); // metainfo
    Ok(std::mem::take(objects))
}

fn printed(ruleset: &Ruleset) -> Vec<Value> {
    let document: Value = serde_json::from_str(&json::print(ruleset, version())).unwrap();
    document["nftables"].as_array().unwrap().clone()
}

fn document(objects: &[Value]) -> String {
    json!({ "nftables": objects }).to_string()
}

fn is_rule(object: &&Value) -> bool {
    object.get("rule").is_some()
}

/// Without some properties, wherever they are.
fn without(object: &Value, names: &[&str]) -> Value {
    match object {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(name, _)| !names.contains(&name.as_str()));
            kept.map(|(name, field)| (name.clone(), without(field, names))).collect()
        }
        Value::Array(items) => items.iter().map(|item| without(item, names)).collect(),
        other => other.clone(),
    }
}

/// Without lifetimes, which pass while they are read.
fn lasting(object: &Value) -> Value {
    without(object, &["expires"])
}

/// The same with the elements of named sets in order: the kernel returns them as its table has them.
fn comparable(object: &Value) -> String {
    let mut object = without(object, &["handle", "expires"]);
    if version() == NftVersion::V1_0
        && let Some(chain) = object.get_mut("chain").and_then(Value::as_object_mut)
    {
        chain.remove("dev");
    }
    let inner = object.as_object_mut().and_then(|object| object.values_mut().next());
    if let Some(elements) = inner.and_then(|inner| inner.get_mut("elem")).and_then(Value::as_array_mut) {
        elements.sort_by_key(Value::to_string);
    }
    object.to_string()
}

#[derive(Default)]
struct Tally {
    /// Objects, of which rules.
    objects: usize,
    rules: usize,
    /// What this crate prints otherwise than nft.
    printed: String,
    /// What is not the same after reading and writing.
    copied: String,
}

impl Tally {
    fn percent(&self, failures: &str) -> f64 {
        let count = |number: usize| f64::from(u32::try_from(number).unwrap());
        100.0 - 100.0 * count(failures.matches("nft:").count()) / count(self.objects)
    }
}

/// Compares what the kernel of this namespace holds.
fn check(tally: &mut Tally) {
    let theirs = listed().unwrap();
    let mut kernel = Netlink::open().unwrap();
    let tables = kernel.tables().unwrap();
    let observed = kernel.observe(&tables).unwrap();
    let ours = printed(&observed.ruleset);
    tally.objects += theirs.len();
    tally.rules += theirs.iter().filter(is_rule).count();
    let (mut own, mut others) = (ours.iter(), theirs.iter());
    loop {
        match (own.next(), others.next()) {
            (None, None) => break,
            (a, b) if a.map(lasting) == b.map(lasting) => {}
            (a, b) => {
                let text = |value: Option<&Value>| value.map_or_else(String::new, Value::to_string);
                writeln!(tally.printed, "nft: {}\n     {}", text(b), text(a)).unwrap();
            }
        }
    }
    copy(&theirs, tally);
}

/// nft 1.0.6 does not print the device of a chain, without which there is no copy: all that the tests use is `lo`.
fn with_device(chain: &Value) -> Value {
    let mut object = chain.clone();
    if let Some(chain) = object.get_mut("chain").and_then(Value::as_object_mut)
        && chain.get("hook").is_some_and(|hook| hook == "ingress" || hook == "egress")
        && version() == NftVersion::V1_0
    {
        chain.insert("dev".to_owned(), json!("lo"));
    }
    object
}

fn copy(theirs: &[Value], tally: &mut Tally) {
    // A rule at a time, so that an error is about that rule.
    let mut bare = Vec::new();
    for object in theirs.iter().filter(|object| !is_rule(object)).map(with_device) {
        bare.push(object.clone());
        // Elements of a map refer to chains.
        if let Err(error) = json::parse(&document(&bare)) {
            bare.pop();
            writeln!(tally.copied, "nft: {object}\n     {error}").unwrap();
        }
    }
    let mut read = bare.clone();
    for rule in theirs.iter().filter(is_rule) {
        let one: Vec<Value> = bare.iter().chain([rule]).cloned().collect();
        match json::parse(&document(&one)) {
            Ok(_) => read.push(rule.clone()),
            Err(error) => writeln!(tally.copied, "nft: {rule}\n     {error}").unwrap(),
        }
    }
    let rules: Vec<Value> = read.split_off(bare.len());
    let all: Vec<Value> = bare.iter().chain(&rules).cloned().collect();
    if compare(&all, tally).is_ok() {
        return;
    }
    if let Err(error) = compare(&bare, tally) {
        return writeln!(tally.copied, "nft: {}\n     {error}", document(&bare)).unwrap();
    }
    for rule in rules {
        let one: Vec<Value> = bare.iter().chain([&rule]).cloned().collect();
        if let Err(error) = compare(&one, tally) {
            writeln!(tally.copied, "nft: {rule}\n     {error}").unwrap();
        }
    }
}

/// Converges an empty namespace to the objects and compares what nft prints there.
fn compare(objects: &[Value], tally: &mut Tally) -> Result<(), String> {
    let ruleset = json::parse(&document(objects)).map_err(|error| error.to_string())?;
    let copied = in_netns(|| {
        sh("ip link set lo up");
        let mut kernel = Netlink::open().unwrap();
        converge(&mut kernel, &ruleset).map_err(|error| causes(&error))?;
        match converge(&mut kernel, &ruleset) {
            Ok(Outcome::Unchanged { .. }) => listed(),
            Ok(_) => {
                let observed = kernel.observe(&ruleset.scope()).unwrap();
                Err(format!("changed again: {}", diff(&ruleset, &observed)))
            }
            Err(error) => Err(causes(&error)),
        }
    });
    let copied: Vec<String> = copied.unwrap()?.iter().map(comparable).collect();
    let known: BTreeSet<&String> = copied.iter().collect();
    for (place, object) in objects.iter().enumerate() {
        if !known.contains(&comparable(object)) {
            let got = copied.get(place).map_or("", String::as_str);
            writeln!(tally.copied, "nft: {object}\n     {got}").unwrap();
        }
    }
    Ok(())
}

fn measure() -> Tally {
    let mut tally = Tally::default();
    for section in sections() {
        tally = in_netns(|| {
            let mut tally = std::mem::take(&mut tally);
            sh("ip link set lo up");
            load(&section);
            check(&mut tally);
            tally
        })
        .unwrap();
    }
    for file in ["tests/rulesets", "tests/preserve"].iter().flat_map(|folder| nft_files(folder)) {
        tally = in_netns(|| {
            let mut tally = std::mem::take(&mut tally);
            sh(&format!("ip link set lo up; nft -f {}", file.display()));
            check(&mut tally);
            tally
        })
        .unwrap();
    }
    eprintln!(
        "{} objects, {} rules: printed as nft does {:.1} %, the same after a copy {:.1} %",
        tally.objects,
        tally.rules,
        tally.percent(&tally.printed),
        tally.percent(&tally.copied),
    );
    tally
}

/// nft 1.0.6; other versions print some differently.
#[test]
fn json_of_nft_is_read_and_printed_as_it_is() {
    if may_make_namespaces() && sh("nft --version").contains("1.0.6") {
        let tally = measure();
        testkit::golden("tests/json/printed.txt", &tally.printed);
        testkit::golden("tests/json/copied.txt", &tally.copied);
    }
}

/// `make test-compat` runs it with each version.
#[test]
#[ignore = "for other versions of nft: make test-compat"]
fn json_of_this_nft_is_read_and_printed() {
    let tally = measure();
    if std::env::var_os("SHOW").is_some() {
        eprintln!("{}\n== copied\n{}", tally.printed, tally.copied);
    }
    assert!(tally.percent(&tally.printed) >= 95.0, "{}", tally.printed);
    assert!(tally.percent(&tally.copied) >= 95.0, "{}", tally.copied);
}
