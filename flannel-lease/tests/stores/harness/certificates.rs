//! Certificates as openssl makes them.

use std::path::Path;
use std::process::Command;

/// Makes `ca.pem`, `server.pem` for 127.0.0.1 and `client.pem` in `dir`, with their keys.
pub(crate) fn certificates(dir: &Path) {
    authorize(
        dir,
        r#"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.pem \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign
"#,
        "-extfile ext",
    );
}

/// The same as made by hand without extensions: the certificates of the authority and of the client
/// have X.509 version 1.
pub(crate) fn version_1_certificates(dir: &Path) {
    authorize(
        dir,
        r#"
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=test-ca -keyout ca.key -out ca.csr
openssl x509 -req -in ca.csr -signkey ca.key -days 2 -out ca.pem
"#,
        "",
    );
    for name in ["ca.pem", "client.pem"] {
        let shown = shell(dir, &format!("openssl x509 -in {name} -noout -text"));
        assert!(shown.contains("Version: 1 (0x0)"), "{shown}");
    }
}

fn authorize(dir: &Path, authority: &str, client_extensions: &str) {
    let script = format!(
        r#"
set -e
{authority}
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=server -keyout server.key -out server.csr
openssl req -newkey rsa:2048 -nodes -subj /CN=client -keyout client.key -out client.csr
printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' > ext
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out server.pem
openssl x509 -req -in client.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 {client_extensions} -out client.pem
"#
    );
    shell(dir, &script);
}

/// Runs a script in `dir`; what it prints.
pub(crate) fn shell(dir: &Path, script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
