//! What every bench shares: samples, ratios and the report.
//!
//! A bench measures `ours` against `floor` (what the kernel alone costs) and against what a user would use instead,
//! in turns within one run, so that a noisy machine slows all of them alike. It writes `report/<name>.json`;
//! the tables of `README.md` are made from those files.

mod plot;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::libc;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde::{Deserialize, Serialize};

pub use self::plot::Plot;

/// The case that everything else is compared with: the least the kernel can take for it.
pub const FLOOR: &str = "floor";
/// The case that is ours.
pub const OURS: &str = "ours";

/// One line of a report.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Row {
    /// What was measured, e.g. `whole-ruleset swap`.
    pub what: String,
    /// `ours`, `floor`, or the rival's own name.
    pub case: String,
    /// Size: rules, elements, peers, ...
    pub n: u64,
    /// `us`, `ms`, `MiB`, `messages`, ...
    pub unit: String,
    /// Median.
    pub p50: f64,
    /// 99th percentile; of few samples, the largest.
    pub p99: f64,
    /// Median over the floor's median, if there is a floor.
    pub ratio_to_floor: Option<f64>,
    /// For `ours`: each rival's median over ours, so 200 means 200 times faster.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub faster_than: BTreeMap<String, f64>,
    /// Why there are no figures: what it said when it could not do it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// A bench's results.
#[derive(Debug, Deserialize, Serialize)]
pub struct Report {
    /// File name without `.json`.
    pub bench: String,
    /// One sentence: what the figures are of.
    pub title: String,
    /// Processor, cores, kernel, day.
    pub machine: String,
    /// Whether `QUICK=1` was set: fewer samples, smaller sizes.
    pub quick: bool,
    /// The figures.
    pub rows: Vec<Row>,
    /// Names of the plots beside the report, in `report/`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plots: Vec<String>,
    /// Plots not yet written.
    #[serde(skip)]
    pictures: Vec<(String, String)>,
}

/// One competitor: its name and a run that returns how long the measured part took.
pub type Case<'a> = (&'a str, Box<dyn FnMut() -> Duration + 'a>);

impl Report {
    /// An empty report of the bench `name`.
    #[must_use]
    pub fn new(name: &str, title: &str) -> Self {
        Self {
            bench: name.to_owned(),
            title: title.to_owned(),
            machine: machine(),
            quick: quick(),
            rows: Vec::new(),
            plots: Vec::new(),
            pictures: Vec::new(),
        }
    }

    /// Runs the cases `rounds` times in turns, after one round that is not counted, and adds a row for each. Every other
    /// round goes backwards, as what ran before leaves its traces in the kernel.
    pub fn race(&mut self, what: &str, n: u64, rounds: usize, mut cases: Vec<Case<'_>>) {
        let mut samples: Vec<Vec<f64>> = cases.iter().map(|_| Vec::with_capacity(rounds)).collect();
        for round in 0..=rounds {
            let mut turns: Vec<_> = cases.iter_mut().zip(&mut samples).collect();
            if round % 2 == 1 {
                turns.reverse();
            }
            for ((_, run), taken) in turns {
                let time = run();
                if round > 0 {
                    taken.push(time.as_secs_f64() * 1e6);
                }
            }
        }
        let medians: Vec<(String, f64, f64)> = cases
            .iter()
            .zip(&mut samples)
            .map(|((case, _), taken)| ((*case).to_owned(), percentile(taken, 50), percentile(taken, 99)))
            .collect();
        let of = |name: &str| medians.iter().find(|(case, ..)| case == name).map(|(_, p50, _)| *p50);
        for (case, p50, p99) in &medians {
            let faster_than = if case == OURS {
                medians
                    .iter()
                    .filter(|(rival, ..)| rival != OURS && rival != FLOOR)
                    .map(|(rival, theirs, _)| (rival.clone(), theirs / p50))
                    .collect()
            } else {
                BTreeMap::new()
            };
            self.rows.push(Row {
                what: what.to_owned(),
                case: case.clone(),
                n,
                unit: "us".to_owned(),
                p50: *p50,
                p99: *p99,
                ratio_to_floor: of(FLOOR).map(|floor| p50 / floor),
                faster_than,
                failure: None,
            });
        }
        self.progress(medians.len());
    }

