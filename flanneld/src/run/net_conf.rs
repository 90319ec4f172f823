//! Where the network configuration is kept, and waiting for one that can be used.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::error;

use crate::config::{Config, NetConf};
use crate::file;
use crate::open_store::ConfiguredStore;
use flannel_lease::Chain;

/// Time between two attempts, as upstream's.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Time after which a problem that stays is logged again.
const REMINDER_INTERVAL: Duration = Duration::from_secs(60);

/// Where the configuration is kept.
#[derive(Clone, Debug)]
pub enum Written {
    /// In this file.
    File(PathBuf),
    /// Under etcd's `<prefix>/config`.
    Etcd(Arc<flannel_lease::etcd::EtcdStore>),
}

impl Written {
    /// In etcd if leases are there too, as upstream has it; else in the file.
    #[must_use]
    pub fn of(store: &ConfiguredStore, config: &Config) -> Self {
        match store {
            ConfiguredStore::Etcd(store) => Self::Etcd(Arc::clone(store)),
            _ => Self::File(config.net_conf_file.clone()),
        }
    }

    /// The text, or why there is none.
    pub(crate) async fn read(&self) -> Result<String, String> {
        match self {
            Self::File(path) => file::read_text(path).map_err(|error| {
                let path = path.display();
                format!(
                    "failed to read net conf: {path}: {error}; write one there or name another with --net-config-path"
                )
            }),
            Self::Etcd(store) => store.config().await.map_err(|error| Chain(&error).to_string()),
        }
    }

    /// The configuration in a text, or where it is and every key that is wrong.
    pub(crate) fn parse(&self, text: &str) -> Result<NetConf, String> {
        NetConf::parse(text.as_bytes()).map_err(|error| match self {
            Self::File(path) => format!("error parsing subnet config: {}: {error}", path.display()),
            Self::Etcd(store) => format!("error parsing subnet config: {}: {error}", store.config_key()),
        })
    }

    /// Waits until there is a configuration that can be used: an operator may write or correct it after the
    /// start. Calls `waits` with the problem whenever it changes.
    pub(crate) async fn wait_until_usable(&self, waits: impl Fn(&str)) -> NetConf {
        let attempt = async || self.parse(&self.read().await?);
        poll(attempt, |problem, is_due| {
            waits(&format!("Couldn't fetch network config: {problem}"));
            if is_due {
                error!(
                    "Couldn't fetch network config: {problem}; flanneld tries again every second and leaves devices, \
                     rules and routes as they are until it is valid"
                );
            }
        })
        .await
    }
}

/// Tries every second until an attempt succeeds. Calls `say` with each problem that differs from the
/// last one, and with whether to log it: not if it was logged less than a minute ago.
async fn poll<T>(mut attempt: impl AsyncFnMut() -> Result<T, String>, mut say: impl FnMut(&str, bool)) -> T {
    let mut last = String::new();
    let mut logged: Vec<(String, Instant)> = Vec::new();
    loop {
        let problem = match attempt().await {
            Ok(done) => return done,
            Err(problem) => problem,
        };
        logged.retain(|(_, at)| at.elapsed() < REMINDER_INTERVAL);
        let is_due = !logged.iter().any(|(text, _)| *text == problem);
        if is_due || problem != last {
            say(&problem, is_due);
        }
        if is_due {
            logged.push((problem.clone(), Instant::now()));
        }
        last = problem;
        sleep(POLL_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_configuration_is_tried_every_second_and_a_problem_logged_once_a_minute() {
        let began = Instant::now();
        let (mut attempts, mut logged, mut told) = (0, Vec::new(), 0);
        poll(
            async || {
                attempts += 1;
                match attempts {
                    1..=30 => Err("there is none".to_owned()),
                    // Two members of a store that say different things in turn.
                    31..=180 if attempts % 2 == 0 => Err("it is malformed".to_owned()),
                    31..=180 => Err("there is none".to_owned()),
                    _ => Ok(()),
                }
            },
            |problem, is_due| {
                told += 1;
                if is_due {
                    logged.push((began.elapsed().as_secs(), problem.to_owned()));
                }
            },
        )
        .await;
        assert_eq!(began.elapsed(), Duration::from_secs(180), "{attempts} attempts");
        let expected = [(0, "there is none"), (31, "it is malformed"), (60, "there is none")];
        let later = [(91, "it is malformed"), (120, "there is none"), (151, "it is malformed")];
        let expected: Vec<_> =
            expected.into_iter().chain(later).map(|(at, text)| (at, text.to_owned())).collect();
        assert_eq!(logged, expected);
        assert_eq!(told, 150, "once for the first 31 attempts, then at each change");
    }
}
