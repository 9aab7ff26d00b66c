//! Reads the `[[guest.disk]]`, `[[guest.network]]` and `[[guest.hostdev]]` sections.

use std::collections::BTreeMap;

use super::checks::{self, shown};
use super::diagnostic::Diagnostic;
use super::reader::{Read, Reader, Reported, Section};
use super::{Attachment, BaseImage, Disk, Network, SocketMode, Spanned};
use crate::formats::DeviceName;
use crate::formats::pci::interface_name;

/// What may be used once in a profile, with where it is used first.
#[derive(Default)]
pub(super) struct Used(BTreeMap<(&'static str, String), String>);

impl Used {
    /// Refuses what a guest of the profile has already; `what` it is, for people, `owner` who asks.
    fn once(
        &mut self,
        reader: &mut Reader<'_>,
        what: &'static str,
        value: &Spanned<String>,
        owner: &str,
    ) -> Result<(), Reported> {
        let key = (what, value.value.clone());
        if let Some(first) = self.0.get(&key) {
            let error =
                Diagnostic::error(value.span.clone(), format!("{what} {} is used twice", shown(value)));
            return Err(reader.error(error.label(format!("first used in {first}"))));
        }
        let line = reader.line_number(&value.span);
        self.0.insert(key, format!("line {line}{owner}"));
        Ok(())
    }
}

/// The disks; two writers would destroy a file system.
pub(super) fn disks(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    owner: &str,
    used: &mut Used,
) -> Read<Vec<Disk>> {
    let mut disks = Vec::new();
    for section in reader.tables(section, "disk", "guest.disk")? {
        let source = reader.text(&section, "source", checks::disk_source);
        let source = source.and_then(|s| used.once(reader, "disk", &s, owner).map(|()| s));
        let format = reader.choice(&section, "format");
        let bus = reader.optional_choice(&section, "bus");
        let base = base_image(reader, &section, &source);
        disks.push(source.and_then(|source| {
            Ok(Disk { span: section.span, source, format: format?, bus: bus?, base: base? })
        }));
    }
    disks.into_iter().collect()
}

fn base_image(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    source: &Read<Spanned<String>>,
) -> Read<Option<BaseImage>> {
    let image = reader.optional_text(section, "base-image", checks::disk_source);
    let format = reader.optional_choice(section, "base-format");
    let size = reader.size(section, "disk-size");
    let (image, format, size) = (image?, format?, size?);
    let Some(image) = image else {
        let spans =
            [format.map(|format| ("base-format", format.span)), size.map(|size| ("disk-size", size.span))];
        let Some((key, span)) = spans.into_iter().flatten().next() else { return Ok(None) };
        let error = Diagnostic::error(span, format!("`{key}` goes with `base-image` alone"));
        return Err(reader.error(error.label("remove it")));
    };
    let wrong = match source {
        Ok(source) if source.starts_with("/dev/") => Some("a block device is not made of an image"),
        Ok(source) if source.value == image.value => Some("a disk is not made of itself"),
        _ => None,
    };
    match wrong {
        Some(message) => {
            let error = Diagnostic::error(image.span, message);
            Err(reader.error(error.label("name the file to make as `source`, and another image here")))
        }
        None => Ok(Some(BaseImage { image, format, size })),
    }
}

/// The keys that say what a network interface is connected to.
const ATTACHMENTS: [&str; 5] = ["bridge", "macvtap", "virtual-function", "vf-pool", "vhost-user"];

pub(super) fn networks(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    owner: &str,
    used: &mut Used,
) -> Read<Vec<Network>> {
    let mut networks = Vec::new();
    for section in reader.tables(section, "network", "guest.network")? {
        networks.push(network(reader, section, owner, used));
    }
    networks.into_iter().collect()
}

fn network(reader: &mut Reader<'_>, section: Section<'_>, owner: &str, used: &mut Used) -> Read<Network> {
    let mac = reader.optional_text(&section, "mac", checks::mac);
    let mac = mac.map(|mac| mac.map(|mac| mac.map(|mac| mac.to_ascii_lowercase())));
    let mac = mac.and_then(|mac| match mac {
        Some(mac) => used.once(reader, "MAC address", &mac, owner).map(|()| Some(mac)),
        None => Ok(None),
    });
    let model = reader.optional_choice(&section, "model");
    let mode = reader.optional_choice::<SocketMode>(&section, "socket-mode");
    let [bridge, macvtap, function, pool, socket] = [
        reader.optional_text(&section, ATTACHMENTS[0], interface_name),
        reader.optional_text(&section, ATTACHMENTS[1], interface_name),
        reader.optional_text(&section, ATTACHMENTS[2], is_device),
        reader.optional_text(&section, ATTACHMENTS[3], checks::network),
        reader.optional_text(&section, ATTACHMENTS[4], checks::socket),
    ];
    let (bridge, macvtap, function, pool, socket) = (bridge?, macvtap?, function?, pool?, socket?);
    let (model, mode) = (model?, mode?);
    let attachment = match (bridge, macvtap, function, pool, socket) {
        (Some(bridge), None, None, None, None) => Attachment::Bridge(bridge),
        (None, Some(interface), None, None, None) => Attachment::Macvtap(interface),
        (None, None, Some(name), None, None) => {
            Attachment::VirtualFunction(device(reader, name, owner, used)?)
        }
        (None, None, None, Some(pool), None) => Attachment::Pool(pool),
        (None, None, None, None, Some(socket)) => {
            used.once(reader, "socket", &socket, owner)?;
            let mode = mode.as_ref().map_or(SocketMode::Server, |mode| mode.value);
            Attachment::VhostUser { socket, mode }
        }
        _ => {
            let kinds = ATTACHMENTS.map(|kind| format!("`{kind}`")).join(", ");
            let error = Diagnostic::error(section.span.clone(), "a network interface has one connection");
            return Err(reader.error(error.label(format!("write exactly one of {kinds}"))));
        }
    };
    let is_card = matches!(attachment, Attachment::Bridge(_) | Attachment::Macvtap(_));
    let is_socket = matches!(attachment, Attachment::VhostUser { .. });
    let stray = [
        (
            model.as_ref().map(|model| model.span.clone()).filter(|_| !is_card),
            "model",
            "`bridge` or `macvtap`",
        ),
        (mode.map(|mode| mode.span).filter(|_| !is_socket), "socket-mode", "`vhost-user`"),
    ];
    if let Some((Some(span), key, with)) = stray.into_iter().find(|(span, ..)| span.is_some()) {
        let error = Diagnostic::error(span, format!("`{key}` goes with {with} alone"));
        return Err(reader.error(error.label("remove it")));
    }
    Ok(Network { span: section.span, attachment, mac: mac?, model })
}

fn is_device(text: &str) -> Result<(), String> {
    DeviceName::parse(text).map(|_| ())
}

/// A device by its name; one that a guest of the profile has already, under the same name, is refused.
fn device(
    reader: &mut Reader<'_>,
    name: Spanned<String>,
    owner: &str,
    used: &mut Used,
) -> Read<Spanned<DeviceName>> {
    let device = DeviceName::parse(&name).expect("checked");
    let normal = Spanned::new(device.to_string(), name.span.clone());
    used.once(reader, "device", &normal, owner)?;
    Ok(name.map(|_| device))
}

pub(super) fn hostdevs(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    owner: &str,
    used: &mut Used,
) -> Read<Vec<Spanned<DeviceName>>> {
    let mut devices = Vec::new();
    for section in reader.tables(section, "hostdev", "guest.hostdev")? {
        let name = reader.text(&section, "device", is_device);
        devices.push(name.and_then(|name| device(reader, name, owner, used)));
    }
    devices.into_iter().collect()
}
