//! Numbers of the kernel's rtnetlink messages, under the kernel's names (include/uapi/linux).

pub(crate) const RTM_DELLINK: u16 = 17;
pub(crate) const RTM_GETLINK: u16 = 18;
pub(crate) const RTM_GETADDR: u16 = 22;

pub(crate) const IFLA_IFNAME: u16 = 3;
pub(crate) const IFLA_MASTER: u16 = 10;
pub(crate) const IFLA_LINKINFO: u16 = 18;
pub(crate) const IFLA_INFO_KIND: u16 = 1;

pub(crate) const IFA_ADDRESS: u16 = 1;
pub(crate) const IFA_LOCAL: u16 = 2;

#[cfg(test)]
mod tests {
    #[test]
    fn every_number_is_the_kernels() {
        let headers = ["linux/rtnetlink.h", "linux/if_link.h", "linux/if_addr.h"];
        testkit::check_uapi(&headers, include_str!("uapi.rs"), &[]);
    }
}
