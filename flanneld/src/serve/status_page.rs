//! The status as one HTML page that needs nothing else: no script, no font, no second request. It loads itself again
//! every ten seconds.

use std::f64::consts::{FRAC_PI_2, TAU};
use std::fmt::{Display, Write as _};
use std::net::IpAddr;

use crate::status::model::{PeerState, PeerStatus, Span, Status};

/// Peers in the table; `flanneld status --peers` shows them all.
const MAX_LISTED_PEERS: usize = 1000;
/// Peers in the picture.
const MAX_DRAWN_PEERS: usize = 120;
/// Peers in the picture up to which each has its number.
const MAX_LABELLED_PEERS: usize = 24;

const STYLE: &str = include_str!("status_page.css");

/// The page.
#[must_use]
pub fn render(status: &Status) -> String {
    let node = Escaped(&status.node);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"refresh\" content=\"10\">\n<title>{node} - flannel</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{node}</h1>\n{verdict}\n</header>\n<main>\n",
        verdict = verdict(status),
    );
    page.push_str(&troubles(status));
    page.push_str(&this_node(status));
    page.push_str(&picture(status));
    page.push_str(&peers(status));
    page.push_str(&repairs(status));
    let _infallible = write!(
        page,
        "</main>\n<footer>flanneld {}, up for {}. <a href=\"metrics\">Metrics</a></footer>\n</body>\n</html>\n",
        Escaped(&status.version),
        Span(status.time - status.started),
    );
    page
}

fn verdict(status: &Status) -> &'static str {
    if status.ready {
        "<p class=\"verdict good\" id=\"verdict\">ready</p>"
    } else {
        "<p class=\"verdict bad\" id=\"verdict\">not ready</p>"
    }
}

/// What does not hold, and what is worth knowing; nothing if there is neither.
fn troubles(status: &Status) -> String {
    let mut rows = String::new();
    for (class, all) in [("bad", &status.unmet), ("note", &status.notes)] {
        for (subject, text) in all {
            let _infallible =
                writeln!(rows, "<li class=\"{class}\"><b>{}</b> {}</li>", Escaped(subject), Escaped(text));
        }
    }
    if rows.is_empty() { rows } else { format!("<ul id=\"troubles\">\n{rows}</ul>\n") }
}

fn this_node(status: &Status) -> String {
    let mut rows = String::new();
    let mut row = |name: &str, value: &dyn Display| {
        let _infallible = writeln!(rows, "<dt>{name}</dt><dd>{}</dd>", Escaped(value));
    };
    let lease = &status.lease;
    row("Pod subnet", &lease.subnets().join(", "));
    match lease.ends_after(status.time) {
        Some(left) => row("Lease", &format!("ends in {left} unless renewed")),
        None => row("Lease", &"does not end"),
    }
    let store = &status.store;
    let health = match store.last_contact {
        _ if store.healthy => "answers".to_owned(),
        Some(contact) => format!("gives no usable answer, last {} ago", Span(status.time - contact)),
        None => "has not answered yet".to_owned(),
    };
    row("Lease store", &format!("{}, {health}", store.kind));
    let interface = &status.interface;
    let addresses: Vec<String> = interface.addresses.iter().map(IpAddr::to_string).collect();
    row("Interface", &format!("{} {}, MTU {}", interface.name, addresses.join(", "), interface.mtu));
    if interface.public != interface.addresses {
        let public: Vec<String> = interface.public.iter().map(IpAddr::to_string).collect();
        row("Public address", &public.join(", "));
    }
    if status.devices.is_empty() {
        row("Backend", &status.backend);
    }
    for device in &status.devices {
        let vni = device.vni.map(|vni| format!(", VNI {vni}")).unwrap_or_default();
        let port = device.port.map(|port| format!(", port {port}")).unwrap_or_default();
        let text = format!("{} {}{vni}{port}, MTU {}", device.name, device.address, device.mtu);
        row("Device", &text);
    }
    let rules = &status.rules;
    let in_place = if rules.right { "in place" } else { "not in place" };
    row("Rules", &format!("{in_place}: {}", rules.tables.join(", ")));
    format!("<section>\n<h2>This node</h2>\n<dl>\n{rows}</dl>\n</section>\n")
}

