use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use crate::wait::{Pace, STRAGGLERS, slowed};
use crate::{LabError, Namespace, Pod, wait_for};

/// A stream of UDP packets from a pod to a host outside, each of them a flow of its own.
///
/// Connection tracking fixes a flow's translation at its first packet, so only new flows show whether the
/// masquerade rules were there at that instant. Every packet has its own source port, its sequence number and
/// sending time; the receiver counts them by source address. It shares no state with what it checks.
#[derive(Debug)]
pub struct NewFlows {
    pod: Pod,
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Result<Sent, LabError>>,
    receivers: Vec<Receiver>,
}

#[derive(Debug)]
struct Receiver {
    /// How many packets it was sent, once the sender has ended.
    sent: Arc<OnceLock<u64>>,
    thread: JoinHandle<io::Result<Vec<Seen>>>,
}

/// What the sender did.
#[derive(Debug)]
struct Sent {
    /// Packets to each target.
    packets: Vec<u64>,
    lasted: Duration,
}

/// What became of a stream.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NewFlowsReport {
    /// Packets sent, and so flows begun.
    pub sent: u64,
    /// Packets that never arrived.
    pub lost: u64,
    /// Packets that arrived under the pod's own address.
    pub unmasqueraded: u64,
    /// From sending the first to sending the last un-masqueraded packet.
    pub gap: Duration,
    /// From starting to stopping the stream.
    pub lasted: Duration,
    /// Packets by the source address under which they arrived.
    pub sources: BTreeMap<IpAddr, u64>,
}

/// One packet that arrived.
#[derive(Clone, Copy, Debug)]
struct Seen {
    number: u64,
    source: IpAddr,
    sent_after: Duration,
}

/// Source ports in turn. At 10 000 packets/s a port comes back after 5 s, when its flow is forgotten.
const PORTS: RangeInclusive<u16> = 10_000..=59_999;
/// How long a node remembers an unanswered flow here; Linux's default is 30 s.
const REMEMBERED_SECONDS: &str = "4";
/// No test needs more; a stream that is never stopped ends.
const LONGEST: Duration = Duration::from_secs(300);
/// The kernel doubles it. Holds some seconds of packets, should the receiver be kept off the CPU.
pub(crate) const RECEIVE_BUFFER: usize = 32 << 20;

/// How often a receiver looks whether it may end.
const READ_TIMEOUT: Duration = Duration::from_millis(50);

impl NewFlows {
    /// Starts sending `per_second` packets, to each of `targets` in turn, which are addresses of `receiver`.
    ///
    /// At most 10 000 packets per second, or flows are not new.
    ///
    /// # Errors
    /// A target is not an address of `receiver`, or does not answer the pod.
    pub fn start(
        pod: &Pod,
        receiver: &Namespace,
        targets: &[IpAddr],
        per_second: u32,
    ) -> Result<Self, LabError> {
        if per_second > 10_000 {
            return Err(LabError::unreadable("new flows", "more than 10 000 a second would not all be new"));
        }
        for target in targets {
            // So that no packet of the stream has to wait for a neighbour or a duplicate address check.
            if !pod.namespace().reaches(*target, Duration::from_secs(5))? {
                pod.namespace().ping(*target)?;
            }
        }
        forget_flows_soon(pod.node())?;
        let sockets = receiver
            .enter(|| targets.iter().map(|target| listen(*target)).collect::<io::Result<Vec<_>>>())?
            .map_err(LabError::system(format!("listen in {}", receiver.name())))?;
        let targets = sockets.iter().map(UdpSocket::local_addr).collect::<io::Result<Vec<_>>>();
        let targets = targets.map_err(LabError::system("read a socket's own address"))?;

        let stop = Arc::new(AtomicBool::new(false));
        let receivers = sockets
            .into_iter()
            .map(|socket| {
                let sent = Arc::<OnceLock<u64>>::default();
                let thread = thread::spawn({
                    let sent = Arc::clone(&sent);
                    move || receive(&socket, &sent)
                });
                Receiver { sent, thread }
            })
            .collect();
        let (inside, stopped) = (pod.namespace().clone(), Arc::clone(&stop));
        let sender = thread::spawn(move || {
            inside
                .enter(|| send(&targets, per_second, &stopped))?
                .map_err(LabError::system(format!("send new flows from {}", inside.name())))
        });
        Ok(Self { pod: pod.clone(), stop, sender, receivers })
    }

    /// Stops sending, waits until what is on its way has arrived, and counts.
    ///
    /// # Errors
    /// The sender or the receiver failed, so that there is nothing to count.
    pub fn stop(self) -> Result<NewFlowsReport, LabError> {
        self.stop.store(true, Ordering::Relaxed);
        // A sender that gets no processor may still be in the middle of its packets: the receivers wait for its number.
        let Sent { packets, lasted } = joined(self.sender)?;
        for (receiver, sent) in self.receivers.iter().zip(&packets) {
            let _first = receiver.sent.set(*sent);
        }
        let mut seen = Vec::new();
        for receiver in self.receivers {
            seen.extend(joined(receiver.thread).map_err(LabError::system("receive new flows"))?);
        }
        let sent = packets.iter().sum();
        Ok(NewFlowsReport::count(sent, lasted, seen, &self.pod.addresses().collect::<Vec<_>>()))
    }
}

