//! A tap device of the host: frames of a guest go into the host's network through it, with what the guest left undone said in front of
//! each (`struct virtio_net_hdr`), so that neither side computes checksums or cuts segments that never leave the machine.
//!
//! Frames lie in guest memory and are not copied here. Source: Linux `Documentation/networking/tuntap.rst`.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::disk::host_pieces;

/// Bytes of the header before each frame.
pub const HEADER: usize = 12;

/// Longest name of a network interface, without its NUL.
const NAME: usize = libc::IFNAMSIZ - 1;

/// Why a tap device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// There is none of this name.
    #[error(
        "there is no tap device `{0}`: make one (sudo ip tuntap add {0} mode tap user $USER; sudo ip link set {0} up)"
    )]
    Missing(String),
    /// Not for this user.
    #[error(
        "no permission to use the tap device `{0}`: make one that belongs to you (sudo ip tuntap add {0} mode tap user $USER)"
    )]
    Denied(String),
    /// Somebody else has it.
    #[error("the tap device `{0}` is in use: give this guest another one")]
    Busy(String),
    /// Something else.
    #[error("cannot use the tap device `{name}`: {source}")]
    Host {
        /// Its name.
        name: String,
        /// What the host said.
        source: io::Error,
    },
}

/// A tap device.
#[derive(Debug)]
pub struct Tap {
    file: File,
    mtu: u16,
    mac: [u8; 6],
}

impl Tap {
    /// Opens the device called `name`, which must be there.
    pub fn open(name: &str) -> Result<Self, TapError> {
        let folder = Path::new("/sys/class/net").join(name);
        let plain = !name.is_empty() && name.len() <= NAME && !name.contains(['/', '\0', '.']);
        if !plain || !folder.exists() {
            return Err(TapError::Missing(name.to_owned()));
        }
        let host = |source: io::Error| match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => TapError::Denied(name.to_owned()),
            Some(libc::EBUSY) => TapError::Busy(name.to_owned()),
            _ => TapError::Host {
                name: name.to_owned(),
                source,
            },
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")
            .map_err(host)?;
        attach(&file, name).map_err(host)?;
        let read = |what| std::fs::read_to_string(folder.join(what)).unwrap_or_default();
        Ok(Self {
            file,
            mtu: read("mtu").trim().parse().unwrap_or(1500),
            mac: peer_mac(read("address").trim()),
        })
    }

    /// Bytes of the longest IP packet.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// An address for the guest: the same each time, so that neighbours who remember it need not ask again, and nobody else's.
    pub fn peer_mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Says what the guest takes undone: checksums, and TCP segments of up to 64 KiB over IPv4 and IPv6.
    pub fn set_offloads(&self, checksum: bool, tso4: bool, tso6: bool) -> io::Result<()> {
        let flag = |is: bool, bit| if is { bit } else { 0 };
        let flags = flag(checksum, libc::TUN_F_CSUM)
            | flag(tso4, libc::TUN_F_TSO4)
            | flag(tso6, libc::TUN_F_TSO6);
        // SAFETY: TUNSETOFFLOAD takes a number.
        check(unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETOFFLOAD, flags) })
    }

    /// Takes a frame of the host: its header to `header`, its bytes to `pieces` of guest memory in turn; how many bytes they are. What
    /// does not fit is cut off. `WouldBlock`: there is none.
    pub fn read(
        &self,
        header: &mut [u8; HEADER],
        mem: &GuestMemoryMmap,
        pieces: &[(GuestAddress, usize)],
    ) -> io::Result<usize> {
        let mut vector = vec![libc::iovec {
            iov_base: header.as_mut_ptr().cast(),
            iov_len: HEADER,
        }];
        vector.extend(host_pieces(mem, pieces)?);
        // SAFETY: the first piece is the caller's header; the others point into guest RAM, which stays mapped as long as the
        // process lives and is only ever accessed as bytes that somebody else may change.
        let got = retry(|| unsafe {
            libc::readv(
                self.file.as_raw_fd(),
                vector.as_ptr(),
                vector.len() as libc::c_int,
            )
        })?;
        Ok(got.saturating_sub(HEADER))
    }

    /// Gives the host a frame. `WouldBlock`: not now.
    pub fn write(
        &self,
        header: &[u8; HEADER],
        mem: &GuestMemoryMmap,
        pieces: &[(GuestAddress, usize)],
    ) -> io::Result<()> {
        let mut vector = vec![libc::iovec {
            iov_base: header.as_ptr().cast_mut().cast(),
            iov_len: HEADER,
        }];
        vector.extend(host_pieces(mem, pieces)?);
        // SAFETY: as in `read`; the kernel only reads from them.
        retry(|| unsafe {
            libc::writev(
                self.file.as_raw_fd(),
                vector.as_ptr(),
                vector.len() as libc::c_int,
            )
        })?;
        Ok(())
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Makes the open `/dev/net/tun` stand for the device.
fn attach(file: &File, name: &str) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(name.as_bytes()) {
        *place = *byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags =
        (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, whose name ends with NUL (it is shorter than the field).
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    let len = HEADER as libc::c_int;
    // SAFETY: TUNSETVNETHDRSZ reads one int.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const len) })
}

/// The host's own end, but for one bit; marked as an address that anybody may choose.
fn peer_mac(own: &str) -> [u8; 6] {
    let mut mac = [0; 6];
    for (byte, text) in mac.iter_mut().zip(own.split(':')) {
        *byte = u8::from_str_radix(text, 16).unwrap_or(0);
    }
    mac[0] = mac[0] & 0xfc | 2;
    mac[5] ^= 1;
    mac
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn retry(call: impl Fn() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(moved) => return Ok(moved),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_tap_device_is_refused() {
        for name in ["", "unik-no-such", "../net/lo", "a-name-that-is-too-long"] {
            assert!(
                matches!(Tap::open(name), Err(TapError::Missing(_))),
                "{name}"
            );
        }
        assert!(Tap::open("lo").is_err());
    }

    #[test]
    fn the_guest_has_an_address_beside_the_hosts() {
        assert_eq!(
            peer_mac("62:74:ae:8e:4a:cf"),
            [0x62, 0x74, 0xae, 0x8e, 0x4a, 0xce]
        );
        assert_eq!(peer_mac(""), [2, 0, 0, 0, 0, 1]);
    }
}