/// This node in the middle, the others around it under their numbers in the table, which says all that this shows.
fn picture(status: &Status) -> String {
    let shown: Vec<&PeerStatus> = status.peer_list.iter().take(MAX_DRAWN_PEERS).collect();
    if shown.is_empty() {
        return String::new();
    }
    let mut lines = String::new();
    let mut dots = String::new();
    let numbered = shown.len() <= MAX_LABELLED_PEERS;
    let radius = if numbered { 14 } else { 4 };
    let count = u32::try_from(shown.len()).unwrap_or(u32::MAX);
    for (n, peer) in (0_u32..).zip(&shown) {
        let angle = TAU * f64::from(n) / f64::from(count) - FRAC_PI_2;
        let (x, y) = (200.0 + 170.0 * angle.cos(), 200.0 + 170.0 * angle.sin());
        let state = peer.state;
        let direct = if peer.state == PeerState::Programmed && peer.direct { " direct" } else { "" };
        let _infallible = writeln!(
            lines,
            "<line class=\"{state}{direct}\" x1=\"200\" y1=\"200\" x2=\"{x:.0}\" y2=\"{y:.0}\"/>"
        );
        let _infallible = writeln!(
            dots,
            "<circle class=\"{state}\" cx=\"{x:.0}\" cy=\"{y:.0}\" r=\"{radius}\"><title>{} {state}</title></circle>",
            Escaped(peer.subnet)
        );
        if numbered {
            let (y, number) = (y + 5.5, n + 1);
            let _infallible = writeln!(dots, "<text x=\"{x:.0}\" y=\"{y:.0}\">{number}</text>");
        }
    }
    let more = status.peer_list.len() - shown.len();
    let more = if more > 0 { format!("<p>{more} more are not drawn.</p>\n") } else { String::new() };
    format!(
        "<section>\n<h2>Overlay</h2>\n\
         <svg viewBox=\"0 0 400 400\" role=\"img\" aria-label=\"this node and {} peers\">\n\
         {lines}<circle class=\"own\" cx=\"200\" cy=\"200\" r=\"18\"/>\n{dots}</svg>\n\
         <p class=\"legend\">Dashed: in a tunnel. Solid: routed directly. Numbers: as below.</p>\n{more}</section>\n",
        shown.len(),
    )
}

fn peers(status: &Status) -> String {
    let counts = &status.peers;
    let mut rows = String::new();
    for (number, peer) in (1_u32..).zip(status.peer_list.iter().take(MAX_LISTED_PEERS)) {
        let state = peer.state;
        let underlay = peer.underlay.map(|address| address.to_string()).unwrap_or_default();
        let session = peer.session.as_ref().map(ToString::to_string);
        let how = match (&peer.reason, peer.mac.as_ref().or(session.as_ref())) {
            (Some(reason), _) => reason,
            (None, Some(how)) => how,
            (None, None) if peer.direct => "routed directly",
            (None, None) => "",
        };
        let _infallible = writeln!(
            rows,
            "<tr><td>{number}</td><td>{}</td><td>{}</td><td class=\"{state}\">{state}</td><td>{}</td></tr>",
            Escaped(peer.subnet),
            Escaped(underlay),
            Escaped(how),
        );
    }
    let more = status.peer_list.len().saturating_sub(MAX_LISTED_PEERS);
    let more = if more > 0 {
        format!(
            "<p>{more} more peers are not listed; <code>flanneld status --peers</code> shows them all.</p>\n"
        )
    } else {
        String::new()
    };
    format!(
        "<section>\n<h2>Peers</h2>\n<p id=\"counts\">{} programmed, {} pending, {} skipped</p>\n\
         <div class=\"scroll\"><table id=\"peers\">\n\
         <thead><tr><th>No.</th><th>Subnet</th><th>Node</th><th>State</th><th>How</th></tr></thead>\n\
         <tbody>\n{rows}</tbody>\n</table></div>\n{more}</section>\n",
        counts.programmed, counts.pending, counts.skipped,
    )
}

fn repairs(status: &Status) -> String {
    if status.repairs.is_empty() {
        return "<section>\n<h2>Repairs</h2>\n<p id=\"repairs\">Nothing had to be repaired.</p>\n</section>\n"
            .to_owned();
    }
    let mut rows = String::new();
    for repair in &status.repairs {
        let _infallible = writeln!(
            rows,
            "<tr><td>{} ago</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            Span(status.time - repair.time),
            Escaped(&repair.object),
            repair.cause,
            Escaped(&repair.what),
        );
    }
    format!(
        "<section>\n<h2>Repairs</h2>\n<div class=\"scroll\"><table id=\"repairs\">\n\
         <thead><tr><th>When</th><th>What</th><th>How found</th><th>Steps</th></tr></thead>\n\
         <tbody>\n{rows}</tbody>\n</table></div>\n</section>\n"
    )
}

/// Text as HTML shows it, in elements and in quoted attributes. Store contents and errors come from outside.
struct Escaped<T>(T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.to_string().chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                _ => f.write_char(c)?,
            }
        }
        Ok(())
    }
}
