//! The log: klog's text lines on stderr, for which guides tell people to search, or one JSON object on each line.
//!
//! Levels: errors, warnings and info always; `debug` from `-v=2`, `trace` from `-v=5`. Other people's crates are
//! quieter: warnings always, info from 4, debug from 6, trace from 10. `-vmodule` sets levels by source file.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flannel_lease::codec::{is_obeyed, printable};
use jiff::Timestamp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstat;
use regex::Regex;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::subscriber::{Interest, SetGlobalDefaultError};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;

/// What is logged, and in which form.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Form of a line.
    pub format: LogFormat,
    /// `-v`. Default: 0.
    pub verbosity: i32,
    /// `-vmodule`: other verbosities for some source files.
    pub vmodule: Vmodule,
    /// `-log_backtrace_at`: the source line whose messages get a stack trace.
    pub backtrace_at: Option<BacktraceAt>,
    /// Flags of glog that were given and have no effect, such as `logtostderr`. Default: none.
    pub glog_flags: Vec<&'static str>,
    /// The variable `JOURNAL_STREAM`: device and inode of the stream to systemd's journal (systemd.exec(5)). Default: none.
    pub journal_stream: Option<OsString>,
}

/// Form of a log line (`--log-format`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogFormat {
    /// An object with `ts` (RFC 3339, UTC), `level`, `caller`, `msg` and the event's fields.
    Json,
    /// `I1121 00:24:05.469002   11106 main.rs:228] text key=value`: level, month and day, time (UTC), process,
    /// source. Values with spaces or control characters are quoted, so a line is one event.
    #[default]
    Text,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err("text or json is expected"),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "json",
            Self::Text => "text",
        })
    }
}

/// Verbosities by source file, as in `reconcile=4,lease*=2`: a name without `.rs`, `*` and `?` stand for any text and
/// any character, and the first that fits counts.
#[derive(Clone, Debug, Default)]
pub struct Vmodule(Vec<(Regex, i32)>);

impl FromStr for Vmodule {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let entry = |entry: &str| {
            let (pattern, level) = entry.split_once('=').filter(|(pattern, _)| !pattern.is_empty())?;
            let pattern = regex::escape(pattern).replace(r"\*", ".*").replace(r"\?", ".");
            Some((Regex::new(&format!("^(?s:{pattern})$")).ok()?, level.parse().ok()?))
        };
        let entries = text.split(',').filter(|part| !part.is_empty()).map(entry);
        entries
            .collect::<Option<_>>()
            .map(Self)
            .ok_or("syntax error: expect comma-separated list of filename=N")
    }
}

impl Vmodule {
    fn verbosity(&self, file: &str) -> Option<i32> {
        let stem = base_name(file).trim_end_matches(".rs");
        self.0.iter().find(|(pattern, _)| pattern.is_match(stem)).map(|(_, level)| *level)
    }
}

/// A source line, as in `main.rs:228`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BacktraceAt {
    file: String,
    line: u32,
}

impl FromStr for BacktraceAt {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split_once(':')
            .and_then(|(file, line)| Some(Self { file: file.to_owned(), line: line.parse().ok()? }))
            .filter(|at| !at.file.is_empty() && at.line > 0)
            .ok_or("syntax error: expect file.rs:234")
    }
}

/// Sends every event of this process to stderr as `options` say. Call it once.
///
/// # Errors
/// Another subscriber already receives them.
pub fn start(options: LogOptions) -> Result<(), SetGlobalDefaultError> {
    let glog_flags = options.glog_flags.clone();
    let in_journal = is_journal(options.journal_stream.as_deref(), std::io::stderr());
    let dropped = AtomicU64::new(0);
    let format = options.format;
    let to_stderr = move |level: Level, line: &str| {
        // One lock per event, so that lines of several threads do not mix.
        let mut stderr = std::io::stderr().lock();
        let before = dropped.load(Ordering::Relaxed);
        let wait = if before == 0 { STDERR_TIMEOUT } else { Duration::ZERO };
        if !is_writable(&stderr, wait) {
            dropped.store(before + 1, Ordering::Relaxed);
            return;
        }
        // There is nobody to report a failure to.
        if before > 0 {
            let message = format!(
                "{before} log lines before this one were dropped: the reader of stderr did not keep up; traffic is not affected"
            );
            let fields = Fields { message, values: Vec::new() };
            let time = Timestamp::now();
            let caller = format!("{}:{}", base_name(file!()), line!());
            let notice = fields.line(format, Level::WARN, &caller, time);
            let _ = stderr.write_all(marked(in_journal, Level::WARN, &notice).as_bytes());
            dropped.store(0, Ordering::Relaxed);
        }
        let _ = stderr.write_all(marked(in_journal, level, line).as_bytes());
    };
    tracing::subscriber::set_global_default(Registry::default().with(Lines::new(options, to_stderr)))?;
    for flag in glog_flags {
        tracing::warn!("-{flag} has no effect: the log always goes to stderr; remove the flag");
    }
    Ok(())
}

