//! `flanneld doctor --collect=FILE`: one archive for a bug report, without secrets.

use std::path::Path;
use std::time::SystemTime;

use flannel_lease::Chain;
use flannel_nft::Kernel as _;
use flannel_nft::iptables::iptables_tables;

use crate::commands::{CommandError, Verdict, plan, status, table_prefixes, upstream_daemon};
use crate::config::{Config, DoctorOptions, Problem, StatusOptions};
use crate::desired::rules::TablePrefix;
use crate::file;
use crate::run::state_file;
use crate::status::counters::whole_seconds;

/// What the kernel reports as text, and what system this is.
const SYSTEM: [&str; 7] = [
    "/etc/os-release",
    "/proc/modules",
    "/proc/net/arp",
    "/proc/net/dev",
    "/proc/net/ipv6_route",
    "/proc/net/route",
    "/proc/version",
];
/// Bytes of the largest file that goes into the archive.
const MAX_PART_BYTES: u64 = 16 << 20;
/// Bytes of the header of a file, and the unit of a file's length, in a tar archive.
const BLOCK: usize = 512;

/// Writes the archive. What cannot be had is a text in its place that says why.
///
/// # Errors
/// The archive cannot be written.
pub(super) async fn run(config: Config, problems: &[Problem], to: &Path) -> Result<Verdict, CommandError> {
    let options = DoctorOptions { json: true, preflight: false, collect: None };
    let findings = Box::pin(super::run(config.clone(), problems, &options)).await;
    let status = status::run(&config, StatusOptions { json: true, peers: true }).await;
    let metrics = match &config.healthz {
        Some(address) => {
            upstream_daemon::get(address, "/metrics", MAX_PART_BYTES).ok_or("no answer on the health port")
        }
        None => Err("--healthz-port is not set"),
    };
    let found = |result: Result<Verdict, CommandError>| {
        result.map(|found| found.text).map_err(|error| Chain(&error).to_string())
    };
    let mut parts = vec![
        ("flags.txt", Ok(format!("flanneld {}\n{}\n", env!("CARGO_PKG_VERSION"), config.flags))),
        ("doctor.json", found(findings)),
        ("status.json", found(status)),
        ("rules.txt", rules(&config).map_err(|error| Chain(&error).to_string())),
        ("net-conf.json", text(&config.net_conf_file).map(|text| without_psk(&text))),
        ("subnet.env", text(&config.subnet_file)),
        ("subnet.state.json", text(&state_file::path(&config.subnet_file))),
        ("metrics.txt", metrics.map_err(str::to_owned)),
        ("plan.txt", found(plan::run(config).await)),
    ];
    parts.extend(SYSTEM.map(|path| (path.trim_start_matches('/'), text(Path::new(path)))));

    let time = whole_seconds(SystemTime::now());
    let mut archive = Vec::new();
    for (name, content) in parts {
        let content = content.unwrap_or_else(|problem| format!("not available: {problem}\n"));
        append(&mut archive, &format!("flannel/{name}"), content.as_bytes(), time);
    }
    // Two blocks of zeros end an archive.
    archive.resize(archive.len() + 2 * BLOCK, 0);
    file::replace(to, &archive, 0o600).map_err(|source| CommandError::File {
        operation: "write",
        path: to.to_owned(),
        source,
    })?;
    let text = format!(
        "{}: flags, configuration, leases, status, findings, rules, plan and metrics. Look into it before you publish it: it \
         names addresses and nodes. Add the log: journalctl --unit=flanneld, or kubectl logs\n",
        to.display()
    );
    Ok(Verdict { text, code: 0 })
}

/// A file that is text.
fn text(path: &Path) -> Result<String, String> {
    let content = file::read_up_to(MAX_PART_BYTES, path).map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&content).into_owned())
}

/// A net-conf.json without the value of `PSK`; nothing of a text that is no JSON, where a key cannot be found.
fn without_psk(net_conf: &str) -> String {
    fn hide(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(members) => members.iter_mut().for_each(|(name, value)| {
                if name.eq_ignore_ascii_case("PSK") {
                    *value = "***".into();
                }
                hide(value);
            }),
            serde_json::Value::Array(values) => values.iter_mut().for_each(hide),
            _ => {}
        }
    }
    match serde_json::from_str::<serde_json::Value>(net_conf) {
        Ok(mut value) => {
            hide(&mut value);
            format!("{value:#}\n")
        }
        Err(error) => format!("not available: it is not JSON, and may contain a key: {error}\n"),
    }
}

/// flannel's tables, and those of iptables, as nft shows them.
fn rules(config: &Config) -> Result<String, CommandError> {
    let mut nft = flannel_nft::Netlink::open()?;
    let prefixes = table_prefixes(config.table_prefix.as_ref(), &mut nft)?;
    let tables = prefixes.iter().map(TablePrefix::tables).collect::<Result<Vec<_>, _>>()?.concat();
    Ok(nft.observe(&[tables, iptables_tables()].concat())?.ruleset.to_string())
}

/// Appends a file of mode 0644 to an archive in POSIX' ustar format (pax(1)). `time` is in seconds since 1970.
fn append(archive: &mut Vec<u8>, name: &str, content: &[u8], time: u64) {
    let fields = |checksum: &str| {
        let (mode, owner, group, size) = ("0000644", "0000000", "0000000", content.len());
        let (regular_file, link, magic, version) = ("0", "", "ustar", "00");
        format!(
            "{name:\0<100}{mode}\0{owner}\0{group}\0{size:011o}\0{time:011o}\0{checksum}{regular_file}{link:\0<100}\
             {magic}\0{version}"
        )
    };
    // Its own field counts as spaces.
    let checksum: u32 = fields("        ").bytes().map(u32::from).sum();
    let start = archive.len();
    archive.extend(fields(&format!("{checksum:06o}\0 ")).bytes());
    archive.resize(start + BLOCK, 0);
    archive.extend(content);
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_psk_is_left_out_wherever_and_however_it_is_written() {
        let text = r#"{"Network": "10.244.0.0/16", "backend": {"type": "wireguard", "psk": "c2VjcmV0", "PSK": "c2VjcmV0"}}"#;
        let shown = without_psk(text);
        assert!(
            shown.contains("10.244.0.0/16") && shown.contains("***") && !shown.contains("c2VjcmV0"),
            "{shown}"
        );
        let shown = without_psk(&text.replace("}}", "}"));
        assert!(shown.starts_with("not available") && !shown.contains("c2VjcmV0"), "{shown}");
    }

    #[test]
    fn tar_reads_the_archive() {
        let mut archive = Vec::new();
        append(&mut archive, "flannel/a", b"one\n", 1_700_000_000);
        append(&mut archive, "flannel/proc/net/dev", &[b'x'; 1024], 1_700_000_000);
        archive.resize(archive.len() + 2 * BLOCK, 0);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        std::fs::write(&path, archive).unwrap();
        let done = std::process::Command::new("tar")
            .arg("xf")
            .arg(&path)
            .arg("-C")
            .arg(folder.path())
            .output()
            .unwrap();
        assert!(done.status.success() && done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
        assert_eq!(std::fs::read(folder.path().join("flannel/a")).unwrap(), b"one\n");
        assert_eq!(std::fs::read(folder.path().join("flannel/proc/net/dev")).unwrap().len(), 1024);
    }
}
