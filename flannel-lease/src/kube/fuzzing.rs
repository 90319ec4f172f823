use hyper::Uri;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt as _, duplex};
use tower::{Service as _, service_fn};

use super::annotations::Names;
use super::decode::{Format, ListDecoder, WatchDecoder, WatchItem};
use super::node::Node;
use super::{kubeconfig, response};

/// Reads lists, watches and refusals of a Kubernetes API server. The first two bytes choose the encoding, what it is,
/// and the size of the pieces in which it arrives.
pub fn kubernetes(bytes: &[u8]) {
    let Some(([choice, size], text)) = bytes.split_first_chunk() else { return };
    let format = if choice & 1 == 0 { Format::Json } else { Format::Protobuf };
    let mut pieces = text.chunks(usize::from(*size) + 1);
    match choice >> 1 & 3 {
        0 => {
            let (mut decoder, mut nodes) = (ListDecoder::new(format), Vec::new());
            if pieces.try_for_each(|piece| decoder.feed(piece, &mut nodes)).is_ok() {
                let _read_or_cut_off = decoder.finish();
            }
            nodes.iter().for_each(read);
        }
        1 => {
            let (mut decoder, mut items) = (WatchDecoder::new(format), Vec::new());
            let _read_or_malformed = pieces.try_for_each(|piece| decoder.feed(piece, &mut items));
            for item in &items {
                if let WatchItem::Apply(node) | WatchItem::Delete(node) | WatchItem::Bookmark(node) = item {
                    read(node);
                }
            }
        }
        _ => drop(response::status(500, format, text)),
    }
}

/// Reads what a node publishes.
fn read(node: &Node) {
    let (_, _) = (node.claimant(), node.version());
    let Ok(names) = Names::new("flannel.alpha.coreos.com") else { return };
    let _addresses = names.node_public(node.annotations());
    for (v4, v6) in [(true, false), (true, true)] {
        if let Ok(Some(key)) = node.key(v4, v6) {
            let (attributes, _gaps) = names.read(node.annotations(), key);
            let _changes = names.changes(&attributes, node.annotations());
        }
    }
}

/// Reads a kubeconfig.
pub fn kubeconfig(text: &[u8]) {
    if let Ok(config) = kubeconfig::parse(&String::from_utf8_lossy(text)) {
        let _proxies = kubeconfig::proxies(&config);
    }
}

/// Reads what a proxy answers to `CONNECT`.
pub fn proxy(answer: &[u8]) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
    let answer = answer.to_vec();
    let connector = service_fn(move |_: Uri| {
        let answer = answer.clone();
        async move {
            let (near, mut far) = duplex(64 << 10);
            tokio::spawn(async move {
                let _written = far.write_all(&answer).await;
                let _closed = far.shutdown().await;
                // The request is read, so that it can be written.
                let _read = tokio::io::copy(&mut far, &mut tokio::io::sink()).await;
            });
            Ok::<_, std::io::Error>(TokioIo::new(near))
        }
    });
    let mut tunnel = Tunnel::new(Uri::from_static("http://proxy:3128"), connector);
    let connected = tunnel.call(Uri::from_static("https://10.0.0.1:6443"));
    let _connected_or_refused = runtime.block_on(connected);
}
