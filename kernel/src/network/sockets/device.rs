//! Finds the tun or tap device of an open `/dev/net/tun`.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkLayerType, LinkMessage};

use super::Device;
use super::record::Record;
use crate::network::links::name;
use crate::network::netns;
use crate::network::rtnetlink::all;

/// Returns the device. `None` if the file is not, or no longer, connected to one.
pub(super) fn held(record: &Record) -> Option<Device> {
    let task = PathBuf::from(format!("/proc/{}/task/{}", record.process, record.thread));
    let info = fs::read(task.join("fdinfo").join(record.fd.to_string())).ok()?;
    let name = name_of(&info)?;
    let network = File::open(task.join("ns/net")).ok();
    let is_tap = network.as_ref().and_then(|network| is_ethernet(network, &name));
    Some(Device { name, is_tap, network: network.and_then(|it| Some(it.metadata().ok()?.ino())) })
}

/// Parses `iff:` in the file's information.
fn name_of(info: &[u8]) -> Option<String> {
    let name = info.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"iff:"))?;
    let name = name.trim_ascii();
    (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
}

/// Tells whether a device of a network namespace carries Ethernet frames. `None` if the device is not there or not
/// visible.
fn is_ethernet(network: &File, wanted: &str) -> Option<bool> {
    let links = || all(&RouteNetlinkMessage::GetLink(LinkMessage::default()));
    let is_wanted = |link: &LinkMessage| name(link) == Some(wanted);
    netns::inside(network, links).ok()?.iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(link) if is_wanted(link) => {
            Some(link.header.link_layer_type == LinkLayerType::Ether)
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_connected_to_no_device_has_no_name() {
        assert_eq!(name_of(b"pos:\t0\nflags:\t02\niff:\ttun0\n"), Some("tun0".to_owned()));
        assert_eq!(name_of(b"pos:\t0\niff:\t\n"), None);
        assert_eq!(name_of(b"pos:\t0\n"), None);
    }
}
