use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Checks the constants of a Rust source file against the installed kernel headers.
///
/// `source` is the text of the file (`include_str!`). Every `const NAME: TYPE = VALUE;` in it must be a constant of the
/// same name and value in C. `VALUE` may be a number or an expression that is also valid C, such as
/// `NFNL_SUBSYS_NFTABLES << 8`. `headers` are included in this order, e.g. `linux/rtnetlink.h`.
///
/// `newer` lists the constants that the installed headers may lack because they are older; each one that is missing is
/// printed. A missing constant that is not listed fails the test.
///
/// # Panics
/// A constant differs or is missing, or there is no C compiler or header (Debian: gcc, linux-libc-dev).
///
/// ```
/// testkit::check_uapi(&["linux/netlink.h"], "const NLM_F_DUMP: u16 = NLM_F_ROOT | 0x200;", &[]);
/// ```
#[expect(clippy::panic, reason = "it is an assertion")]
pub fn check_uapi(headers: &[&str], source: &str, newer: &[&str]) {
    let constants = constants(source);
    assert!(!constants.is_empty(), "there are no constants in the source");
    let mut wrong = Vec::new();
    let mut missing = compile(headers, &constants, &[], &mut wrong);
    if !missing.is_empty() {
        // A constant that is not declared hides the comparisons behind it.
        wrong.clear();
        missing.extend(compile(headers, &constants, &missing, &mut wrong));
    }
    for name in &missing {
        if newer.contains(&name.as_str()) {
            eprintln!("{name}: not in the installed headers, which are older; not checked");
        } else {
            wrong.push(format!("{name}: not in {}", headers.join(", ")));
        }
    }
    if !wrong.is_empty() {
        panic!("constants that differ from the kernel headers:\n{}", wrong.join("\n"));
    }
}

/// Name and value of each constant, as written.
fn constants(source: &str) -> Vec<(String, String)> {
    let code: Vec<&str> =
        source.lines().map(|line| line.split("//").next().unwrap_or_default().trim()).collect();
    let declared = code.join(" ");
    let items = declared.split(';').filter_map(|item| {
        let (_, constant) = item.split_once("const ")?;
        let (name, rest) = constant.split_once(':')?;
        let (_, value) = rest.split_once('=')?;
        Some((name.trim().to_owned(), value.trim().to_owned()))
    });
    items.collect()
}

/// Compares all constants but those to be skipped. Returns the undeclared ones.
#[expect(clippy::panic, reason = "without a compiler there is no assertion")]
fn compile(
    headers: &[&str],
    constants: &[(String, String)],
    skip: &[String],
    wrong: &mut Vec<String>,
) -> Vec<String> {
    let mut program = String::new();
    for header in headers {
        let _infallible = writeln!(program, "#include <{header}>");
    }
    for (name, value) in constants.iter().filter(|(name, _)| !skip.contains(name)) {
        let _infallible =
            writeln!(program, "_Static_assert({name} == ({value}), \"{name} is not {value}\");");
    }
    let compiler = Command::new("cc")
        .args(["-fsyntax-only", "-fmax-errors=0", "-x", "c", "-"])
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let done = compiler.and_then(|mut running| {
        if let Some(mut input) = running.stdin.take() {
            input.write_all(program.as_bytes())?;
        }
        running.wait_with_output()
    });
    let done = done.unwrap_or_else(|error| panic!("cannot run the C compiler `cc`: {error}"));
    let output = String::from_utf8_lossy(&done.stderr);
    let mut missing = Vec::new();
    for line in output.lines().filter(|line| line.contains("error: ")) {
        let undeclared = line.split_once("error: '").and_then(|(_, rest)| rest.split_once("' undeclared"));
        let different =
            line.split_once("static assertion failed: \"").and_then(|(_, rest)| rest.split_once('"'));
        match (undeclared, different) {
            (Some((name, _)), _) => missing.push(name.to_owned()),
            (None, Some((message, _))) => wrong.push(message.to_owned()),
            // What follows from an undeclared name.
            _ if line.contains("in static assertion is not") => {}
            _ => panic!("cannot compile with the installed kernel headers: {output}"),
        }
    }
    assert!(
        done.status.success() || !missing.is_empty() || !wrong.is_empty(),
        "the C compiler failed: {output}"
    );
    missing
}

#[cfg(test)]
mod tests {
    use super::check_uapi;

    const HEADERS: [&str; 2] = ["linux/netlink.h", "linux/rtnetlink.h"];

    #[test]
    fn equal_constants_and_listed_newer_ones_pass() {
        let source = "
            /// With a comment; and `const`.
            pub(crate) const NLM_F_REQUEST: u16 = 0x1;
            pub(crate) const NLM_F_DUMP: u16 = NLM_F_ROOT
                | 0x200; // both
            const RTM_OF_THE_FUTURE: u16 = 4;";
        check_uapi(&HEADERS, source, &["RTM_OF_THE_FUTURE"]);
    }

    #[test]
    #[should_panic(expected = "RTM_NEWLINK is not 17")]
    fn a_different_value_is_named_also_behind_a_missing_constant() {
        check_uapi(&HEADERS, "const NO_SUCH: u16 = 1; const RTM_NEWLINK: u16 = 17;", &["NO_SUCH"]);
    }

    #[test]
    #[should_panic(expected = "RTM_INVENTED: not in linux/netlink.h, linux/rtnetlink.h")]
    fn a_constant_that_the_kernel_does_not_have_is_named() {
        check_uapi(&HEADERS, "const RTM_INVENTED: u16 = 17;", &[]);
    }

    #[test]
    #[should_panic(expected = "cannot compile with the installed kernel headers")]
    fn a_missing_header_is_no_success() {
        check_uapi(&["linux/no-such-header.h"], "const RTM_NEWLINK: u16 = 16;", &[]);
    }
}
