//! TLS in front of an HTTP server, with client certificates that OpenSSL judges.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;

/// Arguments: a folder with `server.pem`, `server.key` and `ca.pem` (or `clients.pem`, if clients have
/// another authority), and the address of the server behind it. Prints the port. For each line of
/// input it cuts all connections and prints a line.
const PROGRAM: &str = r#"
import os, socket, ssl, sys, threading
folder, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
connections = []
def pump(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
def serve(connection):
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{folder}/server.pem", f"{folder}/server.key")
        clients = f"{folder}/clients.pem"
        context.load_verify_locations(clients if os.path.exists(clients) else f"{folder}/ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        client = context.wrap_socket(connection, server_side=True)
        server = socket.create_connection((host, port))
    except OSError:
        return
    connections.append(server)
    threading.Thread(target=pump, args=(server, client), daemon=True).start()
    pump(client, server)
def accept():
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
threading.Thread(target=accept, daemon=True).start()
for line in sys.stdin:
    while connections:
        try:
            connections.pop().shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
    print("cut", flush=True)
"#;

/// The front; it ends with the test.
pub(crate) struct TlsFront {
    port: u16,
    program: Mutex<(Child, BufReader<ChildStdout>)>,
}

impl TlsFront {
    /// With the certificates in `folder`, in front of the server at `url`.
    pub(crate) fn start(folder: &Path, url: &str) -> Self {
        let (host, port) = url.strip_prefix("http://").unwrap().split_once(':').unwrap();
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "python3", "-c", PROGRAM])
            .arg(folder)
            .args([host, port])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut port = String::new();
        lines.read_line(&mut port).unwrap();
        Self { port: port.trim().parse().unwrap(), program: (child, lines).into() }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Cuts every connection.
    pub(crate) fn cut(&self) {
        let (child, lines) = &mut *self.program.lock().unwrap();
        writeln!(child.stdin.as_mut().unwrap()).unwrap();
        lines.read_line(&mut String::new()).unwrap();
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        let (child, _) = self.program.get_mut().unwrap();
        drop(child.kill());
        drop(child.wait());
    }
}
