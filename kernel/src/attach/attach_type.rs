//! Cgroup attach types.

use std::fmt;
use std::str::FromStr;

use libbpf_sys as sys;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A cgroup attach type, with the name that bpftool uses (`cgroup_inet_ingress`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttachType(u8);

/// A row of the table: `enum bpf_attach_type`, bpftool's name, and the program type that the kernel accepts there, in
/// bpftool's words.
type Row = (sys::bpf_attach_type, &'static str, &'static str);

/// Every cgroup attach type up to kernel 6.18, in the order of the kernel's enumeration.
const TABLE: [Row; 29] = [
    (sys::BPF_CGROUP_INET_INGRESS, "cgroup_inet_ingress", "cgroup_skb"),
    (sys::BPF_CGROUP_INET_EGRESS, "cgroup_inet_egress", "cgroup_skb"),
    (sys::BPF_CGROUP_INET_SOCK_CREATE, "cgroup_inet_sock_create", "cgroup_sock"),
    (sys::BPF_CGROUP_SOCK_OPS, "cgroup_sock_ops", "sock_ops"),
    (sys::BPF_CGROUP_DEVICE, "cgroup_device", "cgroup_device"),
    (sys::BPF_CGROUP_INET4_BIND, "cgroup_inet4_bind", "cgroup_sock_addr"),
    (sys::BPF_CGROUP_INET6_BIND, "cgroup_inet6_bind", "cgroup_sock_addr"),
    (sys::BPF_CGROUP_INET4_CONNECT, "cgroup_inet4_connect", "cgroup_sock_addr"),
    (sys::BPF_CGROUP_INET6_CONNECT, "cgroup_inet6_connect", "cgroup_sock_addr"),
    (sys::BPF_CGROUP_INET4_POST_BIND, "cgroup_inet4_post_bind", "cgroup_sock"),
    (sys::BPF_CGROUP_INET6_POST_BIND, "cgroup_inet6_post_bind", "cgroup_sock"),
    (sys::BPF_CGROUP_UDP4_SENDMSG, "cgroup_udp4_sendmsg", "cgroup_sock_addr"),
    (sys::BPF_CGROUP_UDP6_SENDMSG, "cgroup_udp6_sendmsg", "cgroup_sock_addr"),
    (sys::BPF_CGROUP_SYSCTL, "cgroup_sysctl", "cgroup_sysctl"),
    (sys::BPF_CGROUP_UDP4_RECVMSG, "cgroup_udp4_recvmsg", "cgroup_sock_addr"),
    (sys::BPF_CGROUP_UDP6_RECVMSG, "cgroup_udp6_recvmsg", "cgroup_sock_addr"),
    (sys::BPF_CGROUP_GETSOCKOPT, "cgroup_getsockopt", "cgroup_sockopt"),
    (sys::BPF_CGROUP_SETSOCKOPT, "cgroup_setsockopt", "cgroup_sockopt"),
    (sys::BPF_CGROUP_INET4_GETPEERNAME, "cgroup_inet4_getpeername", "cgroup_sock_addr"),
    (sys::BPF_CGROUP_INET6_GETPEERNAME, "cgroup_inet6_getpeername", "cgroup_sock_addr"),
    (sys::BPF_CGROUP_INET4_GETSOCKNAME, "cgroup_inet4_getsockname", "cgroup_sock_addr"),
    (sys::BPF_CGROUP_INET6_GETSOCKNAME, "cgroup_inet6_getsockname", "cgroup_sock_addr"),
    (sys::BPF_CGROUP_INET_SOCK_RELEASE, "cgroup_inet_sock_release", "cgroup_sock"),
    (sys::BPF_LSM_CGROUP, "lsm_cgroup", "lsm"),
    (sys::BPF_CGROUP_UNIX_CONNECT, "cgroup_unix_connect", "cgroup_sock_addr"),
    (sys::BPF_CGROUP_UNIX_SENDMSG, "cgroup_unix_sendmsg", "cgroup_sock_addr"),
    (sys::BPF_CGROUP_UNIX_RECVMSG, "cgroup_unix_recvmsg", "cgroup_sock_addr"),
    (sys::BPF_CGROUP_UNIX_GETPEERNAME, "cgroup_unix_getpeername", "cgroup_sock_addr"),
    (sys::BPF_CGROUP_UNIX_GETSOCKNAME, "cgroup_unix_getsockname", "cgroup_sock_addr"),
];

impl AttachType {
    /// For packets that the cgroup's sockets receive.
    pub const INET_INGRESS: Self = Self(0);
    /// For packets that the cgroup's sockets send.
    pub const INET_EGRESS: Self = Self(1);
    /// For events of the cgroup's TCP sockets.
    pub const SOCK_OPS: Self = Self(3);
    /// For hooks of security modules. One attach type stands for many hooks, and each hook has its own list.
    pub const LSM: Self = Self(23);

    /// Returns every cgroup attach type that this build knows, in the kernel's order. The running kernel may know
    /// fewer; see [`crate::attach::probe`].
    pub fn all() -> impl Iterator<Item = Self> {
        (0..TABLE.len()).filter_map(|row| u8::try_from(row).ok().map(Self))
    }

    /// Returns the cgroup attach type with this kernel number. `None` for any other number.
    pub fn from_kernel(number: u32) -> Option<Self> {
        Self::all().find(|attach_type| attach_type.kernel() == number)
    }

    /// Returns the number in `enum bpf_attach_type`.
    pub fn kernel(self) -> u32 {
        self.row().0
    }

    /// Returns the name, as bpftool prints it.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Returns the type of the programs that can be attached here, as bpftool prints it.
    pub fn program_type(self) -> &'static str {
        self.row().2
    }

    fn row(self) -> Row {
        TABLE[usize::from(self.0)]
    }
}

