//! Nodes with the real lease task and reconciler, on fake kernels, a fake etcd and virtual time, under random faults.
//!
//! One process runs one seed: some of the state that decides the order of tasks belongs to the process.
#![expect(clippy::print_stdout, reason = "a command-line program")]

mod checks;
mod host;
mod log;
mod node;
mod script;
mod virtual_time;
mod world;

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};

use crate::script::Script;

/// Simulate nodes under random faults and check that they recover.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run seeds until one fails. Its script is made shorter and printed.
    Seeds {
        /// First seed. Default: 0.
        #[arg(long, default_value_t = 0)]
        first: u64,
        /// Number of seeds. Default: 500.
        #[arg(long, default_value_t = 500)]
        count: u64,
        /// Start no more seeds after this many seconds. Default: no limit.
        #[arg(long)]
        seconds: Option<u64>,
        /// Go on after a failure, and only name the seeds.
        #[arg(long)]
        all: bool,
    },
    /// Run one seed and print all that happens.
    Seed {
        /// The seed.
        seed: u64,
        /// Print the daemons' log as well.
        #[arg(long)]
        log: bool,
    },
    /// Run a script from a file, or from standard input for `-`, and print all that happens.
    Replay {
        /// The file.
        script: PathBuf,
        /// Print the daemons' log as well.
        #[arg(long)]
        log: bool,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().task {
        Task::Seeds { first, count, seconds, all } => run_seeds(first, count, seconds, all),
        Task::Seed { seed, log } => run_script(&Script::of_seed(seed), log),
        Task::Replay { script, log } => {
            let read = if script.as_os_str() == "-" {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).map(|_| text)
            } else {
                std::fs::read_to_string(&script)
            };
            match read.map_err(|error| error.to_string()).and_then(|text| text.parse()) {
                Ok(script) => run_script(&script, log),
                Err(error) => {
                    println!("{}: {error}", script.display());
                    ExitCode::from(2)
                }
            }
        }
    }
}

/// Runs a script in this process.
fn run_script(script: &Script, log: bool) -> ExitCode {
    virtual_time::simulate(script.seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let outcome = runtime.and_then(|runtime| {
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let start = virtual_time::follow_tokio();
            if log {
                log::print_from(start);
            }
            world::run(script, start).await
        })
    });
    match outcome {
        Err(error) => {
            println!("cannot simulate: {error}");
            ExitCode::from(2)
        }
        Ok(outcome) => {
            outcome.trace.iter().for_each(|line| println!("{line}"));
            match outcome.violation {
                None => ExitCode::SUCCESS,
                Some(violation) => {
                    println!("VIOLATION {violation}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}

/// Runs a script in a process of its own. Returns the violation, if there is one.
fn violation_of(script: &Script) -> Option<String> {
    let run = || -> std::io::Result<std::process::Output> {
        let mut child = Command::new("/proc/self/exe") // also if cargo has replaced the file
            .args(["replay", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            std::io::Write::write_all(&mut stdin, script.to_string().as_bytes())?;
        }
        child.wait_with_output()
    };
    match run() {
        Err(error) => Some(format!("cannot simulate: {error}")),
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            let last = text.lines().last().unwrap_or_default();
            let panics = String::from_utf8_lossy(&output.stderr);
            Some(format!("{last} {panics}").trim().to_owned())
        }
    }
}

fn run_seeds(first: u64, count: u64, seconds: Option<u64>, all: bool) -> ExitCode {
    let began = Instant::now();
    let end = seconds.map(|seconds| began + Duration::from_secs(seconds));
    let count = if seconds.is_some() { u64::MAX } else { count };
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let (failed, stopped) = (AtomicBool::new(false), AtomicBool::new(false));
    let work = || {
        while !stopped.load(Ordering::Relaxed) && end.is_none_or(|end| Instant::now() < end) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            let script = Script::of_seed(first.saturating_add(number));
            let found = violation_of(&script);
            done.fetch_add(1, Ordering::Relaxed);
            let Some(violation) = found else { continue };
            let at = began.elapsed();
            println!("seed {} after {at:.1?}: {violation}", script.seed);
            failed.store(true, Ordering::Relaxed);
            if all || stopped.swap(true, Ordering::Relaxed) {
                continue;
            }
            println!("shrinking it");
            let kind =
                |text: &str| text.split_whitespace().filter(|word| !word.contains(char::is_numeric)).count();
            let wanted = kind(&violation);
            let shrunk =
                script.shrink(|script| violation_of(script).is_some_and(|found| kind(&found) == wanted));
            println!("this script fails; replay it with `simulate replay FILE --log`:\n{shrunk}");
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(work);
        }
    });
    println!("{} seeds in {:.1?}", done.load(Ordering::Relaxed), began.elapsed());
    if failed.load(Ordering::Relaxed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
