//! The status as text for Prometheus, in the [OpenMetrics] and in its classic format. Every family is described once,
//! in [`FAMILIES`]; docs/metrics.md lists the same.
//!
//! [OpenMetrics]: https://prometheus.io/docs/specs/om/open_metrics_spec/

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use crate::desired::rules::{
    FORWARDED_FROM_PODS, FORWARDED_TO_PODS, MASQUERADED_FROM_PODS, MASQUERADED_TO_PODS,
};
use crate::status::model::{
    BUCKETS, Cause, CounterStatus, DeviceStatus, PeerCounts, Status, WireguardPeerStatus, WorkStatus,
};
use crate::status::readiness::Condition;

/// A text format.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' own, 0.0.4.
    Classic,
}

impl Format {
    /// The one that a request with this `Accept` header should get: OpenMetrics, unless only plain text is named.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        let mut types = accept.split(',').map(|range| range.split(';').next().unwrap_or_default().trim());
        if accept.contains("application/openmetrics-text") || !types.any(|range| range == "text/plain") {
            Self::OpenMetrics
        } else {
            Self::Classic
        }
    }

    /// Value of the `Content-Type` header.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What kind of values a family has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Only grows; samples are called `<name>_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bound; samples are called `<name>_bucket`, `_sum` and `_count`.
    Histogram,
    /// Labels with the value 1; the sample is called `<name>_info`.
    Info,
}

