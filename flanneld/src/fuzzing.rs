//! What the fuzz targets in testkit/fuzz call; no public API.
#![expect(clippy::panic, reason = "a panic is a finding")]

use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::sync::{mpsc, watch};

use crate::commands::status::Shown;
use crate::config::NetConf;
use crate::run::state_file::SavedState;
use crate::serve::http::{View, converse};
use crate::serve::{metrics, status_page};
use crate::status::model::Status;
use crate::status::query::StatusQuery;
use crate::status::readiness::Readiness;
use crate::status::snapshot::StatusRequest;

/// Reads a net-conf.json. What it is written as means the same.
pub fn net_conf(text: &[u8]) {
    if let Ok(net_conf) = NetConf::parse(text) {
        let written = net_conf.to_json();
        assert_eq!(NetConf::parse(written.as_bytes()).as_ref(), Ok(&net_conf), "{written}");
    }
}

/// Reads a state file. What it is written as means the same.
pub fn state_file(text: &[u8]) {
    let Ok(saved) = SavedState::parse(text) else { return };
    let mut written = Vec::new();
    saved.write_json(&mut written).unwrap_or_else(|error| panic!("{error}"));
    let again = SavedState::parse(&written).unwrap_or_else(|problem| panic!("{problem:?}"));
    // Peers that could not be read back are left out.
    assert_eq!(SavedState { peers: again.peers.clone(), ..saved }, again);
}

/// Reads what a daemon answers on its status socket, and shows it in every form.
pub fn status(text: &[u8]) {
    let Ok(status) = serde_json::from_slice::<Status>(text) else { return };
    let _text = Shown(&status).to_string();
    let _page = status_page::render(&status);
    let _metrics = metrics::render(&status, metrics::Format::accepted("application/openmetrics-text"));
}

/// Reads the requests of a connection to the health port.
pub fn health(requests: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let Ok(runtime) = runtime else { return };
    let requests = requests.to_vec();
    runtime.block_on(async move {
        let (_readiness, readiness) = watch::channel(Readiness::starting());
        let (_pulse, pulse) = watch::channel(Instant::now());
        let (questions, mut asked) = mpsc::channel::<StatusRequest>(4);
        tokio::spawn(async move {
            while let Some(question) = asked.recv().await {
                let _gone = question.answer.send(Box::default());
            }
        });
        let (near, far) = duplex(64 << 10);
        let (mut answers, mut client) = tokio::io::split(far);
        tokio::spawn(async move {
            let _written = client.write_all(&requests).await;
            let _closed = client.shutdown().await;
        });
        let reader = tokio::spawn(async move { answers.read_to_end(&mut Vec::new()).await });
        converse(near, View { readiness, status_query: StatusQuery::new(questions, pulse) }).await;
        let _answered = reader.await;
    });
}
