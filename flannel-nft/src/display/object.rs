//! Named objects and flowtables.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use crate::display::{DisplayFn, NftVersion, duration, write_rate};
use crate::model::family::Family;
use crate::model::object::{Flowtable, Object, ObjectKind};
use crate::model::protocol::Protocol;
use crate::uapi::*;

/// Starts each line with `indent` and ends it with `end`.
pub(crate) fn object_block(object: &Object, indent: &str, end: &str, f: &mut Formatter<'_>) -> fmt::Result {
    let version = NftVersion::of(f);
    object.comment.iter().try_for_each(|comment| write!(f, "{indent}comment \"{comment}\"{end}"))?;
    let mut line = |text: &dyn Display| write!(f, "{indent}{text}{end}");
    let in_family = |family: Option<Family>| family.map(|family| format!("l3proto {family}"));
    match object.kind() {
        Some(ObjectKind::CtExpectation { family, protocol, port, timeout, size }) => {
            line(&format_args!("protocol {protocol}"))?;
            line(&format_args!("dport {port}"))?;
            line(&format_args!("timeout {}", DisplayFn(|f: &mut Formatter<'_>| duration(timeout, f))))?;
            line(&format_args!("size {size}"))?;
            in_family(family).iter().try_for_each(|family| line(family))
        }
        Some(ObjectKind::CtHelper { helper, family, protocol }) => {
            line(&format_args!(
                "type \"{helper}\" protocol {protocol}{}",
                if end == "\n" { "" } else { ";" }
            ))?;
            in_family(family).iter().try_for_each(|family| line(family))
        }
        Some(ObjectKind::CtTimeout { family, protocol, seconds }) => {
            line(&format_args!("protocol {protocol}"))?;
            in_family(family).iter().try_for_each(|family| line(family))?;
            let states: &[(&str, u32)] = if protocol == Protocol::TCP { &TCP_STATES } else { &UDP_STATES };
            let time = |seconds: u32| match version {
                NftVersion::V1_0 => seconds.to_string(),
                NftVersion::V1_1 => {
                    let time = Duration::from_secs(seconds.into());
                    DisplayFn(move |f: &mut Formatter<'_>| duration(time, f)).to_string()
                }
            };
            let changed = |(state, seconds): &(u16, u32)| {
                let (name, default) = states.get(usize::from(*state).checked_sub(1)?)?;
                (seconds != default).then(|| format!("{name} : {}", time(*seconds)))
            };
            let policy: Vec<String> = seconds.iter().filter_map(changed).collect();
            line(&format_args!("policy = {{ {} }}", policy.join(", ")))
        }
        Some(ObjectKind::Limit(mut rate)) => {
            // Unlike in a statement, no version shows the default burst.
            if !rate.bytes && rate.burst == 5 {
                rate.burst = 0;
            }
            f.write_str(indent)?;
            write_rate(&rate, f)?;
            f.write_str(end)
        }
        Some(ObjectKind::Quota { bytes, over, used }) => {
            let over = if over { "over " } else { "" };
            let used = if used > 0 { format!(" used {}", Amount(used)) } else { String::new() };
            line(&format_args!("{over}{}{used}", Amount(bytes)))
        }
        Some(ObjectKind::Secmark { context }) => line(&format_args!("\"{context}\"")),
        Some(ObjectKind::Synproxy { mss, window_scale, timestamp, sack_permitted }) => {
            mss.iter().try_for_each(|mss| line(&format_args!("mss {mss}")))?;
            window_scale.iter().try_for_each(|scale| line(&format_args!("wscale {scale}")))?;
            let flags = [(timestamp, "timestamp"), (sack_permitted, "sack-perm")];
            let flags: Vec<&str> = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
            if flags.is_empty() { Ok(()) } else { line(&flags.join(" ")) }
        }
        None => line(&format_args!("# {} bytes", object.data.len())),
    }
}

/// `CTA_TIMEOUT_TCP_*` from 1 on: nft's names and default seconds (src/rule.c, `timeout_protocol`).
pub(crate) const TCP_STATES: [(&str, u32); 11] = [
    ("syn_sent", 120),
    ("syn_recv", 60),
    ("established", 432_000),
    ("fin_wait", 120),
    ("close_wait", 60),
    ("last_ack", 30),
    ("time_wait", 120),
    ("close", 10),
    ("syn_sent2", 120),
    ("retrans", 300),
    ("unack", 300),
];
pub(crate) const UDP_STATES: [(&str, u32); 2] = [("unreplied", 30), ("replied", 180)];

/// `10 mbytes`, `300 bytes`.
struct Amount(u64);

impl Display for Amount {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes > 0 && bytes % (1 << 20) == 0 => write!(f, "{} mbytes", bytes >> 20),
            bytes if bytes > 0 && bytes % (1 << 10) == 0 => write!(f, "{} kbytes", bytes >> 10),
            bytes => write!(f, "{bytes} bytes"),
        }
    }
}

pub(crate) fn flowtable_block(
    flowtable: &Flowtable,
    indent: &str,
    end: &str,
    f: &mut Formatter<'_>,
) -> fmt::Result {
    let mut line = |text: &dyn Display| write!(f, "{indent}{text}{end}");
    match flowtable.priority.number() {
        0 => line(&"hook ingress priority filter")?,
        number => line(&format_args!("hook ingress priority {number}"))?,
    }
    let devices: Vec<String> = flowtable.devices.iter().map(|device| format!("\"{device}\"")).collect();
    if !devices.is_empty() {
        line(&format_args!("devices = {{ {} }}", devices.join(", ")))?;
    }
    if flowtable.flags & NFT_FLOWTABLE_HW_OFFLOAD != 0 {
        line(&"flags offload")?;
    }
    if flowtable.flags & NFT_FLOWTABLE_COUNTER != 0 { line(&"counter") } else { Ok(()) }
}
