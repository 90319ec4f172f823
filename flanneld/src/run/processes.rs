//! Processes of flannel daemons in this network namespace, as `/proc` shows them.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// A process that is a flannel daemon, of either kind.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Process {
    /// Its number in this `/proc`.
    pub pid: u32,
    /// The file that it executes, as its own mount namespace names it; empty if it cannot be read.
    pub program: PathBuf,
    /// Whether that file was built from upstream's source.
    pub is_built_from_upstream: bool,
}

impl Process {
    /// Its arguments, without the program's name.
    ///
    /// # Errors
    /// It has ended.
    pub fn arguments(&self) -> io::Result<Vec<OsString>> {
        Ok(strings(&fs::read(self.file("cmdline"))?).skip(1).collect())
    }

    /// A variable of its environment.
    ///
    /// # Errors
    /// It has ended, or this process may not look at it.
    pub fn environment(&self) -> io::Result<Vec<(OsString, OsString)>> {
        let pair = |text: OsString| {
            let bytes = text.as_bytes();
            let at = bytes.iter().position(|byte| *byte == b'=')?;
            let (name, value) = (bytes.get(..at)?, bytes.get(at + 1..)?);
            Some((OsString::from_vec(name.to_vec()), OsString::from_vec(value.to_vec())))
        };
        Ok(strings(&fs::read(self.file("environ"))?).filter_map(pair).collect())
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join(name)
    }
}

/// The strings of a file in which each ends with NUL.
fn strings(bytes: &[u8]) -> impl Iterator<Item = OsString> {
    let text = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    text.split(|byte| *byte == 0).map(|string| OsString::from_vec(string.to_vec()))
}

/// The flannel daemons that run here: what is built from upstream's source, under any name, and what has the name of a
/// daemon of either kind and is not one of this program's subcommands.
///
/// # Errors
/// `/proc` cannot be read; the error names the file.
pub(super) fn daemons() -> io::Result<Vec<Process>> {
    let here = named(NAMESPACE, fs::read_link(NAMESPACE))?;
    let pid_of = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    let pids = named("/proc", fs::read_dir("/proc"))?.flatten().filter_map(pid_of);
    Ok(pids.filter_map(|pid| daemon(pid, &here)).collect())
}

/// This process if it is a daemon in this network namespace. A process that has ended or is not readable is no daemon.
fn daemon(pid: u32, here: &Path) -> Option<Process> {
    let mut process = Process { pid, program: PathBuf::new(), is_built_from_upstream: false };
    if fs::read_link(process.file("ns/net")).ok()? != here {
        return None;
    }
    process.program = fs::read_link(process.file("exe")).unwrap_or_default();
    process.is_built_from_upstream =
        File::open(process.file("exe")).and_then(|program| is_built_from_upstream(&program)).unwrap_or(false);
    if process.is_built_from_upstream {
        return Some(process);
    }
    let command = fs::read_to_string(process.file("comm")).unwrap_or_default();
    if command != "flanneld\n" && !is_named_as_released(&process.program) {
        return None;
    }
    // A subcommand of this program begins with a word.
    let first = process.arguments().unwrap_or_default().into_iter().next().unwrap_or_default();
    (first.is_empty() || first.as_bytes().starts_with(b"-")).then_some(process)
}

/// Whether a file has the name of a released program: `flanneld`, or that with an architecture or a version.
fn is_named_as_released(program: &Path) -> bool {
    const ARCHITECTURES: [&str; 11] = [
        "386", "amd64", "arm", "arm64", "armv7", "loong64", "mips64le", "ppc64le", "riscv64", "s390x",
        "x86_64",
    ];
    let name = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    // As the kernel shows a file that was replaced while it runs.
    let name = name.strip_suffix(" (deleted)").unwrap_or(name);
    let is_known = |part: &str| {
        let version = part.strip_prefix('v').unwrap_or(part);
        ARCHITECTURES.contains(&part)
            || version.starts_with(|first: char| first.is_ascii_digit()) && version.contains('.')
    };
    name.strip_prefix("flanneld").is_some_and(|rest| {
        rest.is_empty() || rest.strip_prefix('-').is_some_and(|parts| parts.split('-').all(is_known))
    })
}

