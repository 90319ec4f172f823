//! What the subcommands report on a node that upstream's daemon runs.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testkit::{Lab, Node, may_make_namespaces, wait_for};

const BINARY: &str = env!("CARGO_BIN_EXE_flanneld");
const SOON: Duration = Duration::from_secs(10);
/// What Go's linker notes in a program of upstream's, as far as it is read.
const BUILD_INFO: &[u8] =
    b"\xff Go buildinf:\x08\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x06go1.26path\tgithub.com/flannel-io/flannel\n";

/// A process that looks like upstream's daemon and does nothing. Dropping it ends it.
struct Dummy(Child);

impl Dummy {
    /// Runs a copy of `sleep` under this name, with Go's build information of upstream's or without.
    fn start(node: &Node, name: &str, is_built_from_upstream: bool) -> Self {
        let folder = node.folder().join("bin");
        fs::create_dir_all(&folder).unwrap();
        let (program, info) = (folder.join(name), folder.join("info"));
        fs::copy("/bin/sleep", &program).unwrap();
        if is_built_from_upstream {
            fs::write(&info, BUILD_INFO).unwrap();
            let section = format!(".go.buildinfo={}", info.display());
            let added = Command::new("objcopy").arg("--add-section").arg(section).arg(&program).status();
            assert!(added.unwrap().success());
        }
        Self::run(node, &program)
    }

    fn run(node: &Node, program: &Path) -> Self {
        let mut command = Command::new(program);
        command.args(["--", "600"]).stdin(Stdio::null());
        Self(node.namespace().spawn(&mut command).unwrap())
    }
}

impl Drop for Dummy {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Runs a subcommand in a node's namespace: its status and what it printed, errors last.
fn flanneld(node: &Node, arguments: &str) -> (i32, String) {
    let mut command = Command::new(BINARY);
    command.args(arguments.split_whitespace()).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let done = node.namespace().spawn(&mut command).unwrap().wait_with_output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap() + &String::from_utf8(done.stderr).unwrap();
    (done.status.code().unwrap(), text)
}

#[test]
fn upstreams_daemon_is_seen_under_any_name_and_other_programs_are_not_taken_for_it() {
    if !may_make_namespaces() {
        return;
    }
    let mut lab = Lab::new().unwrap();
    let (node, other) = (lab.add_node().unwrap(), lab.add_node().unwrap());
    for (name, is_built_from_upstream, is_daemon) in [
        ("flanneld", false, true),
        ("flanneld-amd64", false, true),
        ("network-agent", true, true),
        ("network-agent", false, false),
        ("flanneld-exporter", false, false),
    ] {
        let process = Dummy::start(&node, name, is_built_from_upstream);
        let refused = || {
            let (status, text) = flanneld(&node, "cleanup");
            let pid = format!("(process {})", process.0.id());
            (status == 1 && text.contains(&pid)).then_some(())
        };
        if is_daemon {
            assert!(wait_for(SOON, refused).is_some(), "{name}: {}", flanneld(&node, "cleanup").1);
            assert_eq!(flanneld(&other, "cleanup").0, 0, "another network namespace is another host");
        } else {
            let runs = || {
                let program = fs::read_link(format!("/proc/{}/exe", process.0.id())).ok()?;
                program.ends_with(name).then_some(())
            };
            assert!(wait_for(SOON, runs).is_some());
            assert_eq!(flanneld(&node, "cleanup").0, 0, "{name}");
        }
    }
    assert_eq!(flanneld(&node, "cleanup").0, 0);
}
