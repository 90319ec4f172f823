//! The private key of this node's WireGuard devices.
//!
//! It is in a file, as with upstream, so that the other nodes need not learn another public key after a restart. Where the
//! file is missing or unusable, the device in the kernel has the key; otherwise flanneld generates a new key.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use flannel_lease::Chain;
use flannel_vxlan::{Family, FlannelDevice, IfName, Kernel, ObserveError, PrivateKey};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use tracing::{info, warn};

use crate::file;

/// Largest key file that is read, in bytes; a key takes 44.
const MAX_FILE_BYTES: u64 = 4096;
/// Permission bits of the file, as upstream's.
const MODE: u32 = 0o400;

/// There is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The kernel's devices cannot be read.
    #[error(
        "there is no usable WireGuard key file (WIREGUARD_KEY_FILE, default /run/flannel/wgkey), and the key of device {device} \
         cannot be read"
    )]
    Device {
        /// Its name.
        device: IfName,
        /// Why not.
        source: ObserveError,
    },
    /// The kernel gives no random numbers.
    #[error(
        "cannot generate the WireGuard key of devices flannel-wg and flannel-wg-v6: getrandom(2) fails; allow it if a seccomp \
         profile restricts flanneld"
    )]
    Generate(#[source] io::Error),
}

/// Where a key comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Origin {
    /// The file. `is_private`: no other user can read it.
    File { is_private: bool },
    /// A device in the kernel, because the file is missing or unusable.
    Device(IfName),
    /// It is new.
    New,
}

/// The key that a start uses; a new one if there is none yet. Writes nothing.
///
/// # Errors
/// [`KeyError`]
pub fn find(path: &Path, kernel: &mut impl Kernel) -> Result<PrivateKey, KeyError> {
    look(path, kernel).map(|(key, ..)| key)
}

/// The same, and writes the file if it does not have the key or if other users can read it. A file that cannot be written
/// is logged: the device in the kernel has the key.
///
/// # Errors
/// [`KeyError`]
pub fn settle(path: &Path, kernel: &mut impl Kernel) -> Result<PrivateKey, KeyError> {
    let (key, origin, problem) = look(path, kernel)?;
    let shown = path.display();
    if let Some(problem) = problem {
        warn!("replacing WireGuard key file {shown}, which cannot be used; nothing is needed: {problem}");
    }
    match origin {
        Origin::File { is_private: true } => return Ok(key),
        Origin::File { is_private: false } => {
            warn!(
                "other users could read WireGuard key file {shown}: flanneld gives it mode 0400 and keeps the key, so that traffic \
                 is not affected. If another user may have read it, stop flanneld, delete the file and the devices \
                 flannel-wg and flannel-wg-v6, and start flanneld again: it generates a new key"
            );
        }
        Origin::Device(device) => {
            info!("WireGuard key file {shown} is written with the key of device {device}")
        }
        Origin::New => {
            info!("WireGuard key file {shown} is written with a new key; its public key is {}", key.public());
        }
    }
    match file::replace(path, key.to_base64().as_bytes(), MODE) {
        Ok(()) => file::remove_leftovers(path),
        Err(error) => warn!(
            "cannot write WireGuard key file {shown}: {}. Traffic is not affected, and flanneld tries again at its next start. If the \
             devices flannel-wg and flannel-wg-v6 are removed before, as by a reboot, this node gets another key, which the other \
             nodes learn from its lease: {}",
            file::write_advice(&error),
            Chain(&error)
        ),
    }
    Ok(key)
}

/// The key, where it is from, and why the file is not used if it exists.
fn look(path: &Path, kernel: &mut impl Kernel) -> Result<(PrivateKey, Origin, Option<String>), KeyError> {
    let problem = match read(path) {
        Ok(Some((key, is_private))) => return Ok((key, Origin::File { is_private }, None)),
        Ok(None) => None,
        Err(problem) => Some(problem),
    };
    for device in Family::ALL.map(|family| FlannelDevice::Wireguard.name(family)) {
        let found = kernel.wireguard(device).map_err(|source| KeyError::Device { device, source })?;
        if let Some(key) = found.and_then(|found| found.private_key) {
            return Ok((key, Origin::Device(device), problem));
        }
    }
    Ok((PrivateKey::generate().map_err(KeyError::Generate)?, Origin::New, problem))
}