/// Whether Go's linker noted in a program that its main package is upstream's (`go version -m FILE`).
///
/// # Errors
/// The file cannot be read, or is no ELF file.
fn is_built_from_upstream(program: &File) -> io::Result<bool> {
    const MAGIC: &[u8] = b"\xff Go buildinf:";
    const MAIN: [&[u8]; 2] = [b"path\tgithub.com/flannel-io/flannel\n", b"path\tgithub.com/coreos/flannel\n"];
    let mut header = [0; 64];
    program.read_exact_at(&mut header, 0)?;
    let (wide, big) = match header {
        [0x7f, b'E', b'L', b'F', class @ 1..=2, order @ 1..=2, ..] => (class == 2, order == 2),
        _ => return Ok(false),
    };
    // Elf32_Ehdr and Elf64_Ehdr, Elf32_Shdr and Elf64_Shdr (elf(5)).
    let number = |bytes: &[u8], at: usize, size: usize| -> u64 {
        let bytes = bytes.get(at..at + size).unwrap_or_default();
        let push = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        if big { bytes.iter().fold(0, push) } else { bytes.iter().rev().fold(0, push) }
    };
    let (sections, size, count) = if wide {
        (number(&header, 0x28, 8), number(&header, 0x3a, 2), number(&header, 0x3c, 2))
    } else {
        (number(&header, 0x20, 4), number(&header, 0x2e, 2), number(&header, 0x30, 2))
    };
    // Programs have a few dozen.
    for index in 0..count.min(512) {
        let mut section = [0; 40];
        program.read_exact_at(&mut section, sections.saturating_add(index * size))?;
        let start = if wide { number(&section, 0x18, 8) } else { number(&section, 0x10, 4) };
        let mut info = [0; 1024];
        let length = program.read_at(&mut info, start).unwrap_or(0);
        let info = info.get(..length).unwrap_or_default();
        if info.starts_with(MAGIC) {
            // Behind the version of Go, with the main package first.
            return Ok(MAIN.iter().any(|main| info.windows(main.len()).any(|part| part == *main)));
        }
    }
    Ok(false)
}

pub(super) fn named<T>(path: &str, read: io::Result<T>) -> io::Result<T> {
    read.map_err(|error| io::Error::new(error.kind(), format!("cannot read {path}: {error}")))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn released_names_are_known_and_those_of_other_programs_are_not() {
        for name in
            ["flanneld", "flanneld-amd64", "flanneld-v0.28.9", "flanneld-v0.28.9-arm64", "flanneld (deleted)"]
        {
            assert!(is_named_as_released(&Path::new("/opt/bin").join(name)), "{name}");
        }
        for name in
            ["flannel", "flanneld-exporter", "flanneld.sh", "flanneld2", "flanneld-", "my-flanneld", ""]
        {
            assert!(!is_named_as_released(&Path::new("/opt/bin").join(name)), "{name}");
        }
    }

    /// An ELF file with one section, as far as a search for it goes.
    fn elf(wide: bool, big: bool, section: &[u8]) -> File {
        let mut bytes = vec![0; 64];
        let put = |bytes: &mut Vec<u8>, at: usize, size: usize, number: u64| {
            let digits = (0..size).map(|n| u8::try_from(number >> (8 * n) & 0xff).unwrap());
            let digits: Vec<u8> = if big { digits.rev().collect() } else { digits.collect() };
            bytes.splice(at..at + size, digits);
        };
        bytes.splice(0..6, [0x7f, b'E', b'L', b'F', 1 + u8::from(wide), 1 + u8::from(big)]);
        bytes.resize(64 + 64, 0);
        if wide {
            for (at, size, number) in [(0x28, 8, 64), (0x3a, 2, 64), (0x3c, 2, 1), (64 + 0x18, 8, 128)] {
                put(&mut bytes, at, size, number);
            }
        } else {
            for (at, size, number) in [(0x20, 4, 64), (0x2e, 2, 40), (0x30, 2, 1), (64 + 0x10, 4, 128)] {
                put(&mut bytes, at, size, number);
            }
        }
        bytes.extend(section);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file
    }

    #[test]
    fn a_program_is_upstreams_by_its_main_package_alone() {
        let info = |modules: &str| {
            let mut info = b"\xff Go buildinf:\x08\x02".to_vec();
            info.resize(32, 0);
            info.extend(b"\x06go1.26");
            info.extend(modules.as_bytes());
            info
        };
        let upstream =
            info("path\tgithub.com/flannel-io/flannel\nmod\tgithub.com/flannel-io/flannel\t(devel)\n");
        let older = info("path\tgithub.com/coreos/flannel\n");
        let embeds_it =
            info("path\tgithub.com/k3s-io/k3s/cmd/server\ndep\tgithub.com/flannel-io/flannel\tv0.28.9\n");
        let plugin = info("path\tgithub.com/flannel-io/cni-plugin\n");
        for (wide, big) in [(true, false), (true, true), (false, false), (false, true)] {
            let is_upstreams = |section: &[u8]| is_built_from_upstream(&elf(wide, big, section)).unwrap();
            assert!(is_upstreams(&upstream) && is_upstreams(&older));
            assert!(!is_upstreams(&embeds_it) && !is_upstreams(&plugin) && !is_upstreams(b"no Go"));
        }
        assert!(!is_built_from_upstream(&File::open(std::env::current_exe().unwrap()).unwrap()).unwrap());
    }

    proptest::proptest! {
        #[test]
        fn no_program_is_too_odd(wide: bool, big: bool, damage in proptest::collection::vec(0..200u64, 0..8), byte: u8) {
            let file = elf(wide, big, b"\xff Go buildinf:");
            for at in damage {
                file.write_at(&[byte], at).unwrap();
            }
            let _ = is_built_from_upstream(&file);
        }
    }
}
