use flanneld::serve::status_page::render;
use flanneld::status::model::{PeerState, PeerStatus, Status};
use testkit::golden;

use crate::serve::sample;

#[test]
fn the_page_is_as_reviewed() {
    golden("tests/unit/serve/golden/page.html", &render(&sample()));
}

#[test]
fn text_from_outside_stays_text() {
    let page = render(&sample());
    assert!(!page.contains("<script"), "{page}");
    assert!(
        page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;more&quot;"),
        "{page}"
    );
    let hostile = "</style><img src=x onerror='a()'>\"";
    let mut status = Status { node: hostile.to_owned(), backend: hostile.to_owned(), ..sample() };
    status.interface.name = hostile.to_owned();
    status.store.kind = hostile.to_owned();
    status.repairs.iter_mut().for_each(|repair| repair.what = hostile.to_owned());
    status.notes.insert(hostile.to_owned(), hostile.to_owned());
    status.unmet.insert(hostile.to_owned(), hostile.to_owned());
    let page = render(&status);
    assert!(!page.contains("<img") && !page.contains("onerror='"), "{page}");
}

/// Elements that are closed by themselves, in HTML or, written so, in SVG.
const VOID: [&str; 2] = ["meta", "!DOCTYPE"];

#[test]
fn every_element_is_closed_where_it_was_opened() {
    for status in [sample(), Status::default()] {
        let page = render(&status);
        let mut open: Vec<&str> = Vec::new();
        let (head, body) = page.split_once("<style>").unwrap();
        let body = body.split_once("</style>").unwrap().1;
        let tags = head.split('<').skip(1).chain(body.split('<').skip(1));
        for tag in tags.filter_map(|rest| rest.split('>').next()) {
            let name = tag.split([' ', '\n']).next().unwrap();
            if let Some(name) = name.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "{page}");
            } else if !VOID.contains(&name) && !tag.ends_with('/') {
                open.push(name);
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }
}

#[test]
fn ten_thousand_peers_are_a_page_that_can_still_be_loaded() {
    let peer = |n: u32| PeerStatus {
        subnet: format!("10.{}.{}.0/24", n / 256, n % 256).parse().unwrap(),
        state: PeerState::Programmed,
        underlay: "192.0.2.2".parse().ok(),
        mac: Some("02:00:00:00:00:02".to_owned()),
        direct: false,
        reason: None,
        session: None,
    };
    let status = Status { peer_list: (0..10_000).map(peer).collect(), ..sample() };
    let page = render(&status);
    assert!(page.len() < 256 * 1024, "{} bytes", page.len());
    assert!(page.contains("9000 more peers are not listed") && page.contains("9880 more are not drawn"));
    assert!(
        page.contains("<code>flanneld status --peers</code> shows them all"),
        "without it only those with trouble"
    );
}
