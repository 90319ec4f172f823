//! What this process was called as, and a password among its arguments: every user of the host can read
//! the command line, so the password moves to the environment, which only root can read.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

const FLAG: &[u8] = b"etcd-password";
const VARIABLE: &str = "FLANNELD_ETCD_PASSWORD";

/// Whether the program was called by this name: a copy or link of the file, whatever its folder.
#[must_use]
pub fn is_called(name: &str) -> bool {
    std::env::args_os().next().is_some_and(|called| Path::new(&called).file_name() == Some(OsStr::new(name)))
}

/// Starts this program over, in the same process, if a password is among its arguments: without it there, and with it in
/// the environment (`/proc/PID/environ` is for the process's own user, `/proc/PID/cmdline` for all users).
///
/// Returns if there is none, or if that is not possible: then things are as they were. It is better never to write the
/// password there, as it can be read until this is done.
pub fn hide_password() {
    let mut arguments = std::env::args_os();
    let Some(name) = arguments.next() else { return };
    if let Some((rest, password)) = without_password(arguments) {
        // Under its own name, by which `pgrep` finds it; if its file has been replaced since, under another.
        let by_name = std::env::current_exe().ok();
        for program in by_name.into_iter().chain(["/proc/self/exe".into()]) {
            let _not_possible = Command::new(program).arg0(&name).args(&rest).env(VARIABLE, &password).exec();
        }
    }
}

/// The other arguments, and the last password among these; `None` if there is none.
fn without_password(arguments: impl Iterator<Item = OsString>) -> Option<(Vec<OsString>, OsString)> {
    let (mut rest, mut password) = (Vec::new(), None);
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        match value_of(&argument) {
            Some(Some(value)) => password = Some(value),
            // Without a value it is a mistake, to be reported as one.
            Some(None) => match arguments.next() {
                Some(value) => password = Some(value),
                None => rest.push(argument),
            },
            None => rest.push(argument),
        }
    }
    Some((rest, password?))
}

/// Whether an argument is the flag, and its value if that is in the same argument.
fn value_of(argument: &OsStr) -> Option<Option<OsString>> {
    let bytes = argument.as_bytes();
    let name = bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-"))?;
    match name.strip_prefix(FLAG)? {
        [] => Some(None),
        [b'=', value @ ..] => Some(Some(OsString::from_vec(value.to_vec()))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Option<(String, String)> {
        let (rest, password) = without_password(line.split(' ').map(OsString::from))?;
        let rest: Vec<_> = rest.iter().map(|argument| argument.to_str().unwrap()).collect();
        Some((rest.join(" "), password.into_string().unwrap()))
    }

    #[test]
    fn the_password_is_found_however_it_is_written_and_everything_else_stays() {
        for way in ["--etcd-password=s=1", "-etcd-password=s=1", "--etcd-password s=1", "-etcd-password s=1"]
        {
            let line = format!("plan -v=2 {way} --ip-masq --etcd-username=u");
            assert_eq!(
                split(&line),
                Some(("plan -v=2 --ip-masq --etcd-username=u".into(), "s=1".into())),
                "{way}"
            );
        }
        assert_eq!(split("--etcd-password=a -etcd-password b"), Some((String::new(), "b".into())));
        for none in ["", "--ip-masq", "--etcd-passwords=x", "etcd-password=x", "-v 1 --etcd-password"] {
            assert_eq!(split(none), None, "{none}");
        }
    }
}