impl Kind {
    /// As in OpenMetrics' `# TYPE`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

/// A family of metrics.
#[derive(Debug)]
pub struct Family {
    /// Without the suffix of its kind.
    pub name: &'static str,
    /// Of its values.
    pub kind: Kind,
    /// What it measures, as a sentence.
    pub help: &'static str,
    samples: fn(&Status, &mut Samples<'_>),
}

impl Family {
    /// What its samples are called, as a query has it; a histogram's without `_bucket`, `_sum` and `_count`.
    #[must_use]
    pub fn sample(&self) -> String {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        format!("{}{suffix}", self.name)
    }
}

/// Everything that is told. What does not apply, e.g. the end of a lease that never ends, has no sample.
pub const FAMILIES: &[Family] = &[
    Family {
        name: "flanneld_build",
        kind: Kind::Info,
        help: "Version of flanneld, its backend and its lease store.",
        samples: |status, put| {
            let labels =
                [("version", &*status.version), ("backend", &status.backend), ("store", &status.store.kind)];
            put.sample("_info", &labels, &1);
        },
    },
    Family {
        name: "flanneld_ready",
        kind: Kind::Gauge,
        help: "1 if every condition of /readyz holds.",
        samples: |status, put| put.only(&u8::from(status.ready)),
    },
    Family {
        name: "flanneld_condition",
        kind: Kind::Gauge,
        help: "1 if this condition of /readyz holds.",
        samples: |status, put| {
            for condition in Condition::ALL {
                let holds = !status.unmet.contains_key(condition.name());
                put.sample("", &[("condition", condition.label())], &u8::from(holds));
            }
        },
    },
    Family {
        name: "flanneld_reconcile_passes",
        kind: Kind::Counter,
        help: "Reconcile passes, by pass and result.",
        samples: |status, put| {
            for (work, noted) in &status.work {
                put.sample("_total", &[("work", work), ("result", "succeeded")], &noted.succeeded);
                put.sample("_total", &[("work", work), ("result", "failed")], &noted.failed);
            }
        },
    },
    Family {
        name: "flanneld_reconcile_duration_seconds",
        kind: Kind::Histogram,
        help: "Duration of reconcile passes.",
        samples: |status, put| {
            for (work, noted) in &status.work {
                durations(work, noted, put);
            }
        },
    },
    Family {
        name: "flanneld_reconcile_lag_seconds",
        kind: Kind::Gauge,
        help: "Time since this pass started to fail; 0 if it succeeds.",
        samples: |status, put| {
            status.work.iter().for_each(|(work, noted)| put.sample("", &[("work", work)], &noted.lag));
        },
    },
    Family {
        name: "flanneld_reconcile_last_success_timestamp_seconds",
        kind: Kind::Gauge,
        help: "Time of the last successful pass.",
        samples: |status, put| {
            for (work, noted) in &status.work {
                put.maybe(&[("work", work)], noted.last_success);
            }
        },
    },
    Family {
        name: "flanneld_nft_in_place",
        kind: Kind::Gauge,
        help: "1 if the kernel held exactly the desired rules at the last check.",
        samples: |status, put| put.only(&u8::from(status.rules.right)),
    },
    Family {
        name: "flanneld_nft_transactions",
        kind: Kind::Counter,
        help: "Transactions committed to nftables.",
        samples: |status, put| put.sample("_total", &[], &status.rules.transactions),
    },
    Family {
        name: "flanneld_nft_changes",
        kind: Kind::Counter,
        help: "Changes in these transactions.",
        samples: |status, put| put.sample("_total", &[], &status.rules.changes),
    },
    Family {
        name: "flanneld_nft_foreign_commits",
        kind: Kind::Counter,
        help: "Commits to nftables by other processes: with changes to flannel's tables (ours), or to other tables only (others).",
        samples: |status, put| {
            put.sample("_total", &[("tables", "ours")], &status.foreign.ours);
            put.sample("_total", &[("tables", "others")], &status.foreign.others);
        },
    },
    Family {
        name: "flanneld_nft_notification_overflows",
        kind: Kind::Counter,
        help: "Overflows of the nftables notification queue. Each is followed by a full check.",
        samples: |status, put| put.sample("_total", &[], &status.foreign.overflows),
    },
    Family {
        name: "flanneld_forward_obstacles",
        kind: Kind::Gauge,
        help: "Chains of other programs that may drop forwarded pod traffic; /readyz names them.",
        samples: |status, put| put.only(&status.obstacles.len()),
    },
    Family {
        name: "flanneld_repairs",
        kind: Kind::Counter,
        help: "Repairs of changes by other processes, by repaired object and by how flanneld detected the change.",
        samples: |status, put| {
            for object in ["overlay", "rules"] {
                for (cause, label) in [(Cause::Notification, "notification"), (Cause::Check, "check")] {
                    let count =
                        status.repair_counts.iter().find(|all| all.object == object && all.cause == cause);
                    put.sample(
                        "_total",
                        &[("object", object), ("cause", label)],
                        &count.map_or(0, |all| all.count),
                    );
                }
            }
        },
    },
    Family {
        name: "flanneld_peers",
        kind: Kind::Gauge,
        help: "Subnets of other nodes: in the kernel (programmed), waiting or refused by the kernel (pending), unusable (skipped).",
        samples: |status, put| {
            let PeerCounts { programmed, pending, skipped, .. } = &status.peers;
            for (state, count) in [("programmed", programmed), ("pending", pending), ("skipped", skipped)] {
                put.sample("", &[("state", state)], count);
            }
        },
    },
    Family {
        name: "flanneld_wireguard_peers",
        kind: Kind::Gauge,
        help: "Peers of a WireGuard device: with a handshake in the last 180 seconds (connected), or without (disconnected), which an idle peer is too.",
        samples: |status, put| {
            for device in wireguard_devices(status) {
                let Some(sessions) = device.sessions else { continue };
                for (state, count) in
                    [("connected", sessions.connected), ("disconnected", sessions.disconnected)]
                {
                    put.sample("", &[("device", &device.name), ("state", state)], &count);
                }
            }
        },
    },
    Family {
        name: "flanneld_wireguard_peer_bytes",
        kind: Kind::Gauge,
        help: "Bytes that a WireGuard device has exchanged with its present peers.",
        samples: |status, put| {
            for device in wireguard_devices(status) {
                let Some(sessions) = device.sessions else { continue };
                for (direction, bytes) in [("received", sessions.rx_bytes), ("sent", sessions.tx_bytes)] {
                    put.sample("", &[("device", &device.name), ("direction", direction)], &bytes);
                }
            }
        },
    },
    Family {
        name: "flanneld_wireguard_latest_handshake_timestamp_seconds",
        kind: Kind::Gauge,
        help: "Time of the last handshake with a WireGuard peer; absent if there was none. While packets flow, there is one every 2 minutes.",
        samples: |status, put| put.wireguard_peers(status, "", |peer| peer.latest_handshake),
    },
    Family {
        name: "flanneld_wireguard_received_bytes",
        kind: Kind::Counter,
        help: "Bytes received from a WireGuard peer, with the overhead of WireGuard.",
        samples: |status, put| put.wireguard_peers(status, "_total", |peer| Some(peer.rx_bytes)),
    },
    Family {
        name: "flanneld_wireguard_sent_bytes",
        kind: Kind::Counter,
        help: "Bytes sent to a WireGuard peer, with the overhead of WireGuard and with attempts of handshakes.",
        samples: |status, put| put.wireguard_peers(status, "_total", |peer| Some(peer.tx_bytes)),
    },
    Family {
        name: "flanneld_peer_leases",
        kind: Kind::Gauge,
        help: "Leases of other nodes in the store.",
        samples: |status, put| put.only(&status.peers.leases),
    },
    Family {
        name: "flanneld_store_up",
        kind: Kind::Gauge,
        help: "1 if the latest attempt to reach the lease store succeeded.",
        samples: |status, put| put.only(&u8::from(status.store.healthy)),
    },
    Family {
        name: "flanneld_store_requests",
        kind: Kind::Counter,
        help: "Requests to and messages from the lease store, by result.",
        samples: |status, put| {
            put.sample("_total", &[("result", "answered")], &status.store.answers);
            put.sample("_total", &[("result", "failed")], &status.store.failures);
        },
    },
    Family {
        name: "flanneld_store_last_contact_timestamp_seconds",
        kind: Kind::Gauge,
        help: "Time of the last answer of the lease store.",
        samples: |status, put| put.maybe(&[], status.store.last_contact),
    },
    Family {
        name: "flanneld_store_last_event_timestamp_seconds",
        kind: Kind::Gauge,
        help: "Time of the last lease event or complete listing of the watch.",
        samples: |status, put| put.maybe(&[], status.store.last_event),
    },
    Family {
        name: "flanneld_lease_expiry_timestamp_seconds",
        kind: Kind::Gauge,
        help: "Time when this node's lease expires unless renewed; absent if it does not expire.",
        samples: |status, put| put.maybe(&[], status.lease.expires),
    },
    Family {
        name: "flanneld_lease_renew_margin_seconds",
        kind: Kind::Gauge,
        help: "Time before the expiry at which the lease is renewed; absent on Kubernetes, where leases do not expire.",
        samples: |status, put| put.maybe(&[], status.lease.renew_margin),
    },
    Family {
        name: "flanneld_masqueraded_connections",
        kind: Kind::Counter,
        help: "Masqueraded connections, from the rules' counters: from pods to other networks, or from other networks to pods.",
        samples: |status, put| {
            put.counters(status, MASQUERADED_FROM_PODS, MASQUERADED_TO_PODS, |counter| counter.packets);
        },
    },
    Family {
        name: "flanneld_forwarded_packets",
        kind: Kind::Counter,
        help: "Forwarded packets that flannel's rules accept, from the rules' counters.",
        samples: |status, put| {
            put.counters(status, FORWARDED_FROM_PODS, FORWARDED_TO_PODS, |counter| counter.packets);
        },
    },
    Family {
        name: "flanneld_forwarded_bytes",
        kind: Kind::Counter,
        help: "Bytes of these packets.",
        samples: |status, put| {
            put.counters(status, FORWARDED_FROM_PODS, FORWARDED_TO_PODS, |counter| counter.bytes);
        },
    },
    Family {
        name: "flanneld_mtu_bytes",
        kind: Kind::Gauge,
        help: "MTU of the uplink, and of pods.",
        samples: |status, put| {
            put.sample("", &[("of", "interface")], &status.interface.mtu);
            put.sample("", &[("of", "pods")], &status.interface.pod_mtu);
        },
    },
    Family {
        name: "process_start_time_seconds",
        kind: Kind::Gauge,
        help: "Start time of flanneld.",
        samples: |status, put| put.only(&status.started),
    },
    Family {
        name: "process_cpu_seconds",
        kind: Kind::Counter,
        help: "CPU time that flanneld has used.",
        samples: |status, put| put.sample("_total", &[], &status.process.cpu_seconds),
    },
    Family {
        name: "process_resident_memory_bytes",
        kind: Kind::Gauge,
        help: "Resident memory of flanneld.",
        samples: |status, put| put.only(&status.process.resident_bytes),
    },
    Family {
        name: "process_open_fds",
        kind: Kind::Gauge,
        help: "Open file descriptors of flanneld.",
        samples: |status, put| put.only(&status.process.open_fds),
    },
];

/// All families.
#[must_use]
pub fn render(status: &Status, format: Format) -> String {
    let mut text = String::with_capacity(16 * 1024);
    for family in FAMILIES {
        let Family { name, kind, help, samples } = family;
        let (described, kind) = match (format, kind) {
            (Format::OpenMetrics, kind) => ((*name).to_owned(), kind.name()),
            (Format::Classic, Kind::Info) => (family.sample(), Kind::Gauge.name()),
            (Format::Classic, kind) => (family.sample(), kind.name()),
        };
        let _infallible = writeln!(text, "# HELP {described} {help}\n# TYPE {described} {kind}");
        samples(status, &mut Samples { family: name, text: &mut text });
    }
    if format == Format::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

/// Where a family's samples go.
#[derive(Debug)]
struct Samples<'a> {
    family: &'static str,
    text: &'a mut String,
}

impl Samples<'_> {
    fn sample(&mut self, suffix: &str, labels: &[(&str, &str)], value: &dyn Display) {
        self.text.push_str(self.family);
        self.text.push_str(suffix);
        for (n, (label, value)) in labels.iter().enumerate() {
            let open = if n == 0 { '{' } else { ',' };
            let _infallible = write!(self.text, "{open}{label}=\"");
            for c in value.chars() {
                match c {
                    '\n' => self.text.push_str("\\n"),
                    '"' | '\\' => self.text.extend(['\\', c]),
                    _ => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _infallible = writeln!(self.text, "{close} {value}");
    }

    fn only(&mut self, value: &dyn Display) {
        self.sample("", &[], value);
    }

    fn maybe(&mut self, labels: &[(&str, &str)], value: Option<impl Display>) {
        if let Some(value) = value {
            self.sample("", labels, &value);
        }
    }

    fn counters(
        &mut self,
        status: &Status,
        from_pods: &str,
        to_pods: &str,
        value: fn(&CounterStatus) -> u64,
    ) {
        for counter in &status.rules.counters {
            let direction = match &*counter.name {
                name if name == from_pods => "from_pods",
                name if name == to_pods => "to_pods",
                _ => continue,
            };
            self.sample("_total", &[("family", &counter.family), ("direction", direction)], &value(counter));
        }
    }

    /// A sample of each peer of the WireGuard devices.
    fn wireguard_peers(
        &mut self,
        status: &Status,
        suffix: &str,
        value: fn(&WireguardPeerStatus) -> Option<u64>,
    ) {
        for device in wireguard_devices(status) {
            for peer in &device.wireguard_peers {
                let labels =
                    [("device", &*device.name), ("public_key", &peer.key), ("allowed_ips", &peer.subnets)];
                if let Some(value) = value(peer) {
                    self.sample(suffix, &labels, &value);
                }
            }
        }
    }
}

/// The WireGuard devices, each once, although it may carry both families.
fn wireguard_devices(status: &Status) -> impl Iterator<Item = &DeviceStatus> {
    let with_sessions = status.devices.iter().filter(|device| device.sessions.is_some());
    let by_name: BTreeMap<&str, &DeviceStatus> =
        with_sessions.map(|device| (&*device.name, device)).collect();
    by_name.into_values()
}

fn durations(work: &str, noted: &WorkStatus, put: &mut Samples<'_>) {
    let mut so_far = 0;
    let bounds = BUCKETS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
    for (bound, count) in bounds.zip(noted.durations) {
        so_far += count;
        put.sample("_bucket", &[("work", work), ("le", &bound)], &so_far);
    }
    put.sample("_sum", &[("work", work)], &noted.seconds);
    put.sample("_count", &[("work", work)], &so_far);
}