impl fmt::Display for AttachType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The name is not a cgroup attach type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no cgroup attach type; they are named as bpftool names them, such as cgroup_inet_ingress"
)]
pub struct UnknownAttachType(String);

impl FromStr for AttachType {
    type Err = UnknownAttachType;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::all()
            .find(|attach_type| attach_type.name() == name)
            .ok_or_else(|| UnknownAttachType(name.to_owned()))
    }
}

impl Serialize for AttachType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for AttachType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_lead_back_to_the_same_type() {
        for attach_type in AttachType::all() {
            assert_eq!(attach_type.name().parse(), Ok(attach_type));
            assert_eq!(AttachType::from_kernel(attach_type.kernel()), Some(attach_type));
        }
    }

    #[test]
    fn the_two_inet_types_are_the_kernels_first_two() {
        assert_eq!(AttachType::INET_INGRESS.name(), "cgroup_inet_ingress");
        assert_eq!(AttachType::INET_EGRESS.kernel(), 1);
        assert_eq!(AttachType::SOCK_OPS.name(), "cgroup_sock_ops");
        assert_eq!(AttachType::LSM.name(), "lsm_cgroup");
        let first = AttachType::all().take(2);
        assert!(first.eq([AttachType::INET_INGRESS, AttachType::INET_EGRESS]));
    }

    #[test]
    fn a_type_is_printed_under_its_name_and_knows_its_programs() {
        let lsm: AttachType = "lsm_cgroup".parse().unwrap();
        assert_eq!(format!("{lsm:>12}|"), "  lsm_cgroup|");
        assert_eq!(lsm.program_type(), "lsm");
        assert_eq!(AttachType::INET_EGRESS.program_type(), "cgroup_skb");
    }

    #[test]
    fn a_type_that_is_not_a_cgroups_is_refused() {
        assert_eq!(AttachType::from_kernel(sys::BPF_XDP), None);
        assert!("xdp".parse::<AttachType>().unwrap_err().to_string().contains("'xdp'"));
    }
}
