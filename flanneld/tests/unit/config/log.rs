use std::sync::{Arc, Mutex};

use flanneld::logging::{Lines, LogFormat, LogOptions};
use tracing_subscriber::layer::SubscriberExt;

/// What is logged under `options` while `work` runs.
fn logged(options: LogOptions, work: impl FnOnce()) -> String {
    let lines = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&lines);
    let layer = Lines::new(options, move |_, line: &str| sink.lock().unwrap().push_str(line));
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
    let lines = lines.lock().unwrap();
    lines.clone()
}

fn some_events() {
    tracing::error!(target: "flanneld", "E {}", 1);
    tracing::warn!(target: "flanneld", peer = "a b", "W");
    tracing::info!(target: "flanneld", subnet = %"10.0.0.0/24", steps = 3, "I");
    tracing::debug!(target: "flanneld", "D");
    tracing::trace!(target: "flanneld", "T");
    tracing::info!(target: "hyper", "foreign");
}

#[test]
fn text_lines_are_klogs() {
    let text = logged(LogOptions::default(), some_events);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    for (line, (letter, end)) in
        lines.iter().zip([('E', "] E 1"), ('W', "] W peer=\"a b\""), ('I', "] I subnet=10.0.0.0/24 steps=3")])
    {
        assert!(line.starts_with(letter) && line.ends_with(end) && line.contains(" log.rs:"), "{line}");
        // I1121 00:24:05.469002   11106 main.go:228] text
        let shape: String = line.chars().take(21).map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
        assert_eq!(shape.get(1..), Some("9999 99:99:99.999999"), "{line}");
    }
}

#[test]
fn each_verbosity_adds_its_level_and_files_can_have_their_own() {
    for (verbosity, count) in [(-1, 3), (0, 3), (1, 3), (2, 4), (4, 5), (5, 6)] {
        let text = logged(LogOptions { verbosity, ..LogOptions::default() }, some_events);
        assert_eq!(text.lines().count(), count, "-v={verbosity}: {text}");
    }
    let options = LogOptions { verbosity: 9, vmodule: "l*g=2".parse().unwrap(), ..LogOptions::default() };
    assert_eq!(logged(options, some_events).lines().count(), 4);
}

#[test]
fn errors_of_a_library_are_logged_only_from_verbosity_2() {
    let complaint =
        || tracing::error!(target: "kube_client::client::builder", "failed with error client error");
    assert_eq!(logged(LogOptions::default(), complaint), "");
    let text = logged(LogOptions { verbosity: 2, ..LogOptions::default() }, complaint);
    assert!(text.starts_with('E') && text.ends_with("failed with error client error\n"), "{text}");
}

#[test]
fn json_lines_are_objects_with_the_same_fields() {
    let text = logged(LogOptions { format: LogFormat::Json, ..LogOptions::default() }, some_events);
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((last["level"].as_str(), last["msg"].as_str()), (Some("info"), Some("I")));
    assert_eq!((last["steps"].as_i64(), last["subnet"].as_str()), (Some(3), Some("10.0.0.0/24")));
    assert!(
        last["ts"].as_str().unwrap().ends_with('Z')
            && last["caller"].as_str().unwrap().starts_with("log.rs:")
    );
}

#[test]
fn one_source_line_can_be_asked_for_its_stack() {
    let (line, say) = (line!(), || tracing::info!(target: "flanneld", "here"));
    let options =
        LogOptions { backtrace_at: Some(format!("log.rs:{line}").parse().unwrap()), ..LogOptions::default() };
    let text = logged(options, say);
    assert!(text.contains("] here backtrace="), "{text}");
    assert_eq!(text.lines().count(), 1);
}