impl NewFlowsReport {
    fn count(sent: u64, lasted: Duration, mut seen: Vec<Seen>, pod: &[IpAddr]) -> Self {
        let mut report = Self { sent, lasted, ..Self::default() };
        for packet in &seen {
            *report.sources.entry(packet.source).or_default() += 1;
        }
        let bare = seen.iter().filter(|packet| pod.contains(&packet.source)).map(|packet| packet.sent_after);
        report.unmasqueraded = bare.clone().map(|_| 1).sum();
        report.gap = bare.clone().max().zip(bare.min()).map(|(last, first)| last - first).unwrap_or_default();

        // A packet that arrived twice must not hide one that did not.
        seen.sort_unstable_by_key(|packet| packet.number);
        seen.dedup_by_key(|packet| packet.number);
        report.lost = sent.saturating_sub(seen.iter().map(|_| 1).sum());
        report
    }
}

/// Answers from whom a packet from `pod` to `target`, an address of `receiver`, seems to come.
pub(crate) fn seen_source(pod: &Pod, receiver: &Namespace, target: IpAddr) -> Result<IpAddr, LabError> {
    let what = || LabError::system(format!("send one packet from {} to {target}", pod.namespace().name()));
    let socket = receiver.enter(|| listen(target))?.map_err(what())?;
    let address = socket.local_addr().map_err(what())?;
    let sent = || wildcard(target, 0).and_then(|sender| sender.send_to(&[0; PACKET], address));
    wait_for(Duration::from_secs(3), || {
        // Sent again until it arrives: this asks who it comes from, not whether one was lost.
        let sent = pod.namespace().enter(sent).and_then(|sent| sent.map_err(what()));
        match (sent, socket.recv_from(&mut [0; PACKET])) {
            (Err(error), _) => Some(Err(error)),
            (Ok(_), Ok((_, source))) => Some(Ok(source.ip())),
            (Ok(_), Err(_)) => None,
        }
    })
    .unwrap_or_else(|| Err(LabError::unreadable(target.to_string(), "no packet arrived in 3 s")))
}

/// Sequence number and sending time, 8 bytes each.
const PACKET: usize = 16;

fn listen(address: IpAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((address, 0))?;
    setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER)?;
    socket.set_read_timeout(Some(READ_TIMEOUT))?;
    Ok(socket)
}

fn wildcard(target: IpAddr, port: u16) -> io::Result<UdpSocket> {
    match target {
        IpAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)),
        IpAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)),
    }
}

fn send(targets: &[SocketAddr], per_second: u32, stop: &AtomicBool) -> io::Result<Sent> {
    let begun = Instant::now();
    let mut pace = Pace::new(per_second);
    let mut packets = vec![0; targets.len()];
    // One port for both families in turn would not do: a process that is being started holds our closed sockets open
    // until its exec, and an IPv6 socket does not share its port with an IPv4 one.
    let mut flows = PORTS.cycle().zip((0..targets.len()).zip(targets).cycle());
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) && begun.elapsed() < LONGEST {
        for _ in 0..pace.due() {
            let Some((port, (place, target))) = flows.next() else { break };
            let nanoseconds = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let mut packet = [0; PACKET];
            let (left, right) = packet.split_at_mut(8);
            left.copy_from_slice(&number.to_be_bytes());
            right.copy_from_slice(&nanoseconds.to_be_bytes());
            match wildcard(target.ip(), port) {
                Ok(socket) => socket.send_to(&packet, *target)?,
                // Somebody else in the pod has this port, or a process that is being started holds it open.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
                Err(error) => return Err(error),
            };
            number += 1;
            if let Some(packets) = packets.get_mut(place) {
                *packets += 1;
            }
        }
        pace.pause();
    }
    Ok(Sent { packets, lasted: begun.elapsed() })
}

/// Takes packets until as many have arrived as were sent, or until none has arrived for [`STRAGGLERS`] since that is known.
fn receive(socket: &UdpSocket, sent: &OnceLock<u64>) -> io::Result<Vec<Seen>> {
    let mut seen = Vec::new();
    let mut packet = [0; PACKET];
    let mut silent_since = None;
    loop {
        if sent.get().is_some_and(|sent| usize::try_from(*sent).is_ok_and(|sent| seen.len() >= sent)) {
            return Ok(seen);
        }
        match socket.recv_from(&mut packet) {
            Ok((PACKET, source)) => {
                let (left, right) = packet.split_at(8);
                let word = |bytes: &[u8]| bytes.try_into().map(u64::from_be_bytes).unwrap_or_default();
                let sent_after = Duration::from_nanos(word(right));
                seen.push(Seen { number: word(left), source: source.ip(), sent_after });
                silent_since = None;
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if sent.get().is_some()
                    && silent_since.get_or_insert_with(Instant::now).elapsed() > slowed(STRAGGLERS)
                {
                    return Ok(seen);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Lets the node forget unanswered flows before their ports are used again, and keeps its table small.
fn forget_flows_soon(node: &Namespace) -> Result<(), LabError> {
    let setting = Path::new("/proc/sys/net/netfilter/nf_conntrack_udp_timeout");
    node.enter(|| if setting.exists() { fs::write(setting, REMEMBERED_SECONDS) } else { Ok(()) })?
        .map_err(LabError::system(format!("write {}", setting.display())))
}

pub(crate) fn joined<T>(thread: JoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_that_is_late_because_its_sender_got_no_processor_is_not_lost() {
        let socket = listen(IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap();
        let target = socket.local_addr().unwrap();
        let sent = Arc::<OnceLock<u64>>::default();
        let receiver = thread::spawn({
            let sent = Arc::clone(&sent);
            move || receive(&socket, &sent)
        });
        sent.set(1).unwrap();
        let late = Instant::now() + 4 * READ_TIMEOUT;
        wait_for(10 * READ_TIMEOUT, || (Instant::now() > late).then_some(()));
        wildcard(target.ip(), 0).unwrap().send_to(&[0; PACKET], target).unwrap();
        assert_eq!(joined(receiver).unwrap().len(), 1);
    }
}
