//! The manual pages and shell completions in `deploy/` are made from the one definition of all flags. `UPDATE_GOLDEN=1` writes
//! them.

use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use testkit::{golden, sh};

const DEPLOY: &str = "../deploy";
const SUBCOMMANDS: [&str; 5] = ["status", "plan", "doctor", "manifest", "cleanup"];

/// What no flag says.
const SECTIONS: [(&str, &[(&str, &str)]); 4] = [
    (
        "SIGNALS",
        &[
            ("SIGTERM, SIGINT", "Exit within two seconds. Rules, devices and routes stay as they are."),
            ("SIGHUP", "Read the network configuration again, and apply changes that need no restart."),
        ],
    ),
    (
        "FILES",
        &[
            ("/etc/kube-flannel/net-conf.json", "The cluster's networks and backend, see --net-config-path."),
            ("/run/flannel/subnet.env", "This node's subnet and MTU, for the CNI plugin, see --subnet-file."),
            (
                "/run/flannel/subnet.state.json",
                "This node's lease and peers, for a start while the lease store is unavailable.",
            ),
            ("/run/flannel/subnet.sock", "Socket on which the daemon answers flanneld status."),
        ],
    ),
    (
        "EXIT STATUS",
        &[
            ("0", "Success; the daemon received SIGTERM or SIGINT."),
            (
                "1",
                "Failure; status: not ready; doctor: found an error, or a swap is unsafe; cleanup: refused, or objects remain.",
            ),
            ("2", "Invalid command line. Nothing was done."),
            ("3", "plan, cleanup --dry-run, doctor --preflight: there is something to change."),
        ],
    ),
    (
        "SEE ALSO",
        &[(
            "",
            "flanneld(8), flanneld-status(8), flanneld-plan(8), flanneld-doctor(8), flanneld-cleanup(8), nft(8), ip(8), bridge(8)",
        )],
    ),
];

fn page(name: &str) -> String {
    let all = flanneld::config::definition();
    let title = if name.is_empty() { "flanneld".to_owned() } else { format!("flanneld-{name}") };
    let command = all.find_subcommand(name).cloned().unwrap_or(all).display_name(title.clone());
    let man = Man::new(command)
        .title(&title)
        .section("8")
        .manual("flannel")
        .source(concat!("flannel ", env!("CARGO_PKG_VERSION")));
    let mut page = Vec::new();
    man.render_title(&mut page).unwrap();
    man.render_name_section(&mut page).unwrap();
    man.render_synopsis_section(&mut page).unwrap();
    man.render_description_section(&mut page).unwrap();
    if name.is_empty() {
        man.render_subcommands_section(&mut page).unwrap();
    }
    man.render_options_section(&mut page).unwrap();
    let sections = SECTIONS.iter().filter(|(title, _)| name.is_empty() || *title != "SIGNALS");
    for (title, entries) in sections {
        let mut section = Roff::new();
        section.control("SH", [*title]);
        for (term, text) in *entries {
            if !term.is_empty() {
                section.control("TP", []);
                section.text([bold(*term)]);
            }
            section.text([roman(*text)]);
        }
        section.to_writer(&mut page).unwrap();
    }
    // An empty date has to be quoted, or the next word is one.
    String::from_utf8(page).unwrap().replacen(" 8  ", " 8 \"\" ", 1)
}

#[test]
fn the_manual_pages_say_what_the_flags_are_and_format_without_a_warning() {
    for name in [""].into_iter().chain(SUBCOMMANDS) {
        let dash = if name.is_empty() { "" } else { "-" };
        let file = format!("{DEPLOY}/man/flanneld{dash}{name}.8");
        golden(&file, &page(name));
        assert_eq!(sh(&format!("groff -man -ww -Tutf8 -z {file} 2>&1")), "", "{file}");
    }
    let formatted = sh(&format!("groff -man -Tascii -P-cbu -rLL=100n {DEPLOY}/man/flanneld.8"));
    for text in ["EXIT STATUS", "flanneld-cleanup(8)", "--iface", "[default: 5]"] {
        assert!(formatted.contains(text), "{text} in {formatted}");
    }
}

#[test]
fn shells_complete_subcommands_and_flags() {
    for (shell, file) in
        [(Shell::Bash, "flanneld.bash"), (Shell::Zsh, "_flanneld"), (Shell::Fish, "flanneld.fish")]
    {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut flanneld::config::definition(), "flanneld", &mut script);
        golden(format!("{DEPLOY}/completions/{file}"), &String::from_utf8(script).unwrap());
    }
    let complete = |words: &str, last: &str| {
        let script = format!(
            "source {DEPLOY}/completions/flanneld.bash; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
             _flanneld flanneld '{last}' ''; echo \"${{COMPREPLY[@]}}\""
        );
        sh(&format!("bash -ec '{}'", script.replace('\'', "'\\''")))
    };
    assert_eq!(complete("flanneld st", "st"), "status\n");
    assert_eq!(complete("flanneld cleanup --dry", "--dry"), "--dry-run\n");
    assert_eq!(complete("flanneld --lease-d", "--lease-d"), "--lease-db\n");
}