/// The key in the file, and whether no other user can read it; `None` if there is no file.
///
/// # Errors
/// What is wrong with the file, without its content.
fn read(path: &Path) -> Result<Option<(PrivateKey, bool)>, String> {
    // A link may lead to a file of another user, and a FIFO has no end.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error().map(Errno::from_raw) == Some(Errno::ELOOP) => {
            return Err("it is a symbolic link, which flanneld does not follow".to_owned());
        }
        Err(error) => return Err(error.to_string()),
    };
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let (owner, us) = (metadata.uid(), nix::unistd::geteuid().as_raw());
    if owner != 0 && owner != us {
        return Err(format!("it belongs to user {owner}"));
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(|error| {
        if error.kind() == io::ErrorKind::InvalidData {
            "it is not text".to_owned()
        } else {
            error.to_string()
        }
    })?;
    if text.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    let key = PrivateKey::from_base64(&text).map_err(|error| error.to_string())?;
    Ok(Some((key, metadata.mode() & 0o077 == 0)))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use flannel_vxlan::FakeKernel;

    use super::*;

    #[test]
    fn a_key_is_written_once_and_kept_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/wgkey");
        let mut kernel = FakeKernel::default();
        let key = settle(&path, &mut kernel).unwrap();
        let written = || fs::metadata(&path).map(|found| (found.mode() & 0o7777, found.ino())).unwrap();
        let first = written();
        assert_eq!(first.0, 0o400);
        assert_eq!(fs::read_to_string(&path).unwrap(), key.to_base64(), "as upstream writes it");
        assert_eq!(settle(&path, &mut kernel).unwrap(), key);
        assert_eq!(written(), first, "not written again");
        fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
        assert_eq!(settle(&path, &mut kernel).unwrap(), key);
        assert_eq!(written().0, 0o400);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
    }

    /// What a crash of another program, a full disk or an attacker may leave.
    #[test]
    fn an_unusable_file_is_replaced_and_its_content_never_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wgkey");
        let key = PrivateKey::new([7; 32]);
        let almost = &key.to_base64()[..40];
        for (content, expected) in [
            ("", "it is empty"),
            ("\n", "it is empty"),
            (almost, "not a WireGuard private key"),
            (&"A".repeat(10_000), "not a WireGuard private key"),
        ] {
            fs::write(&path, content).unwrap();
            let problem = read(&path).unwrap_err();
            assert!(problem.starts_with(expected) && !problem.contains(almost), "{problem}");
            let settled = settle(&path, &mut FakeKernel::default()).unwrap();
            assert_eq!(read(&path), Ok(Some((settled, true))));
            fs::remove_file(&path).unwrap();
        }
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_eq!(read(&path), Err("it is not text".to_owned()));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(read(&path).is_err());
        assert!(find(&path, &mut FakeKernel::default()).is_ok(), "a start needs no file");
    }

    #[test]
    fn a_symbolic_link_is_replaced_and_its_target_neither_read_nor_written() {
        let folder = tempfile::tempdir().unwrap();
        let (path, target) = (folder.path().join("wgkey"), folder.path().join("target"));
        let planted = PrivateKey::new([9; 32]);
        fs::write(&target, planted.to_base64()).unwrap();
        symlink(&target, &path).unwrap();
        let settled = settle(&path, &mut FakeKernel::default()).unwrap();
        assert_ne!(settled, planted);
        assert_eq!(fs::read_to_string(&target).unwrap(), planted.to_base64());
        assert_eq!(read(&path), Ok(Some((settled, true))));
    }
}
