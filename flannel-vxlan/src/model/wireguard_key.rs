//! The keys of WireGuard. The secret ones cannot be printed.

use std::fmt;
use std::str::FromStr;

use base64::prelude::{BASE64_STANDARD, Engine as _};

use crate::error::ValueError;

/// Length of a key in bytes (`WG_KEY_LEN`, include/uapi/linux/wireguard.h).
pub(crate) const KEY_LEN: usize = 32;

/// The public key of a node, which identifies it among the peers of a device. `Display` and `FromStr` use base64, as `wg`
/// does.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PublicKey([u8; KEY_LEN]);

impl PublicKey {
    /// A key from its bytes.
    #[must_use]
    pub fn new(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> [u8; KEY_LEN] {
        self.0
    }
}

impl FromStr for PublicKey {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        decode(text).map(Self).ok_or_else(|| ValueError::PublicKey(text.to_owned()))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// The private key of a node. It has no `Display`, and `Debug` does not print it.
///
/// Keys that differ only in the bits that Curve25519 ignores are equal, because the kernel fixes these bits: a key from a
/// file is equal to the key that the kernel has after it was set.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct PrivateKey([u8; KEY_LEN]);

impl PrivateKey {
    /// A key from its bytes.
    #[must_use]
    pub fn new(mut bytes: [u8; KEY_LEN]) -> Self {
        // `curve25519_clamp_secret` (include/crypto/curve25519.h).
        bytes[0] &= 248;
        bytes[31] = (bytes[31] & 127) | 64;
        Self(bytes)
    }

    /// A new key from the kernel's random numbers, as `wg genkey` makes it.
    ///
    /// # Errors
    /// The kernel has no random numbers, e.g. because a seccomp filter forbids `getrandom` and there is no /dev/urandom.
    pub fn generate() -> Result<Self, std::io::Error> {
        let mut bytes = [0; KEY_LEN];
        getrandom::fill(&mut bytes)?;
        Ok(Self::new(bytes))
    }

    /// Reads base64, as `wg genkey` and upstream flannel write it to a key file. White space around it is ignored.
    ///
    /// # Errors
    /// [`ValueError::PrivateKey`] if it is not base64 of 32 bytes. The error does not contain the text, which may be most
    /// of a key.
    pub fn from_base64(text: &str) -> Result<Self, ValueError> {
        decode(text).map(Self::new).ok_or(ValueError::PrivateKey)
    }

    /// Base64, for a key file.
    #[must_use]
    pub fn to_base64(&self) -> String {
        BASE64_STANDARD.encode(self.0)
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> [u8; KEY_LEN] {
        self.0
    }

    /// The public key that belongs to it.
    ///
    /// # Kernel
    /// `wg pubkey`
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(x25519_dalek::x25519(self.0, x25519_dalek::X25519_BASEPOINT_BYTES))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// A symmetric key that nodes share in addition to their own keys. It has no `Display`, and `Debug` does not print it.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct PresharedKey([u8; KEY_LEN]);

impl PresharedKey {
    /// A key from its bytes; `None` if all are zero, which is how the kernel writes "no preshared key".
    #[must_use]
    pub fn new(bytes: [u8; KEY_LEN]) -> Option<Self> {
        (bytes != [0; KEY_LEN]).then_some(Self(bytes))
    }

    /// Reads base64, as `wg genpsk` writes it. White space around it is ignored.
    ///
    /// # Errors
    /// [`ValueError::PresharedKey`] if it is not base64 of 32 bytes, or if all bytes are zero. The error does not contain
    /// the text.
    pub fn from_base64(text: &str) -> Result<Self, ValueError> {
        decode(text).and_then(Self::new).ok_or(ValueError::PresharedKey)
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> [u8; KEY_LEN] {
        self.0
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(..)")
    }
}

fn decode(text: &str) -> Option<[u8; KEY_LEN]> {
    BASE64_STANDARD.decode(text.trim()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key pair of Alice in RFC 7748, section 6.1; its private key has bits that Curve25519 ignores.
    const PRIVATE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    const PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

    #[test]
    fn the_public_key_is_derived_from_the_private_key() {
        let private = PrivateKey::from_base64(&format!(" {PRIVATE}\n")).unwrap();
        assert_eq!(private.public().to_string(), PUBLIC);
        assert_eq!(PUBLIC.parse(), Ok(private.public()));
        assert_eq!(PrivateKey::from_base64(&private.to_base64()), Ok(private));
    }

    #[test]
    fn bits_that_curve25519_ignores_make_no_difference() {
        assert_eq!(PrivateKey::new([255; 32]), PrivateKey::new(PrivateKey::new([255; 32]).bytes()));
        assert_eq!(PrivateKey::new([0; 32]).bytes()[31], 64);
        let first = PrivateKey::generate().unwrap();
        assert_ne!(first, PrivateKey::generate().unwrap());
    }

    #[test]
    fn secrets_are_neither_printed_nor_quoted_by_errors() {
        let private = PrivateKey::from_base64(PRIVATE).unwrap();
        let psk = PresharedKey::from_base64(PRIVATE).unwrap();
        assert_eq!(format!("{private:?} {psk:?}"), "PrivateKey(..) PresharedKey(..)");
        let almost = &PRIVATE[..40];
        for error in
            [PrivateKey::from_base64(almost).unwrap_err(), PresharedKey::from_base64(almost).unwrap_err()]
        {
            assert!(!format!("{error} {error:?}").contains(&PRIVATE[..8]), "{error}");
        }
        assert_eq!(
            PresharedKey::from_base64(&BASE64_STANDARD.encode([0; 32])),
            Err(ValueError::PresharedKey)
        );
    }
}
