//! What the real kernel does with our sockets, in a namespace of its own.
#![expect(clippy::unwrap_used, reason = "a helper of a test may fail it")]

use flannel_netlink::{
    Batch, DumpError, Errno, Flags, Incomplete, Monitor, Protocol, Received, Socket, TransactError,
};
use testkit::{netns, sh};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;

fn add_bridge(batch: &mut Batch, name: &str) -> u32 {
    batch.message(RTM_NEWLINK, Flags::CREATE.and(Flags::EXCL), &[0; 16], |attributes| {
        attributes.text(IFLA_IFNAME, name);
        attributes.nested(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, "bridge"));
    })
}

fn links() -> Batch {
    let mut question = Batch::new();
    question.message(RTM_GETLINK, Flags::DUMP, &[0; 16], |_| {});
    question
}

fn count_links(socket: &mut Socket) -> Result<usize, DumpError> {
    socket.dump(&mut links(), |count, _| {
        *count += 1;
        Ok(())
    })
}

#[test]
fn a_refused_message_is_named_and_the_others_are_acted_on() {
    netns(|| {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let mut batch = Batch::new();
        add_bridge(&mut batch, "br0");
        let twice = add_bridge(&mut batch, "br0");
        add_bridge(&mut batch, "br1");
        let refused = socket.execute(&mut batch, 64).unwrap();
        assert_eq!(refused.len(), 1);
        assert_eq!((refused[0].message, refused[0].errno), (twice, Errno::EEXIST));
        assert_eq!(count_links(&mut socket).unwrap(), 3, "lo, br0, br1");
    });
}

#[test]
fn the_kernels_own_words_are_kept() {
    netns(|| {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let mut batch = Batch::new();
        batch.message(RTM_NEWLINK, Flags::CREATE, &[0; 16], |attributes| {
            attributes.text(IFLA_IFNAME, "x");
            attributes.nested(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, "no-such-kind"));
        });
        let refused = socket.execute(&mut batch, 64).unwrap();
        assert_eq!(refused[0].errno, Errno::EOPNOTSUPP);
        assert_eq!(refused[0].text.as_deref(), Some("Unknown device type"));
        assert!(refused[0].to_string().ends_with("(EOPNOTSUPP): Unknown device type"));
    });
}

#[test]
fn every_window_size_reports_the_same_refusals() {
    netns(|| {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        for window in [1, 2, 3, 7, 100] {
            let mut batch = Batch::new();
            for index in 0..10 {
                batch.message(RTM_DELLINK, Flags::NONE, &[0; 16], |attributes| {
                    attributes.text(IFLA_IFNAME, &format!("gone{index}"));
                });
            }
            let refused = socket.execute(&mut batch, window).unwrap();
            let numbers: Vec<_> = refused.iter().map(|refusal| refusal.message).collect();
            assert_eq!(numbers, (0..10).collect::<Vec<_>>(), "window {window}");
        }
    });
}

#[test]
fn thousands_of_refusals_in_one_datagram_fit_the_receive_buffer() {
    netns(|| {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let mut batch = Batch::new();
        for _ in 0..5_000 {
            batch.message(RTM_DELLINK, Flags::NONE, &[0; 16], |attributes| {
                attributes.text(IFLA_IFNAME, "gone")
            });
        }
        let answer = socket.transact(&mut batch, |_| Ok(())).unwrap();
        assert_eq!(answer.refused.len(), 5_000);
    });
}

#[test]
fn replies_that_do_not_fit_are_known_to_be_lost_and_the_socket_goes_on() {
    netns(|| {
        let mut socket = Socket::open_limited(Protocol::Route, 4096).unwrap();
        let mut batch = Batch::new();
        for _ in 0..500 {
            batch.message(RTM_DELLINK, Flags::NONE, &[0; 16], |attributes| {
                attributes.text(IFLA_IFNAME, "gone")
            });
        }
        for _ in 0..3 {
            let lost = socket.transact(&mut batch, |_| Ok(()));
            assert!(matches!(lost, Err(TransactError::Lost(_))), "{lost:?}");
            assert_eq!(
                count_links(&mut socket).unwrap(),
                1,
                "what is left unread is not taken for an answer"
            );
        }
        assert_eq!(socket.execute(&mut batch, 1).unwrap().len(), 500, "one by one they fit");
    });
}