    /// Adds a single figure, or the median and 99th percentile of several.
    pub fn figure(&mut self, what: &str, case: &str, n: u64, unit: &str, values: &mut [f64]) {
        self.rows.push(Row {
            what: what.to_owned(),
            case: case.to_owned(),
            n,
            unit: unit.to_owned(),
            p50: percentile(values, 50),
            p99: percentile(values, 99),
            ratio_to_floor: None,
            faster_than: BTreeMap::new(),
            failure: None,
        });
        self.progress(1);
    }

    /// Adds what cannot be done that way, and why.
    pub fn failure(&mut self, what: &str, case: &str, n: u64, failure: &str) {
        self.figure(what, case, n, "us", &mut []);
        if let Some(row) = self.rows.last_mut() {
            row.failure = Some(failure.to_owned());
        }
    }

    /// Plots the rows of `what` over their size, a curve for each case, `y` being what `value` makes of a row. To be
    /// called after the figures are there; nothing is drawn of a single size.
    pub fn plot(&mut self, what: &str, x: &str, y: &str, value: impl Fn(&Row) -> f64) {
        let mut curves: Vec<(&str, Vec<(f64, f64)>)> = Vec::new();
        for row in self.rows.iter().filter(|row| row.what == what) {
            let point = (f64::from(u32::try_from(row.n).unwrap_or(u32::MAX)), value(row));
            match curves.iter_mut().find(|(case, _)| *case == row.case) {
                Some((_, points)) => points.push(point),
                None => curves.push((&row.case, vec![point])),
            }
        }
        curves.retain(|(_, points)| points.len() > 1);
        // Ours is drawn last, over the others.
        curves.sort_by_key(|(case, _)| *case == OURS);
        if let Some(svg) = (Plot { title: what, x, y, curves }).svg() {
            let words: Vec<&str> =
                what.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
            let name = format!("{}-{}.svg", self.bench, words.join("-"));
            self.plots.push(name.clone());
            self.pictures.push((name, svg));
        }
    }

    /// Writes `report/<name>.json` and its plots, and makes the tables of `README.md` anew from all reports there.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn write(&self) -> io::Result<()> {
        let folder = home().join("report");
        fs::create_dir_all(&folder)?;
        for (name, svg) in &self.pictures {
            fs::write(folder.join(name), svg)?;
        }
        fs::write(folder.join(format!("{}.json", self.bench)), serde_json::to_string_pretty(self)? + "\n")?;
        render_readme()
    }

    fn progress(&self, rows: usize) {
        for row in self.rows.iter().rev().take(rows).rev() {
            eprintln!(
                "{:>28} n={:<7} {:<34} p50 {:>12} p99 {:>12} {}",
                row.what,
                row.n,
                row.case,
                number(row.p50),
                number(row.p99),
                row.unit
            );
        }
    }
}

/// Whether a run of under a minute is asked for (`QUICK=1`).
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "a bench takes this one switch from the environment, as make passes it"
)]
pub fn quick() -> bool {
    std::env::var("QUICK").is_ok_and(|value| !value.is_empty() && value != "0")
}

/// CPU time that `run` takes: that of this thread, in which the kernel does what it is asked for over netlink too, and
/// of the programs that it runs and waits for. On a quiet machine this is the time that passes; on a busy one it is what
/// can still be compared.
pub fn cpu_time(run: impl FnOnce()) -> Duration {
    let children = || {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN);
        let micros = usage.map_or(0, |usage| (usage.user_time() + usage.system_time()).num_microseconds());
        Duration::from_micros(micros.unsigned_abs())
    };
    let before = (thread_time(), children());
    run();
    thread_time().saturating_sub(before.0) + children().saturating_sub(before.1)
}

