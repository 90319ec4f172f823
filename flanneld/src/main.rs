//! The `flanneld` daemon: arguments, logging, the daemon itself, an exit code.

use std::process::ExitCode;

use flannel_lease::Chain;
use flannel_lease::file::limit_advice;
use flanneld::argv;
use flanneld::commands::install_conf;
use flanneld::commands::{self, CommandError, Verdict};
use flanneld::config::{Command, Config, Process};
use flanneld::run::fatal::Fatal;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let variable = |name: &str| std::env::var_os(name);
    // A copy or link of this program in the folder of the CNI plugins; container runtimes set CNI_COMMAND.
    if argv::is_called("flannel") && variable("CNI_COMMAND").is_some() {
        return flannel_cni::run(variable, std::io::stdin().lock(), std::io::stdout().lock());
    }
    if let Some(arguments) = install_conf::asked(std::env::args_os()) {
        return match install_conf::run(&arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        };
    }
    argv::hide_password();
    resolve_names_alone();
    match Command::read(&Process) {
        Ok(Command::Cleanup(config, options)) => {
            carry_out(commands::cleanup::run(&config, &options), options.stay)
        }
        Ok(Command::Doctor { config, problems, options }) => {
            carry_out(commands::doctor::run(*config, &problems, &options), false)
        }
        Ok(Command::Help(text)) => print(std::io::stdout(), &text),
        Ok(Command::Manifest(options)) => print(std::io::stdout(), &commands::manifest::render(&options)),
        Ok(Command::Plan(config)) => carry_out(commands::plan::run(*config), false),
        Ok(Command::Status(config, options)) => carry_out(commands::status::run(&config, options), false),
        Ok(Command::Version) => print(std::io::stdout(), concat!(env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Command::Run(config)) => run(*config),
        Err(problems) => {
            print(std::io::stderr(), &format!("{problems}\n"));
            ExitCode::from(problems.exit_code())
        }
    }
}

/// Runs a subcommand on a runtime of its own, and prints what it found. With `stay` it then waits for SIGTERM, unless the
/// subcommand found something wrong.
fn carry_out(command: impl Future<Output = Result<Verdict, CommandError>>, stay: bool) -> ExitCode {
    let runtime = match flanneld::run::thread_watchdog::runtime().map_err(Fatal::Thread) {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let done = runtime.block_on(async {
        let verdict = match command.await {
            Ok(verdict) => verdict,
            Err(error) => return fail(&error),
        };
        print(std::io::stdout(), &verdict.text);
        if stay && verdict.code == 0 {
            match stop_signal() {
                Ok(signal) => signal.await,
                Err(error) => return fail(&error),
            }
        }
        ExitCode::from(verdict.code)
    });
    runtime.shutdown_background();
    done
}

/// Has the C library give freed memory back at once. By default it keeps what a listing of all leases and a plan for
/// them took: with 100 000 peers twice of what is in use.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the C library's settings have no safe wrapper")]
fn return_free_memory() {
    use nix::libc::{M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, mallopt};

    for (spec, value) in [(M_ARENA_MAX, 1), (M_TRIM_THRESHOLD, 64 << 10), (M_MMAP_THRESHOLD, 64 << 10)] {
        // SAFETY: this sets a number in the allocator, while no other thread runs. A setting that is not known has no
        // effect.
        let _known = unsafe { mallopt(spec, value) };
    }
}

#[cfg(not(target_env = "gnu"))]
fn return_free_memory() {}

/// Has the C library look names up in /etc/hosts and by DNS only, whatever nsswitch.conf says: as in an empty image.
/// Modules such as `resolve` and `myhostname` would be loaded together with the host's own C library, and a static
/// program that was linked with another version of it crashes then.
#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
#[expect(unsafe_code, reason = "the C library's settings have no safe wrapper")]
fn resolve_names_alone() {
    use std::ffi::{c_char, c_int};

    unsafe extern "C" {
        /// glibc's nss.h, since 2.0.
        fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
    }
    // SAFETY: both are NUL-terminated and live for ever; no other thread runs. It refuses only databases that it does not
    // know.
    let _known = unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
}

#[cfg(not(all(target_env = "gnu", target_feature = "crt-static")))]
fn resolve_names_alone() {}

fn run(config: Config) -> ExitCode {
    return_free_memory();
    if let Err(error) = flanneld::logging::start(config.log.clone()) {
        return fail(&error);
    }
    let runtime = match event_loop() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let done = runtime.block_on(async {
        let stop = stop_signal()?;
        flanneld::run::run(config, stop).await.map_err(|error| -> Box<dyn std::error::Error> { error.into() })
    });
    // Blocking calls of a store may still be under way; they end with the process.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print(
                std::io::stderr(),
                &format!(
                    "flanneld: {}; flanneld exits and leaves devices, rules and routes as they are\n",
                    Chain(&*error)
                ),
            );
            ExitCode::FAILURE
        }
    }
}

fn event_loop() -> std::io::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| {
        let advice = limit_advice(&error).unwrap_or("see the kernel's log");
        std::io::Error::other(format!("the kernel gives no event loop (epoll): {advice}: {error}"))
    })
}

/// Resolves at SIGTERM or SIGINT.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn fail(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    print(std::io::stderr(), &format!("flanneld: {}\n", Chain(error)));
    ExitCode::FAILURE
}

/// Prints. A closed pipe is not an error.
fn print(mut to: impl std::io::Write, text: &str) -> ExitCode {
    let _closed = to.write_all(text.as_bytes());
    ExitCode::SUCCESS
}
