//! Error numbers of the kernel.

use std::fmt;
use std::io;

use nix::libc;

/// An error number of the kernel (errno(3)).
///
/// `Display` prints the C library's text and the name: `No such file or directory (ENOENT)`. A number without a name,
/// e.g. of a newer kernel, prints as `error 524`.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Errno(i32);

impl Errno {
    /// The error of this number, which is positive.
    #[must_use]
    pub const fn from_raw(number: i32) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn raw(self) -> i32 {
        self.0
    }
}

/// Declares a constant for each name, and [`Errno::name`].
macro_rules! errnos {
    ($($name:ident)*) => {
        impl Errno {
            $(
                #[doc = concat!("`", stringify!($name), "`")]
                pub const $name: Self = Self(libc::$name);
            )*

            /// The name, e.g. `ENOENT`.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

// include/uapi/asm-generic/errno-base.h and errno.h, without the numbers that no kernel returns to a process.
errnos! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST EXDEV
    ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE
    EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP ENOMSG EIDRM ENOSTR ENODATA ETIME ENOSR ENONET ENOLINK EPROTO
    EBADMSG EOVERFLOW ENOTUNIQ EBADFD EREMCHG EILSEQ ERESTART EUSERS ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE
    ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN
    ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETOOMANYREFS ETIMEDOUT
    ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EUCLEAN EREMOTEIO EDQUOT ENOMEDIUM ECANCELED
    ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED EOWNERDEAD ENOTRECOVERABLE ERFKILL EHWPOISON
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{} ({name})", nix::errno::Errno::from_raw(self.0).desc()),
            None => write!(f, "error {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "Errno({})", self.0),
        }
    }
}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_text_and_the_name_of_its_number() {
        assert_eq!(Errno::from_raw(2), Errno::ENOENT);
        assert_eq!(Errno::ENOENT.to_string(), "No such file or directory (ENOENT)");
        assert_eq!(format!("{:?}", Errno::EOPNOTSUPP), "EOPNOTSUPP");
        assert_eq!(io::Error::from(Errno::EPERM).kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn a_number_without_a_name_is_kept() {
        // ENOTSUPP, which some drivers return although it is internal to the kernel.
        let unknown = Errno::from_raw(524);
        assert_eq!((unknown.name(), unknown.raw()), (None, 524));
        assert_eq!(unknown.to_string(), "error 524");
    }
}