/// Whether a file is the stream that `JOURNAL_STREAM` names. Processes whose output goes elsewhere inherit the variable.
fn is_journal(stream: Option<&OsStr>, file: impl AsFd) -> bool {
    let named = stream.and_then(|stream| stream.to_str()?.split_once(':'));
    let named = named.and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    let found = fstat(file).map(|found| (found.st_dev, found.st_ino));
    named.is_some_and(|named| found == Ok(named))
}

/// A line, with its priority if it goes to the journal.
fn marked(in_journal: bool, level: Level, line: &str) -> Cow<'_, str> {
    if in_journal { Cow::Owned(format!("<{}>{line}", priority(level))) } else { Cow::Borrowed(line) }
}

/// The journal's priority of a level, which it takes from the beginning of a line (sd-daemon(3)).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

/// How long a line waits for a reader of stderr that does not keep up. Later lines are dropped at once until it does:
/// what flanneld does must not wait for its log.
const STDERR_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether a write would return: a pipe that poll(2) reports has room for `PIPE_BUF` bytes, more than most lines have.
fn is_writable(stderr: &impl AsFd, wait: Duration) -> bool {
    let mut polled = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    let milliseconds = u16::try_from(wait.as_millis()).unwrap_or(u16::MAX);
    // A closed pipe is an error of the write, not a reason to wait.
    !matches!(poll(&mut polled, PollTimeout::from(milliseconds)), Ok(0))
}

/// Formats events and hands each finished line to `write`.
#[derive(Debug)]
pub struct Lines<W> {
    options: LogOptions,
    write: W,
}

impl<W: Fn(Level, &str)> Lines<W> {
    /// `write` gets one event at a time, with its level, its line end included.
    pub fn new(options: LogOptions, write: W) -> Self {
        Self { options, write }
    }

    fn wanted(&self, metadata: &Metadata<'_>) -> bool {
        let verbosity = metadata.file().and_then(|file| self.options.vmodule.verbosity(file));
        let verbosity = verbosity.unwrap_or(self.options.verbosity);
        let ours = metadata.target().starts_with("flannel");
        let least = match (*metadata.level(), ours) {
            (Level::ERROR | Level::WARN | Level::INFO, true) => return true,
            // What goes wrong in a library is an error that we tell ourselves, once; kube tells each attempt.
            (Level::ERROR | Level::WARN, false) | (Level::DEBUG, true) => 2,
            (Level::INFO, false) => 4,
            (Level::TRACE, true) => 5,
            (Level::DEBUG, false) => 6,
            (Level::TRACE, false) => 10,
        };
        verbosity >= least
    }
}

impl<S: Subscriber, W: Fn(Level, &str) + 'static> Layer<S> for Lines<W> {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wanted(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.wanted(metadata)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let file = base_name(metadata.file().unwrap_or("unknown"));
        let line = metadata.line().unwrap_or(0);
        let mut fields = Fields::default();
        event.record(&mut fields);
        if self.options.backtrace_at.as_ref().is_some_and(|at| at.file == file && at.line == line) {
            fields.values.push(("backtrace", Value::String(stack())));
        }
        let time = Timestamp::now();
        let caller = format!("{file}:{line}");
        let level = *metadata.level();
        (self.write)(level, &fields.line(self.options.format, level, &caller, time));
    }
}

/// The calls that led here. What is handed out has no names to show, nor (scripts/release.ld) tables to find calls by:
/// to ask for them would end the program.
fn stack() -> String {
    if cfg!(panic = "abort") {
        return "needs a build for development: cargo build".to_owned();
    }
    std::backtrace::Backtrace::force_capture().to_string()
}

/// What an event says.
#[derive(Default)]
struct Fields {
    message: String,
    values: Vec<(&'static str, Value)>,
}

impl Fields {
    fn line(self, format: LogFormat, level: Level, caller: &str, time: Timestamp) -> String {
        match format {
            LogFormat::Json => self.json(level, caller, time),
            LogFormat::Text => self.text(level, caller, time),
        }
    }

