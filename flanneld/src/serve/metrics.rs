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

    /// The end of a sample's name, after the name of its family.
    fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_total",
            Self::Info => "_info",
            Self::Gauge | Self::Histogram => "",
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
    samples: Put,
}

impl Family {
    /// What its samples are called, as a query has it; a histogram's without `_bucket`, `_sum` and `_count`.
    #[must_use]
    pub fn sample(&self) -> String {
        format!("{}{}", self.name, self.kind.suffix())
    }
}

type Put = fn(&Status, &mut Samples<'_>);

const fn counter(name: &'static str, help: &'static str, samples: Put) -> Family {
    Family { name, kind: Kind::Counter, help, samples }
}

const fn gauge(name: &'static str, help: &'static str, samples: Put) -> Family {
    Family { name, kind: Kind::Gauge, help, samples }
}

const fn histogram(name: &'static str, help: &'static str, samples: Put) -> Family {
    Family { name, kind: Kind::Histogram, help, samples }
}

const fn info(name: &'static str, help: &'static str, samples: Put) -> Family {
    Family { name, kind: Kind::Info, help, samples }
}

/// Everything that is told. What does not apply, e.g. the end of a lease that never ends, has no sample.
pub const FAMILIES: &[Family] = &[
    info("flanneld_build", "Version of flanneld, its backend and its lease store.", |status, put| {
        let labels =
            [("version", &*status.version), ("backend", &status.backend), ("store", &status.store.kind)];
        put.sample(&labels, &1);
    }),
    gauge("flanneld_ready", "1 if every condition of /readyz holds.", |status, put| {
        put.only(&u8::from(status.ready))
    }),
    gauge("flanneld_condition", "1 if this condition of /readyz holds.", |status, put| {
        for condition in Condition::ALL {
            let holds = !status.unmet.contains_key(condition.name());
            put.sample(&[("condition", condition.label())], &u8::from(holds));
        }
    }),
    counter("flanneld_reconcile_passes", "Reconcile passes, by pass and result.", |status, put| {
        for (work, noted) in &status.work {
            put.sample(&[("work", work), ("result", "succeeded")], &noted.succeeded);
            put.sample(&[("work", work), ("result", "failed")], &noted.failed);
        }
    }),
    histogram("flanneld_reconcile_duration_seconds", "Duration of reconcile passes.", |status, put| {
        status.work.iter().for_each(|(work, noted)| put.durations(work, noted));
    }),
    gauge(
        "flanneld_reconcile_lag_seconds",
        "Seconds since the reconcile pass `work` started to fail; 0 if its last run succeeded.",
        |status, put| {
            status.work.iter().for_each(|(work, noted)| put.sample(&[("work", work)], &noted.lag));
        },
    ),
    gauge(
        "flanneld_reconcile_last_success_timestamp_seconds",
        "Time of the last successful pass.",
        |status, put| {
            for (work, noted) in &status.work {
                put.maybe(&[("work", work)], noted.last_success);
            }
        },
    ),
    gauge(
        "flanneld_nft_in_place",
        "1 if the kernel held exactly the desired rules at the last check.",
        |status, put| put.only(&u8::from(status.rules.right)),
    ),
    counter("flanneld_nft_transactions", "Transactions committed to nftables.", |status, put| {
        put.only(&status.rules.transactions)
    }),
    counter("flanneld_nft_changes", "Changes in these transactions.", |status, put| {
        put.only(&status.rules.changes)
    }),
    counter(
        "flanneld_nft_foreign_commits",
        "Commits to nftables by other processes: with changes to flannel's tables (ours), or to other tables only (others).",
        |status, put| {
            put.sample(&[("tables", "ours")], &status.foreign.ours);
            put.sample(&[("tables", "others")], &status.foreign.others);
        },
    ),
    counter(
        "flanneld_nft_notification_overflows",
        "Overflows of the nftables notification queue. Each is followed by a full check.",
        |status, put| put.only(&status.foreign.overflows),
    ),
    gauge(
        "flanneld_forward_obstacles",
        "Chains of other programs that may drop forwarded pod traffic; /readyz names them.",
        |status, put| put.only(&status.obstacles.len()),
    ),
    counter(
        "flanneld_repairs",
        "Repairs of changes by other processes, by repaired object and by how flanneld detected the change.",
        |status, put| {
            for object in ["overlay", "rules"] {
                for (cause, label) in [(Cause::Notification, "notification"), (Cause::Check, "check")] {
                    let count =
                        status.repair_counts.iter().find(|all| all.object == object && all.cause == cause);
                    put.sample(&[("object", object), ("cause", label)], &count.map_or(0, |all| all.count));
                }
            }
        },
    ),
    gauge(
        "flanneld_peers",
        "Subnets of other nodes: in the kernel (programmed), waiting or refused by the kernel (pending), unusable (skipped).",
        |status, put| {
            let PeerCounts { programmed, pending, skipped, .. } = &status.peers;
            for (state, count) in [("programmed", programmed), ("pending", pending), ("skipped", skipped)] {
                put.sample(&[("state", state)], count);
            }
        },
    ),
    gauge(
        "flanneld_wireguard_peers",
        "Peers of a WireGuard device: with a handshake in the last 180 seconds (connected), or without (disconnected), which an idle peer is too.",
        |status, put| {
            for device in wireguard_devices(status) {
                let Some(sessions) = device.sessions else { continue };
                for (state, count) in
                    [("connected", sessions.connected), ("disconnected", sessions.disconnected)]
                {
                    put.sample(&[("device", &device.name), ("state", state)], &count);
                }
            }
        },
    ),
    gauge(
        "flanneld_wireguard_peer_bytes",
        "Bytes that a WireGuard device has exchanged with its present peers.",
        |status, put| {
            for device in wireguard_devices(status) {
                let Some(sessions) = device.sessions else { continue };
                for (direction, bytes) in [("received", sessions.rx_bytes), ("sent", sessions.tx_bytes)] {
                    put.sample(&[("device", &device.name), ("direction", direction)], &bytes);
                }
            }
        },
    ),
    gauge(
        "flanneld_wireguard_latest_handshake_timestamp_seconds",
        "Time of the last handshake with a WireGuard peer; absent if there was none. While packets flow, there is one every 2 minutes.",
        |status, put| put.wireguard_peers(status, |peer| peer.latest_handshake),
    ),
    counter(
        "flanneld_wireguard_received_bytes",
        "Bytes received from a WireGuard peer, with the overhead of WireGuard.",
        |status, put| put.wireguard_peers(status, |peer| Some(peer.rx_bytes)),
    ),
    counter(
        "flanneld_wireguard_sent_bytes",
        "Bytes sent to a WireGuard peer, with the overhead of WireGuard and with attempts of handshakes.",
        |status, put| put.wireguard_peers(status, |peer| Some(peer.tx_bytes)),
    ),
    gauge(
        "flanneld_peer_leases",
        "Leases of other nodes in the store as last listed or watched, those that give no peer included.",
        |status, put| put.only(&status.peers.leases),
    ),
    gauge(
        "flanneld_store_up",
        "1 if the latest attempt to reach the lease store succeeded.",
        |status, put| put.only(&u8::from(status.store.healthy)),
    ),
    counter(
        "flanneld_store_requests",
        "Requests to the lease store by result: answered, which each message of a watch is too, or failed.",
        |status, put| {
            put.sample(&[("result", "answered")], &status.store.answers);
            put.sample(&[("result", "failed")], &status.store.failures);
        },
    ),
    gauge(
        "flanneld_store_last_contact_timestamp_seconds",
        "Time of the last answer of the lease store.",
        |status, put| put.maybe(&[], status.store.last_contact),
    ),
    gauge(
        "flanneld_store_last_event_timestamp_seconds",
        "Time of the last lease event or complete listing of the watch.",
        |status, put| put.maybe(&[], status.store.last_event),
    ),
    gauge(
        "flanneld_lease_expiry_timestamp_seconds",
        "Time when this node's lease expires unless renewed; absent if it does not expire.",
        |status, put| put.maybe(&[], status.lease.expires),
    ),
    gauge(
        "flanneld_lease_renew_margin_seconds",
        "Time before the expiry at which the lease is renewed; absent on Kubernetes, where leases do not expire.",
        |status, put| put.maybe(&[], status.lease.renew_margin),
    ),
    counter(
        "flanneld_masqueraded_connections",
        "Masqueraded connections, from the rules' counters: from pods to other networks, or from other networks to pods.",
        |status, put| {
            put.counters(status, MASQUERADED_FROM_PODS, MASQUERADED_TO_PODS, |counter| counter.packets);
        },
    ),
    counter(
        "flanneld_forwarded_packets",
        "Forwarded packets that flannel's rules accept, from the rules' counters.",
        |status, put| {
            put.counters(status, FORWARDED_FROM_PODS, FORWARDED_TO_PODS, |counter| counter.packets);
        },
    ),
    counter("flanneld_forwarded_bytes", "Bytes of these packets.", |status, put| {
        put.counters(status, FORWARDED_FROM_PODS, FORWARDED_TO_PODS, |counter| counter.bytes);
    }),
    gauge("flanneld_mtu_bytes", "MTU of the uplink, and of pods.", |status, put| {
        put.sample(&[("of", "interface")], &status.interface.mtu);
        put.sample(&[("of", "pods")], &status.interface.pod_mtu);
    }),
    gauge("process_start_time_seconds", "Start time of flanneld.", |status, put| put.only(&status.started)),
    counter("process_cpu_seconds", "CPU time that flanneld has used.", |status, put| {
        put.only(&status.process.cpu_seconds)
    }),
    gauge("process_resident_memory_bytes", "Resident memory of flanneld.", |status, put| {
        put.only(&status.process.resident_bytes)
    }),
    gauge("process_open_fds", "Open file descriptors of flanneld.", |status, put| {
        put.only(&status.process.open_fds)
    }),
];

/// All families.
#[must_use]
pub fn render(status: &Status, format: Format) -> String {
    let mut text = String::with_capacity(16 * 1024);
    for family in FAMILIES {
        let Family { name, kind, help, samples } = family;
        let (described, kind) = match (format, kind) {
            (Format::OpenMetrics, kind) => ((*name).to_owned(), kind),
            (Format::Classic, Kind::Info) => (family.sample(), &Kind::Gauge),
            (Format::Classic, kind) => (family.sample(), kind),
        };
        let kind = kind.name();
        let _infallible = writeln!(text, "# HELP {described} {help}\n# TYPE {described} {kind}");
        samples(status, &mut Samples { family, text: &mut text });
    }
    if format == Format::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

/// Where a family's samples go.
#[derive(Debug)]
struct Samples<'a> {
    family: &'a Family,
    text: &'a mut String,
}

impl Samples<'_> {
    fn sample(&mut self, labels: &[(&str, &str)], value: &dyn Display) {
        self.line(self.family.kind.suffix(), labels, value);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: &dyn Display) {
        self.text.push_str(self.family.name);
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
        self.sample(&[], value);
    }

    fn maybe(&mut self, labels: &[(&str, &str)], value: Option<impl Display>) {
        if let Some(value) = value {
            self.sample(labels, &value);
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
            self.sample(&[("family", &counter.family), ("direction", direction)], &value(counter));
        }
    }

    fn durations(&mut self, work: &str, noted: &WorkStatus) {
        let mut so_far = 0;
        let bounds = BUCKETS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(noted.durations) {
            so_far += count;
            self.line("_bucket", &[("work", work), ("le", &bound)], &so_far);
        }
        self.line("_sum", &[("work", work)], &noted.seconds);
        self.line("_count", &[("work", work)], &so_far);
    }

    /// A sample of each peer of the WireGuard devices.
    fn wireguard_peers(&mut self, status: &Status, value: fn(&WireguardPeerStatus) -> Option<u64>) {
        for device in wireguard_devices(status) {
            for peer in &device.wireguard_peers {
                let labels =
                    [("device", &*device.name), ("public_key", &peer.key), ("allowed_ips", &peer.subnets)];
                if let Some(value) = value(peer) {
                    self.sample(&labels, &value);
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