#[test]
fn an_attribute_too_long_for_netlink_is_reported_and_nothing_is_sent() {
    netns(|| {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let mut batch = Batch::new();
        add_bridge(&mut batch, "br0");
        batch.message(RTM_NEWLINK, Flags::CREATE, &[0; 16], |attributes| attributes.bytes(1, &[0; 70_000]));
        assert!(matches!(socket.execute(&mut batch, 64), Err(TransactError::TooLong { message: 1 })));
        assert_eq!(count_links(&mut socket).unwrap(), 1, "lo");
    });
}

/// 200 bridges: more than one `recv` of a dump holds, so that a change can come in between.
fn crowd(socket: &mut Socket) {
    let mut batch = Batch::new();
    for index in 0..200 {
        add_bridge(&mut batch, &format!("br{index}"));
    }
    assert_eq!(socket.execute(&mut batch, 64).unwrap(), []);
}

/// Lists the links while somebody else adds one at the start of each of the first `disturbed` listings.
fn count_disturbed(disturbed: usize) -> (Result<usize, DumpError>, usize) {
    let mut other = Socket::open(Protocol::Route).unwrap();
    let mut socket = Socket::open(Protocol::Route).unwrap();
    let mut listings = 0;
    let count = socket.dump(&mut links(), |count, _| {
        if *count == 0 {
            listings += 1;
            if listings <= disturbed {
                let mut batch = Batch::new();
                add_bridge(&mut batch, &format!("new{listings}"));
                assert_eq!(other.execute(&mut batch, 1).unwrap(), []);
            }
        }
        *count += 1;
        Ok(())
    });
    (count, listings)
}

#[test]
fn a_dump_that_a_change_interrupted_starts_anew() {
    netns(|| {
        crowd(&mut Socket::open(Protocol::Route).unwrap());
        let (count, listings) = count_disturbed(3);
        assert_eq!(
            (count.unwrap(), listings),
            (204, 4),
            "lo, 200 bridges, 3 new ones, in the fourth listing"
        );
    });
}

#[test]
fn a_dump_that_is_always_interrupted_is_an_error_and_never_half_a_list() {
    netns(|| {
        crowd(&mut Socket::open(Protocol::Route).unwrap());
        let (count, listings) = count_disturbed(usize::MAX);
        assert!(
            matches!(count, Err(DumpError::Interrupted { attempts }) if usize::try_from(attempts) == Ok(listings))
        );
    });
}

#[test]
fn a_mistake_of_the_reader_does_not_spoil_the_next_dump() {
    netns(|| {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let failed: Result<(), _> =
            socket.dump(&mut links(), |(), _| Err(flannel_netlink::Malformed::Value { what: "test" }));
        assert!(failed.is_err());
        assert_eq!(count_links(&mut socket).unwrap(), 1);
    });
}

#[test]
fn a_monitor_reports_changes_in_order_and_says_when_it_lost_some() {
    const RTNLGRP_LINK: u32 = 1;
    netns(|| {
        let mut monitor = Monitor::open(Protocol::Route, &[RTNLGRP_LINK]).unwrap();
        assert!(matches!(monitor.receive().unwrap(), Received::Nothing));

        sh("ip link add br0 type bridge");
        let Received::Messages(mut changes) = monitor.receive().unwrap() else { panic!("no notification") };
        assert_eq!(changes.next().unwrap().unwrap().kind, RTM_NEWLINK);

        let mut socket = Socket::open(Protocol::Route).unwrap();
        for _ in 0..4_000 {
            let mut batch = Batch::new();
            for up in [1u8, 0] {
                let mut header = [0u8; 16]; // struct ifinfomsg: flags at 8, change mask at 12
                header[8] = up;
                header[12] = 1;
                batch.message(RTM_NEWLINK, Flags::NONE, &header, |attributes| {
                    attributes.text(IFLA_IFNAME, "br0")
                });
            }
            assert_eq!(socket.execute(&mut batch, 2).unwrap(), []);
        }
        let mut overflowed = false;
        for _ in 0..20_000 {
            match monitor.receive().unwrap() {
                Received::Overflow => overflowed = true,
                Received::Messages(_) => {}
                Received::Nothing => break,
            }
        }
        assert!(overflowed, "the buffer cannot hold 8 000 link notifications");

        sh("ip link del br0");
        assert!(matches!(monitor.receive().unwrap(), Received::Messages(_)), "and it goes on after that");
    });
}

