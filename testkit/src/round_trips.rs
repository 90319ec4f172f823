use std::io;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use crate::new_flows::{RECEIVE_BUFFER, joined};
use crate::wait::{Pace, STRAGGLERS, slowed};
use crate::{LabError, Pod};

/// A steady stream of UDP packets from one pod to another, which sends each of them back.
#[derive(Debug)]
pub struct RoundTrips {
    stop: Arc<AtomicBool>,
    stop_server: Arc<AtomicBool>,
    client: JoinHandle<Result<RoundTripsReport, LabError>>,
    server: JoinHandle<Result<(), LabError>>,
}

/// What became of a stream.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RoundTripsReport {
    /// Packets sent, or refused by the sender's own kernel for want of a route.
    pub sent: u64,
    /// Packets that did not come back.
    pub lost: u64,
    /// Packets that did not come back, for each [`Self::INTERVAL`] in which they were sent.
    pub lost_by_interval: Vec<u64>,
    /// Longest time without any packet coming back. On a busy machine the stream itself pauses.
    pub longest_silence: Duration,
    /// Longest outage: from the sending of a packet that did not come back to that of the next one that did.
    pub longest_outage: Duration,
}

impl RoundTripsReport {
    /// What one entry of `lost_by_interval` covers.
    pub const INTERVAL: Duration = Duration::from_millis(100);
}

/// No test needs more; a stream that is never stopped ends.
const LONGEST: Duration = Duration::from_secs(300);

impl RoundTrips {
    /// Starts sending `per_second` packets from `from` to `target`, an address of `to`.
    ///
    /// # Errors
    /// A pod is gone, or `target` is not an address of `to`.
    pub fn start(from: &Pod, to: &Pod, target: IpAddr, per_second: u32) -> Result<Self, LabError> {
        let at = |pod: &Pod, address: IpAddr| {
            let socket = pod.namespace().enter(|| {
                let socket = UdpSocket::bind((address, 0))?;
                // An end that gets no processor for a while answers late, and loses nothing.
                setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER)?;
                socket.set_read_timeout(Some(Duration::from_millis(1)))?;
                Ok(socket)
            })?;
            socket.map_err(LabError::system(format!("bind {address} in {}", pod.namespace().name())))
        };
        let source = from.addresses().find(|source| source.is_ipv4() == target.is_ipv4());
        let source = source.ok_or_else(|| {
            LabError::unreadable(target.to_string(), "the sender lacks this address family")
        })?;
        let (client, server) = (at(from, source)?, at(to, target)?);
        let connected = server.local_addr().and_then(|address| client.connect(address));
        connected.map_err(LabError::system(format!("connect to {target}")))?;

        let (stop, stop_server) = <(Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        let (client_stop, server_stop) = (Arc::clone(&stop), Arc::clone(&stop_server));
        let failed = move |error| LabError::system(format!("exchange packets with {target}"))(error);
        Ok(Self {
            stop,
            stop_server,
            client: thread::spawn(move || exchange(&client, per_second, &client_stop).map_err(failed)),
            server: thread::spawn(move || echo(&server, &server_stop).map_err(failed)),
        })
    }

    /// Stops sending, waits for what is on its way, and counts.
    ///
    /// # Errors
    /// One of the ends failed, so that there is nothing to count.
    pub fn stop(self) -> Result<RoundTripsReport, LabError> {
        self.stop.store(true, Ordering::Relaxed);
        let report = joined(self.client);
        // Only now: the client waits for what this end still sends back.
        self.stop_server.store(true, Ordering::Relaxed);
        joined(self.server)?;
        report
    }
}

fn exchange(socket: &UdpSocket, per_second: u32, stop: &AtomicBool) -> io::Result<RoundTripsReport> {
    let begun = Instant::now();
    let mut pace = Pace::new(per_second);
    let mut sent: Vec<(Duration, bool)> = Vec::new();
    let (mut last_reply, mut longest_silence) = (begun, Duration::ZERO);
    let (mut ended, mut missing) = (None, 0_u64);
    loop {
        if ended.is_none() && (stop.load(Ordering::Relaxed) || begun.elapsed() > LONGEST) {
            ended = Some(Instant::now());
            longest_silence = longest_silence.max(last_reply.elapsed());
        }
        let is_silent = |ended: Instant| ended.max(last_reply).elapsed() > slowed(STRAGGLERS);
        if ended.is_some_and(|ended| missing == 0 || is_silent(ended)) {
            break;
        }
        for _ in 0..if ended.is_none() { pace.due() } else { 0 } {
            let number = u64::try_from(sent.len()).unwrap_or(u64::MAX);
            sent.push((begun.elapsed(), false));
            missing += 1;
            // No route, or an ICMP error for an earlier packet: this packet does not come back, which is counted.
            drop(socket.send(&number.to_be_bytes()));
        }
        let mut reply = [0; 8];
        // Timeouts and ICMP errors alike: no reply now.
        if socket.recv(&mut reply).is_ok_and(|length| length == reply.len()) {
            let number = usize::try_from(u64::from_be_bytes(reply)).unwrap_or(usize::MAX);
            if let Some((_, back @ false)) = sent.get_mut(number) {
                *back = true;
                missing -= 1;
            }
            longest_silence = longest_silence.max(last_reply.elapsed());
            last_reply = Instant::now();
        }
    }
    let mut report = RoundTripsReport { longest_silence, ..RoundTripsReport::default() };
    let mut down_since = None;
    for (after, back) in sent {
        let since = if back { down_since.take() } else { Some(*down_since.get_or_insert(after)) };
        let outage = since.map_or(Duration::ZERO, |since| after.saturating_sub(since));
        report.longest_outage = report.longest_outage.max(outage);
        let interval = usize::try_from(after.as_millis() / RoundTripsReport::INTERVAL.as_millis());
        let interval = interval.unwrap_or(usize::MAX - 1);
        if report.lost_by_interval.len() <= interval {
            report.lost_by_interval.resize(interval + 1, 0);
        }
        report.sent += 1;
        if !back {
            report.lost += 1;
            if let Some(lost) = report.lost_by_interval.get_mut(interval) {
                *lost += 1;
            }
        }
    }
    Ok(report)
}

/// Sends packets back until told to stop.
fn echo(socket: &UdpSocket, stop: &AtomicBool) -> io::Result<()> {
    let begun = Instant::now();
    while !stop.load(Ordering::Relaxed) && begun.elapsed() < LONGEST + 2 * slowed(STRAGGLERS) {
        let mut packet = [0; 8];
        match socket.recv_from(&mut packet) {
            // A reply that cannot be sent is a packet lost, which the client counts.
            Ok((_, client)) => drop(socket.send_to(&packet, client)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
