//! A way to a server that a test can cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

use flannel_lease::conformance::within;

/// A TCP proxy. Dropping it does not end it; the test's runtime does.
pub(crate) struct Cuttable {
    pub(crate) address: SocketAddr,
    cut: watch::Sender<bool>,
    received: Arc<AtomicU64>,
}

impl Cuttable {
    /// In front of this server.
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let this = Self {
            address: listener.local_addr().unwrap(),
            cut: watch::Sender::new(false),
            received: Arc::default(),
        };
        let (cut, received) = (this.cut.subscribe(), Arc::clone(&this.received));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !*cut.borrow() {
                    tokio::spawn(forward(client, server, cut.clone(), Arc::clone(&received)));
                }
            }
        });
        this
    }

    /// Closes all connections, and new ones at once until this is called with `false`. Nothing passes after it has returned.
    pub(crate) async fn set_cut(&self, cut: bool) {
        self.cut.send_replace(cut);
        // Each connection holds a receiver, and the task that accepts them another.
        let closed = async {
            while cut && self.cut.receiver_count() > 1 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        within("the end of the connections", closed).await;
    }

    /// Bytes that came from the server.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

async fn forward(
    mut client: TcpStream,
    server: SocketAddr,
    mut cut: watch::Receiver<bool>,
    received: Arc<AtomicU64>,
) {
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let answers = async {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from_server.read(&mut bytes).await {
            received.fetch_add(count.try_into().unwrap(), Ordering::Relaxed);
            if to_client.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = answers => {}
        _ = copy(&mut from_client, &mut to_server) => {}
        _ = cut.wait_for(|cut| *cut) => {}
    }
}
