//! Tables of iptables-legacy and ip6tables-legacy, whose rules nftables does not show.

use std::fmt;
use std::fs;
use std::path::Path;

/// The tables of one family.
#[derive(Debug)]
pub(super) struct LegacyTables {
    /// `iptables` or `ip6tables`, with which the names of its programs begin.
    pub(super) command: &'static str,
    names: Vec<String>,
}

impl LegacyTables {
    /// The tables of both families, if they have any. `root` is the folder that has `proc`: `/` but in tests.
    pub(super) fn read(root: &Path) -> Vec<Self> {
        let families = [("iptables", "ip_tables_names"), ("ip6tables", "ip6_tables_names")].into_iter();
        let found = families.map(|(command, file)| {
            let names = fs::read_to_string(root.join("proc/thread-self/net").join(file)).unwrap_or_default();
            Self { command, names: names.split_whitespace().map(str::to_owned).collect() }
        });
        found.filter(|tables| !tables.names.is_empty()).collect()
    }

    /// Whether there is a table of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.names.iter().any(|other| other == name)
    }
}

impl fmt::Display for LegacyTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, names } = self;
        write!(f, "legacy {command} has the tables {}, whose rules nftables does not show", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read_of_each_family_that_has_any() {
        let root = tempfile::tempdir().unwrap();
        let net = root.path().join("proc/thread-self/net");
        fs::create_dir_all(&net).unwrap();
        fs::write(net.join("ip_tables_names"), "nat\nfilter\n").unwrap();
        fs::write(net.join("ip6_tables_names"), "").unwrap();
        let tables = LegacyTables::read(root.path());
        assert_eq!(
            tables.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["legacy iptables has the tables nat, filter, whose rules nftables does not show"]
        );
        assert!(tables[0].has("nat") && !tables[0].has("mangle"));
    }
}