#[test]
fn a_monitor_leaves_out_what_one_socket_changes_except_the_kind_that_is_kept() {
    const RTNLGRP_IPV4_ROUTE: u32 = 7;
    const RTM_NEWROUTE: u16 = 24;
    const RTM_DELROUTE: u16 = 25;
    netns(|| {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let mut monitor = Monitor::open(Protocol::Route, &[RTNLGRP_IPV4_ROUTE]).unwrap();
        monitor.leave_out(socket.port(), RTM_DELROUTE, None).unwrap();
        // ip route add blackhole 10.9.0.0/16; ip route del blackhole 10.9.0.0/16
        let mut batch = Batch::new();
        for (kind, flags) in [(RTM_NEWROUTE, Flags::CREATE), (RTM_DELROUTE, Flags::NONE)] {
            batch.message(kind, flags, &[2, 16, 0, 0, 254, 3, 0, 6, 0, 0, 0, 0], |a| {
                a.bytes(1, &[10, 9, 0, 0]);
            });
        }
        assert_eq!(socket.execute(&mut batch, 2).unwrap(), []);
        sh("ip route add blackhole 10.8.0.0/16");
        let mut kinds = Vec::new();
        while let Received::Messages(messages) = monitor.receive().unwrap() {
            kinds.extend(messages.map(|message| message.unwrap().kind));
        }
        assert_eq!(kinds, [RTM_DELROUTE, RTM_NEWROUTE], "the kept kind, and what another process did");
    });
}

#[test]
fn a_monitor_leaves_out_what_lacks_an_attribute() {
    const RTNLGRP_IPV4_ROUTE: u32 = 7;
    const RTM_NEWROUTE: u16 = 24;
    const RTM_DELROUTE: u16 = 25;
    const RTA_DST: u16 = 1;
    netns(|| {
        let kinds = |lacking: [u16; 2]| {
            let mut monitor = Monitor::open(Protocol::Route, &[RTNLGRP_IPV4_ROUTE]).unwrap();
            let incomplete = Incomplete { kinds: lacking, header: 12, attribute: RTA_DST };
            monitor.leave_out(0xdead, RTM_DELROUTE, Some(incomplete)).unwrap();
            sh(
                "for to in default 10.8.0.0/16; do ip route add blackhole $to; ip route del blackhole $to; done",
            );
            let mut kinds = Vec::new();
            while let Received::Messages(messages) = monitor.receive().unwrap() {
                kinds.extend(messages.map(|message| message.unwrap().kind));
            }
            kinds
        };
        // The default route has no destination.
        assert_eq!(kinds([RTM_NEWROUTE, RTM_DELROUTE]), [RTM_NEWROUTE, RTM_DELROUTE]);
        assert_eq!(kinds([RTM_DELROUTE, 9]), [RTM_NEWROUTE, RTM_NEWROUTE, RTM_DELROUTE]);
        assert_eq!(kinds([8, 9]).len(), 4);
    });
}

#[test]
fn an_answer_belongs_to_its_question() {
    netns(|| {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let mut by_name = |name: &str| {
            let mut question = Batch::new();
            question
                .message(RTM_GETLINK, Flags::NONE, &[0; 16], |attributes| attributes.text(IFLA_IFNAME, name));
            socket.ask(&mut question, |message| message.split::<16>().map(|(header, _)| header[4]))
        };
        assert!(
            matches!(by_name("gone"), Err(flannel_netlink::AskError::Refused(refusal)) if refusal.errno == Errno::ENODEV)
        );
        assert_eq!(by_name("lo").unwrap(), 1);
    });
}