/// `getrusage` counts in ticks of the clock, milliseconds each; this in nanoseconds.
#[expect(unsafe_code, reason = "the system call has no safe wrapper among what the benches use")]
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` outlives the call, which writes to it and nothing else.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(done, 0, "every Linux has this clock");
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The `p`-th percentile; 0 if there is no sample. Sorts the samples.
pub fn percentile(samples: &mut [f64], p: usize) -> f64 {
    samples.sort_by(f64::total_cmp);
    let last = samples.len().saturating_sub(1);
    samples.get((last * p).div_ceil(100).min(last)).copied().unwrap_or_default()
}

/// `flanneld` as `make bench` builds it first.
#[must_use]
pub fn release_binary() -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/flanneld");
    let beside =
        std::env::current_exe().ok().and_then(|bench| Some(bench.parent()?.parent()?.join("flanneld")));
    beside.filter(|path| path.exists()).unwrap_or(target)
}

/// Upstream's `flanneld` as `scripts/build-upstream` leaves it, if it has.
#[must_use]
pub fn upstream_binary() -> Option<PathBuf> {
    let path = release_binary().parent()?.parent()?.join("upstream-0.28.9/flanneld");
    path.exists().then_some(path)
}

fn home() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Processor, cores and kernel.
#[must_use]
pub fn machine() -> String {
    let first = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
        line.split_once(':').map_or_else(|| line.clone(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version: String = kernel.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    format!("{}, {cores} cores, Linux {version}", first("/proc/cpuinfo", "model name"))
}

const START: &str = "<!-- tables: made by `make bench`, do not edit -->";
const END: &str = "<!-- end of tables -->";

fn render_readme() -> io::Result<()> {
    let path = home().join("README.md");
    let readme = fs::read_to_string(&path)?;
    let (head, rest) = readme
        .split_once(START)
        .ok_or_else(|| io::Error::other("benches/README.md lacks its table markers"))?;
    let (_, tail) =
        rest.split_once(END).ok_or_else(|| io::Error::other("benches/README.md lacks its table markers"))?;
    let tables = tables(&home().join("report"))?;
    fs::write(path, format!("{head}{START}\n\n{tables}{END}{tail}"))
}

fn tables(folder: &Path) -> io::Result<String> {
    let mut files: Vec<_> =
        fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?.into_iter().map(|entry| entry.path()).collect();
    files.sort();
    let mut text = String::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "json")) {
        let report: Report = serde_json::from_str(&fs::read_to_string(file)?)?;
        let pace = if report.quick { " Quick run: few samples." } else { "" };
        let _infallible =
            write!(text, "## {}\n\n{} {}.{pace}\n\n", report.bench, report.title, report.machine);
        for plot in &report.plots {
            let _infallible = writeln!(text, "![{plot}](report/{plot})\n");
        }
        text.push_str("| what | n | case | p50 | p99 | unit | / floor | ours is faster by |\n|---|---:|---|---:|---:|---|---:|---|\n");
        for row in &report.rows {
            let faster: Vec<_> =
                row.faster_than.iter().map(|(rival, times)| format!("{rival} {}x", number(*times))).collect();
            if let Some(failure) = &row.failure {
                let _infallible =
                    writeln!(text, "| {} | {} | {} | fails: {failure} | | | | |", row.what, row.n, row.case);
                continue;
            }
            let floor = row.ratio_to_floor.map_or(String::new(), |ratio| format!("{ratio:.2}"));
            let _infallible = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {floor} | {} |",
                row.what,
                row.n,
                row.case,
                number(row.p50),
                number(row.p99),
                row.unit,
                faster.join(", ")
            );
        }
        text.push('\n');
    }
    Ok(text)
}

/// Three significant digits where that matters.
fn number(value: f64) -> String {
    match value.abs() {
        small if small < 10.0 => format!("{value:.2}"),
        middle if middle < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_samples() {
        let mut samples: Vec<f64> = (1..=100).map(f64::from).rev().collect();
        assert_eq!(percentile(&mut samples, 50), 51.0);
        assert_eq!(percentile(&mut samples, 99), 100.0);
        assert_eq!(percentile(&mut [7.0], 99), 7.0);
        assert_eq!(percentile(&mut [], 50), 0.0);
    }

    #[test]
    fn a_race_compares_medians_with_floor_and_rivals() {
        let mut report = Report::new("test", "");
        let fixed = |ms| -> Box<dyn FnMut() -> Duration> { Box::new(move || Duration::from_millis(ms)) };
        report.race("sleeping", 1, 3, vec![(FLOOR, fixed(1)), (OURS, fixed(2)), ("rival", fixed(10))]);
        let ours = &report.rows[1];
        assert_eq!(ours.ratio_to_floor, Some(2.0));
        assert_eq!(ours.faster_than.get("rival"), Some(&5.0));
    }
}
