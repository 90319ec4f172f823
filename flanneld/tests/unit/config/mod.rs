//! What operators write, and what is made of it. No privileges needed.

mod desired;
mod flags;
mod lease_attributes;
mod log;
mod malformed_input;
mod net_conf;
mod pools;
mod subcommands;
mod subnet_env;
mod wireguard;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use flanneld::config::{Command, Config, Problems, Source};

/// Arguments, environment and files of an imagined process.
#[derive(Default)]
struct Imagined {
    args: Vec<OsString>,
    env: BTreeMap<String, OsString>,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

const NET_CONF: &str = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#;

impl Imagined {
    fn args<S: Into<OsString>>(args: impl IntoIterator<Item = S>) -> Self {
        let path = PathBuf::from("/etc/kube-flannel/net-conf.json");
        Self {
            args: args.into_iter().map(Into::into).collect(),
            files: [(path, NET_CONF.into())].into(),
            ..Self::default()
        }
    }

    fn line(line: &str) -> Self {
        Self::args(line.split_whitespace())
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.into());
        self
    }

    fn net_conf(mut self, text: &str) -> Self {
        self.files.insert("/etc/kube-flannel/net-conf.json".into(), text.into());
        self
    }

    fn config(&self) -> Config {
        match Command::read(self) {
            Ok(Command::Run(config)) => *config,
            other => panic!("{other:?}"),
        }
    }

    fn problems(&self) -> Problems {
        Command::read(self).unwrap_err()
    }
}

impl Source for Imagined {
    fn args(&self) -> Vec<OsString> {
        self.args.clone()
    }

    fn env(&self, name: &str) -> Option<OsString> {
        self.env.get(name).cloned()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}
