//! What every other test stands on: namespaces, commands, goldens.

use std::panic::catch_unwind;

use testkit::{ShellError, golden, in_netns, may_make_namespaces, netns, sh, try_sh};

#[test]
fn a_namespace_is_fresh_has_lo_up_and_keeps_its_rules_to_itself() {
    netns(|| {
        assert_eq!(sh("nft list ruleset"), "");
        sh("ping -c 1 -W 1 127.0.0.1");
        sh("nft add table ip only-here");
        assert_eq!(sh("nft list tables"), "table ip only-here\n");
        netns(|| assert_eq!(sh("nft list tables"), ""));
        assert_eq!(sh("nft list tables"), "table ip only-here\n");
    });
}

#[test]
fn the_body_returns_a_value_and_its_panic_reaches_the_test() {
    if !may_make_namespaces() {
        return;
    }
    assert_eq!(in_netns(|| 6 * 7).unwrap(), 42);
    assert!(catch_unwind(|| netns(|| panic!("seen"))).is_err());
}

#[test]
fn a_failed_command_is_shown_with_what_it_said() {
    let error = try_sh("echo heard; echo wrong >&2; exit 3").unwrap_err();
    assert!(matches!(&error, ShellError::Failed { output, .. } if output == "wrong\nheard"));
    assert_eq!(error.to_string(), "`echo heard; echo wrong >&2; exit 3`: exit status: 3\nwrong\nheard");
    assert!(try_sh("false; true").is_err(), "every command of the line must succeed");
}

#[test]
fn a_golden_that_differs_fails_with_a_diff() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lines");
    std::fs::write(&file, "one\ntwo\n").unwrap();
    golden(&file, "one\ntwo\n");

    let refused = catch_unwind(|| golden(&file, "one\nthree\n")).unwrap_err();
    let text = refused.downcast_ref::<String>().unwrap();
    assert!(text.contains("-two\n+three\n"), "{text}");

    let missing = catch_unwind(|| golden(folder.path().join("absent"), "")).unwrap_err();
    assert!(missing.downcast_ref::<String>().unwrap().contains("UPDATE_GOLDEN=1"));
}
