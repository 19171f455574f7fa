//! What the standard library does not have: descriptors in messages, credentials, several messages in one call.

use crate::Result;
use std::io::{Error, Read, Seek, Write};
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::{fs::File, ptr};

pub fn run() -> Result<()> {
    descriptors()?;
    credentials()?;
    many()?;
    Ok(())
}

fn check(result: libc::ssize_t) -> Result<usize> {
    usize::try_from(result).map_err(|_| Error::last_os_error().into())
}

/// Room for control messages, aligned as they need.
type Control = [u64; 16];

fn header(iov: &mut libc::iovec, control: &mut Control, len: usize) -> libc::msghdr {
    // SAFETY: all zeros is a valid msghdr.
    let mut header: libc::msghdr = unsafe { zeroed() };
    (header.msg_iov, header.msg_iovlen) = (iov, 1);
    // Lengths and flags have other types in other C libraries.
    (header.msg_control, header.msg_controllen) = (control.as_mut_ptr().cast(), len as _);
    header
}

fn send_descriptors(socket: RawFd, text: &[u8], files: &[RawFd]) -> Result<usize> {
    let mut control: Control = [0; 16];
    let mut iov = libc::iovec {
        iov_base: text.as_ptr().cast_mut().cast(),
        iov_len: text.len(),
    };
    let bytes = size_of_val(files) as u32;
    // SAFETY: the control buffer has room for the message; all pointers outlive the call.
    unsafe {
        let header = header(&mut iov, &mut control, libc::CMSG_SPACE(bytes) as usize);
        let first = libc::CMSG_FIRSTHDR(&header);
        ((*first).cmsg_level, (*first).cmsg_type) = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
        (*first).cmsg_len = libc::CMSG_LEN(bytes) as _;
        ptr::copy_nonoverlapping(
            files.as_ptr().cast(),
            libc::CMSG_DATA(first),
            bytes as usize,
        );
        check(libc::sendmsg(socket, &header, 0))
    }
}

/// Receives into 16 bytes: the text, the descriptors and the flags.
fn receive_descriptors(socket: RawFd, room: usize) -> Result<(String, Vec<RawFd>, i32)> {
    let (mut control, mut text): (Control, _) = ([0; 16], [0u8; 16]);
    let mut iov = libc::iovec {
        iov_base: text.as_mut_ptr().cast(),
        iov_len: text.len(),
    };
    let mut files = Vec::new();
    // SAFETY: the buffers outlive the call; the kernel wrote whole control messages.
    unsafe {
        let mut header = header(&mut iov, &mut control, room);
        let len = check(libc::recvmsg(socket, &mut header, libc::MSG_CMSG_CLOEXEC))?;
        let first = libc::CMSG_FIRSTHDR(&header);
        if !first.is_null() && (*first).cmsg_type == libc::SCM_RIGHTS {
            let bytes = (*first).cmsg_len as u32 - libc::CMSG_LEN(0);
            let count = bytes as usize / size_of::<RawFd>();
            let data: *const RawFd = libc::CMSG_DATA(first).cast();
            files.extend((0..count).map(|at| data.add(at).read_unaligned()));
        }
        Ok((
            String::from_utf8_lossy(&text[..len]).into_owned(),
            files,
            header.msg_flags & !libc::MSG_CMSG_CLOEXEC,
        ))
    }
}

fn descriptors() -> Result<()> {
    let (a, b) = UnixStream::pair()?;
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open("/tmp/unik-example-passed")?;
    file.write_all(b"through a socket")?;
    send_descriptors(a.as_raw_fd(), b"here", &[file.as_raw_fd()])?;
    drop(file);
    let (text, files, flags) = receive_descriptors(b.as_raw_fd(), size_of::<Control>())?;
    // SAFETY: the descriptor was just received and belongs to nobody else.
    let mut passed = unsafe { File::from_raw_fd(files[0]) };
    passed.rewind()?;
    let mut content = String::new();
    passed.read_to_string(&mut content)?;
    println!(
        "{text}: {} descriptor, flags {flags:#x}, {content:?}",
        files.len()
    );
    send_descriptors(a.as_raw_fd(), b"cut", &[0, 1, 2])?;
    let (text, files, flags) = receive_descriptors(b.as_raw_fd(), 20)?;
    println!("{text}: {} of 3 descriptors, flags {flags:#x}", files.len());
    // A socket on its way through itself: closing everything must not upset anybody.
    send_descriptors(b.as_raw_fd(), b"self", &[b.as_raw_fd()])?;
    println!(
        "bad descriptor: {:?}",
        send_descriptors(a.as_raw_fd(), b"x", &[999])
            .unwrap_err()
            .to_string()
    );
    drop(b);
    drop(a);
    std::fs::remove_file("/tmp/unik-example-passed")?;
    Ok(())
}

fn credentials() -> Result<()> {
    let (a, _b) = UnixStream::pair()?;
    // SAFETY: plain data.
    let mut who: libc::ucred = unsafe { zeroed() };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the pointers are to values of the right size.
    let code = unsafe {
        libc::getsockopt(
            a.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut who).cast(),
            &mut len,
        )
    };
    // SAFETY: asks for a number.
    let user = unsafe { libc::getuid() };
    println!(
        "peer: {code} {len}, this process {}, this user {}",
        who.pid as u32 == std::process::id(),
        who.uid == user
    );
    Ok(())
}

fn many() -> Result<()> {
    let (a, b) = UnixDatagram::pair()?;
    let mut texts = [*b"one..", *b"two..", *b"three"];
    let mut parts = texts.each_mut().map(|text| libc::iovec {
        iov_base: text.as_mut_ptr().cast(),
        iov_len: text.len(),
    });
    let mut headers = parts.each_mut().map(|part| {
        // SAFETY: all zeros is a valid mmsghdr.
        let mut header: libc::mmsghdr = unsafe { zeroed() };
        (header.msg_hdr.msg_iov, header.msg_hdr.msg_iovlen) = (part, 1);
        header
    });
    // SAFETY: the headers lead to live buffers.
    let sent = unsafe { libc::sendmmsg(a.as_raw_fd(), headers.as_mut_ptr(), 3, 0) };
    texts.iter_mut().for_each(|text| *text = [0; 5]);
    // SAFETY: as above.
    let got = unsafe {
        libc::recvmmsg(
            b.as_raw_fd(),
            headers.as_mut_ptr(),
            3,
            libc::MSG_WAITFORONE as _,
            ptr::null_mut(),
        )
    };
    println!(
        "{sent} sent, {got} received: {:?}",
        texts.each_ref().map(|text| String::from_utf8_lossy(text))
    );
    Ok(())
}
