//! A kubeconfig from a file, read as kubectl reads it, with errors that quote nothing of it.

use std::error::Error;
use std::path::Path;

use hyper::Uri;
use kube::config::{Kubeconfig, KubeconfigError};

use crate::file;

/// Why a file is no kubeconfig. It holds secrets, so the text has the place and none of the contents.
#[derive(Debug, thiserror::Error)]
pub(super) enum Invalid {
    #[error("line {line}, column {column}: not valid YAML, or not what a kubeconfig has there")]
    At { line: u64, column: u64 },
    #[error("not a valid kubeconfig")]
    Somewhere,
    #[error(
        "the YAML documents of the file differ in kind or apiVersion; leave those with kind Config and apiVersion v1"
    )]
    Mismatch,
}

impl From<KubeconfigError> for Invalid {
    fn from(error: KubeconfigError) -> Self {
        match error {
            KubeconfigError::Parse(error) => match error.location() {
                Some(at) => Self::At { line: at.line(), column: at.column() },
                None => Self::Somewhere,
            },
            KubeconfigError::KindMismatch | KubeconfigError::ApiVersionMismatch => Self::Mismatch,
            _ => Self::Somewhere,
        }
    }
}

/// Reads and merges the documents of a file; what its paths are relative to is the file's folder. An empty
/// file is an empty kubeconfig.
///
/// Errors name line and column, not the file, and quote nothing of it.
pub(super) fn read(path: &Path) -> Result<Kubeconfig, Box<dyn Error + Send + Sync>> {
    let mut merged = parse(&file::read_text(path)?)?;
    if let Some(folder) = path.parent() {
        for path in paths(&mut merged) {
            // An absolute path stays as it is.
            if let Some(absolute) = folder.join(&*path).to_str() {
                *path = absolute.to_owned();
            }
        }
    }
    Ok(merged)
}

pub(super) fn parse(text: &str) -> Result<Kubeconfig, Invalid> {
    Ok(Kubeconfig::from_yaml(text.strip_prefix('\u{feff}').unwrap_or(text))?)
}

/// The proxies that its clusters name.
pub(super) fn proxies(config: &Kubeconfig) -> Vec<Uri> {
    let clusters = config.clusters.iter().filter_map(|named| named.cluster.as_ref());
    clusters.filter_map(|cluster| cluster.proxy_url.as_ref()?.parse().ok()).collect()
}

/// What names files. A plugin without a slash is searched in `PATH`.
fn paths(config: &mut Kubeconfig) -> impl Iterator<Item = &mut String> {
    let authorities =
        config.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()?.certificate_authority.as_mut());
    let users = config.auth_infos.iter_mut().filter_map(|named| named.auth_info.as_mut());
    let files = users.flat_map(|user| {
        let plugin =
            user.exec.as_mut().and_then(|exec| exec.command.as_mut()).filter(|path| path.contains('/'));
        [user.client_certificate.as_mut(), user.client_key.as_mut(), user.token_file.as_mut(), plugin]
    });
    authorities.chain(files.flatten())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use serde_json::to_value;

    use super::*;

    const SECRET: &str = "s3cret-Tok.en";

    /// With what administrators write: comments, quotes, block text, a plugin, numbers as names, anchors.
    const WHOLE: &str = r#"
apiVersion: v1
kind: Config
preferences: {}
current-context: "prod" # the one to use
clusters:
- name: prod
  cluster: &cluster
    server: https://10.0.0.1:6443
    certificate-authority: pki/ca.crt
    insecure-skip-tls-verify: off
    extensions:
    - name: client.authentication.k8s.io/exec
      extension: {audience: 7, many: [1, -2, 2.5, true, null, ~, text], nested: {a: 'b'}}
- name: 2
  cluster: {<<: *cluster, server: 'https://10.0.0.2:6443'}
- cluster:
    certificate-authority-data: >-
      TFMwdExTMUNSVWRKVGlC
    certificate-authority: /etc/ssl/ca.crt
  name: |-
    third
contexts:
- {name: prod, context: {cluster: prod, user: 1, namespace: }}
users:
- name: 1
  user:
    client-certificate: ../me.crt
    client-key: me.key
    tokenFile: token
    token: 12345
- name: plugin
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: bin/get-token
      args: [--cluster, "prod", 3]
      env: [{name: A, value: "1"}]
      interactiveMode: IfAvailable
      provideClusterInfo: yes
- name: path
  user: {exec: {command: aws}, as-groups: [a, b], as-user-extra: {k: [v]}}
