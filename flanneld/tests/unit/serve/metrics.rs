use std::collections::BTreeMap;

use flanneld::serve::metrics::{FAMILIES, Format, Kind, render};
use flanneld::status::model::Status;
use testkit::golden;

use crate::serve::sample;

#[test]
fn both_formats_are_as_reviewed() {
    golden("tests/unit/serve/golden/metrics.openmetrics", &render(&sample(), Format::OpenMetrics));
    golden("tests/unit/serve/golden/metrics.prom", &render(&sample(), Format::Classic));
}

#[test]
fn the_document_names_the_metrics_that_there_are_and_no_others() {
    let document = std::fs::read_to_string("../docs/metrics.md").unwrap();
    let described: BTreeMap<String, String> = document
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split('|');
            let name = cells.next()?.trim().trim_end_matches('`').to_owned();
            Some((name, cells.next()?.trim().to_owned()))
        })
        .collect();
    let made: BTreeMap<String, String> =
        FAMILIES.iter().map(|family| (family.sample(), family.kind.name().to_owned())).collect();
    assert_eq!(described, made, "docs/metrics.md against flanneld/src/serve/metrics.rs");
}

#[test]
fn names_and_sentences_follow_the_conventions() {
    for family in FAMILIES {
        assert!(!family.name.ends_with("_total") && !family.name.ends_with("_info"), "{}", family.name);
        assert!(family.help.ends_with('.') && !family.help.contains(['\n', '\\']), "{}", family.help);
        if family.kind == Kind::Histogram {
            assert!(family.name.ends_with("_seconds"), "{}", family.name);
        }
    }
}

#[test]
fn every_family_has_a_sample_on_a_node_with_everything() {
    let text = render(&sample(), Format::Classic);
    for family in FAMILIES {
        let name = family.sample();
        let has = text.lines().any(|line| line.strip_prefix(&name).is_some_and(|rest| !rest.is_empty()));
        assert!(has, "{name} has no sample");
    }
}

#[test]
fn a_label_cannot_break_out_of_its_quotes() {
    let status = Status { version: "1\"} 1\nevil 1 \\".to_owned(), ..Status::default() };
    let text = render(&status, Format::OpenMetrics);
    let sample = text.lines().find(|line| line.starts_with("flanneld_build_info")).unwrap();
    assert!(sample.contains(r#"version="1\"} 1\nevil 1 \\""#), "{sample}");
}

#[test]
fn who_asks_for_plain_text_alone_gets_the_classic_format() {
    let prometheus =
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
    assert_eq!(Format::accepted("*/*"), Format::OpenMetrics);
    assert_eq!(Format::accepted(""), Format::OpenMetrics);
    assert_eq!(Format::accepted("text/plain;version=0.0.4, */*;q=0.1"), Format::Classic);
}