    fn text(&self, level: Level, caller: &str, time: Timestamp) -> String {
        let letter = match level {
            Level::ERROR => 'E',
            Level::WARN => 'W',
            _ => 'I',
        };
        let (time, process) = (time.strftime("%m%d %H:%M:%S.%6f"), std::process::id());
        let mut line = format!("{letter}{time} {process:>7} {caller}] {}", printable(&self.message));
        for (name, value) in &self.values {
            let value = match value {
                Value::String(text) => quoted(text),
                other => other.to_string(),
            };
            line.push_str(&format!(" {name}={value}"));
        }
        line.push('\n');
        line
    }

    fn json(self, level: Level, caller: &str, time: Timestamp) -> String {
        let mut object = Map::new();
        object.insert("ts".to_owned(), time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string().into());
        object.insert("level".to_owned(), level.as_str().to_ascii_lowercase().into());
        object.insert("caller".to_owned(), caller.into());
        object.insert("msg".to_owned(), self.message.into());
        object.extend(self.values.into_iter().map(|(name, value)| (name.to_owned(), value)));
        // JSON has escaped LF and ESC; what it leaves as it is would still reach a terminal.
        let mut line = String::new();
        for c in Value::Object(object).to_string().chars() {
            match is_obeyed(c) {
                true => line.push_str(&format!("\\u{:04x}", u32::from(c))),
                false => line.push(c),
            }
        }
        line + "\n"
    }

    fn push(&mut self, field: &Field, value: impl Into<Value>) {
        let value = value.into();
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => self.values.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, value);
    }
}

fn base_name(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file)
}

fn quoted(text: &str) -> String {
    let plain =
        !text.is_empty() && !text.chars().any(|c| c.is_whitespace() || is_obeyed(c) || c == '"' || c == '=');
    if plain { text.to_owned() } else { printable(&format!("{text:?}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_the_stream_that_its_variable_names() {
        let file = tempfile::tempfile().unwrap();
        let found = fstat(&file).unwrap();
        let stream = format!("{}:{}", found.st_dev, found.st_ino);
        assert!(is_journal(Some(stream.as_ref()), &file));
        for other in ["1:2", "", "x:y", ":"] {
            assert!(!is_journal(Some(other.as_ref()), &file), "{other:?}");
        }
    }

    #[test]
    fn a_file_pattern_is_a_glob_over_the_name_without_extension() {
        let vmodule: Vmodule = "reconcile=4,lease*=2,?od=7".parse().unwrap();
        assert_eq!(vmodule.verbosity("flanneld/src/reconcile.rs"), Some(4));
        assert_eq!(vmodule.verbosity("flanneld/src/lease_table.rs"), Some(2));
        assert_eq!(vmodule.verbosity("mod.rs"), Some(7));
        assert_eq!(vmodule.verbosity("main.rs"), None);
        assert!("main".parse::<Vmodule>().is_err());
        assert!("main=x".parse::<Vmodule>().is_err());
    }

    #[test]
    fn no_character_that_a_terminal_obeys_reaches_a_line() {
        let evil = "\u{1b}]0;x\u{7}\r\u{9b}31m\u{202e}\u{2066}\u{2028}\u{200f}\u{7f}";
        let fields =
            || Fields { message: evil.to_owned(), values: vec![("name", Value::String(evil.to_owned()))] };
        let text = fields().text(Level::INFO, "main.rs:1", Timestamp::UNIX_EPOCH);
        let json = fields().json(Level::INFO, "main.rs:1", Timestamp::UNIX_EPOCH);
        for line in [text, json] {
            assert!(line.trim_end_matches('\n').chars().all(|c| !is_obeyed(c)), "{}", line.escape_debug());
            assert!(line.contains("31m"), "{line}");
        }
        let json: Value =
            serde_json::from_str(&fields().json(Level::INFO, "main.rs:1", Timestamp::UNIX_EPOCH)).unwrap();
        assert_eq!(json["msg"], evil, "JSON stays JSON");
    }

    #[test]
    fn a_text_field_cannot_forge_a_line() {
        let fields = Fields {
            message: "peer said\nE0101 00:00:00.000000".to_owned(),
            values: vec![("name", Value::String("a\nb".to_owned())), ("peers", 3.into())],
        };
        let line = fields.text(Level::INFO, "main.rs:1", Timestamp::UNIX_EPOCH);
        assert_eq!(line.matches('\n').count(), 1);
        assert!(
            line.ends_with(" main.rs:1] peer said\\nE0101 00:00:00.000000 name=\"a\\nb\" peers=3\n"),
            "{line}"
        );
        assert!(line.starts_with("I0101 00:00:00.000000 "), "{line}");
    }
}
