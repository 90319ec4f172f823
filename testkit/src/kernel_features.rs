use std::fs;
use std::io::{self, Write as _};
use std::thread;

use crate::{in_netns, may_make_namespaces, setting, try_sh};

/// The version of the running kernel, as far as features depend on it: `(6, 12)` for 6.12.107.
///
/// Vendors bring features to older kernels, so only use it to tell what an *older* kernel may lack.
///
/// # Panics
/// The kernel does not say, or in a form that Linux does not use.
pub fn kernel_version() -> (u32, u32) {
    const FILE: &str = "/proc/sys/kernel/osrelease";
    let text = fs::read_to_string(FILE).unwrap_or_default();
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    #[expect(clippy::panic, reason = "no test can go on without it")]
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => panic!("{FILE} says {text:?}"),
    }
}

/// An option of the kernel that not every kernel has.
#[derive(Clone, Copy, Debug)]
pub struct KernelOption {
    name: &'static str,
    /// A shell command that succeeds in a fresh network namespace if the kernel has the option.
    probe: &'static str,
}

impl KernelOption {
    /// `ipip` devices.
    pub const IPIP: Self =
        Self { name: "CONFIG_NET_IPIP", probe: "ip link add probe type ipip local 192.0.2.1" };
    /// FOU ports. The kernel does not load the module by itself.
    pub const FOU: Self = Self { name: "CONFIG_NET_FOU", probe: "ip fou add port 5555 ipproto 4" };

    /// WireGuard devices.
    pub const WIREGUARD: Self = Self { name: "CONFIG_WIREGUARD", probe: "ip link add probe type wireguard" };

    /// Whether the kernel has the option.
    ///
    /// # Panics
    /// There are no network namespaces.
    #[must_use]
    #[expect(clippy::panic, reason = "a test cannot go on without an answer")]
    pub fn is_present(self) -> bool {
        let tried = in_netns(|| try_sh(self.probe).is_ok());
        tried.unwrap_or_else(|error| panic!("cannot probe {}: {error}", self.name))
    }

    /// Whether the calling test, which needs the option, can run; if not, says that it is skipped.
    ///
    /// # Panics
    /// It cannot, and the environment has `FLANNEL_KERNEL_OPTIONS=require`.
    #[must_use]
    pub fn is_usable(self) -> bool {
        if !may_make_namespaces() {
            return false;
        }
        let (is_present, name) = (self.is_present(), self.name);
        if !is_present {
            let required = setting("FLANNEL_KERNEL_OPTIONS").as_deref() == Some("require");
            let test = thread::current().name().unwrap_or("a test").to_owned();
            assert!(
                !required,
                "FLANNEL_KERNEL_OPTIONS=require, but this kernel lacks {name}, which {test} needs"
            );
            // Not eprintln!: the test harness would swallow it for a test that passes.
            let line = format!("SKIPPED {test}: this kernel lacks {name}; run `make test-kernels`\n");
            // Nobody is left to tell if stderr is closed.
            drop(io::stderr().write_all(line.as_bytes()));
        }
        is_present
    }
}