"#;

    fn write(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        fs::write(&file, text).unwrap();
        (folder, file)
    }

    fn refused(text: &str) -> String {
        read(&write(text).1).unwrap_err().to_string()
    }

    #[test]
    fn a_kubeconfig_reads_as_kube_reads_it() {
        let with_bom = format!("\u{feff}{WHOLE}");
        let as_json = r#"{"apiVersion": "v1", "users": [{"name": "u", "user": {"token": "a\u00e4\"b"}}]}"#;
        for (what, text) in [
            ("whole", WHOLE),
            ("byte order mark", &with_bom),
            ("JSON", as_json),
            ("nothing", ""),
            ("comments only", "# nothing yet\n"),
            ("empty documents", "---\n---\nkind: Config\n---\n"),
            (
                "several documents",
                "{kind: Config, clusters: [{name: a}]}\n---\nclusters: [{name: a, cluster: {server: x}}, {name: b}]\ncurrent-context: c\n",
            ),
            ("lists that are null", "clusters:\nusers: null\ncontexts: ~\n"),
            ("fields nobody knows", "colour: blue\nusers: [{name: u, mood: [good], user: {since: 2020}}]\n"),
            (
                "merges of several",
                "users: [{name: a, user: {<<: [{username: one}, {username: two, token: t}]}}]\n",
            ),
        ] {
            let (_folder, file) = write(text);
            let expected = Kubeconfig::read_from(&file).unwrap();
            let found = read(&file).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(to_value(found).unwrap(), to_value(expected).unwrap(), "{what}");
        }
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let (folder, file) = write(WHOLE);
        let config = to_value(read(&file).unwrap()).unwrap();
        let at = |pointer| config.pointer(pointer).unwrap().as_str().unwrap().to_owned();
        let inside = |path: &str| folder.path().join(path).to_str().unwrap().to_owned();
        assert_eq!(at("/clusters/0/cluster/certificate-authority"), inside("pki/ca.crt"));
        assert_eq!(at("/clusters/2/cluster/certificate-authority"), "/etc/ssl/ca.crt");
        assert_eq!(at("/users/0/user/client-certificate"), inside("../me.crt"));
        assert_eq!(at("/users/0/user/tokenFile"), inside("token"));
        assert_eq!(at("/users/1/user/exec/command"), inside("bin/get-token"));
        assert_eq!(at("/users/2/user/exec/command"), "aws");
    }

    #[test]
    fn a_mistake_is_told_by_its_place_and_not_by_what_stands_there() {
        for (text, told) in [
            (format!("users:\n- name: u\n  user: {SECRET}\n"), "line 3, column 9: not"),
            (format!("users:\n- user: {{token: {SECRET}}}\n"), "line 2, column 3: not"),
            (format!("users:\n- name: u\n  user:\n    token: [{SECRET}]\n"), "line 4, column 12: not"),
            (format!("users: {{{SECRET}: 1}}\n"), "line 1, column 8: not"),
            (format!("clusters: [{{name: c, cluster: {{insecure-skip-tls-verify: {SECRET}}}}}]"), "line 1"),
            (format!("users: [{{name: u, user: {{token: {SECRET}, token: x}}}}]"), "line 1"),
            (format!("users: [{{name: u, user: {{exec: {{interactiveMode: {SECRET}}}}}}}]"), "line 1"),
            (format!("kind: Config\nusers: [{{token: {SECRET}}}"), "line 2"),
            (format!("kind: Config\nuser: *{SECRET}\n"), "line 2, column 7: not"),
            (format!("{SECRET}\n"), "line 1, column 1: not"),
            (format!("a: &a [{SECRET}, *a]\n"), "line 1"),
            (format!("kind: a\n---\nkind: {SECRET}\n"), "differ in kind or apiVersion"),
            (format!("a: {{<<: [{SECRET}]}}\n"), "line 1"),
        ] {
            let error = refused(&text);
            assert!(error.contains(told), "{text}: {error}");
            assert!(!error.contains(SECRET), "{text}: {error}");
        }
    }

    #[test]
    fn a_small_file_cannot_fill_the_memory() {
        let mut bomb = "a0: &a0 [x]\n".to_owned();
        for level in 1..30 {
            bomb += &format!("a{level}: &a{level} [*a{0}, *a{0}, *a{0}]\n", level - 1);
        }
        assert!(refused(&bomb).contains("not valid YAML"));
        assert!(refused(&"[".repeat(100_000)).contains("not valid YAML"));
    }

    proptest! {
        #[test]
        fn damage_is_refused_or_read_and_never_quoted(
            at in 0..WHOLE.len(),
            length in 0..40_usize,
            damage in r#"[-\[\]{}:,&*!|>'"%#~ \n\ta1<]{0,6}"#,
        ) {
            let whole = WHOLE.replace("12345", SECRET);
            let end = (at + length).min(whole.len());
            let text = format!("{}{damage}{}", &whole[..at], &whole[end..]);
            if let Err(error) = read(&write(&text).1) {
                prop_assert!(!error.to_string().contains(SECRET), "{error}");
            }
        }
    }
}
