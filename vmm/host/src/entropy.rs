//! The host's entropy.

/// Fills `bytes` from the kernel's generator; `false` when it cannot.
pub fn fill(bytes: &mut [u8]) -> bool {
    let mut done = 0;
    while done < bytes.len() {
        let rest = &mut bytes[done..];
        // By number: the standard library declares the function `getrandom` weak, and with link-time optimisation a static
        // binary then may not have it at all.
        // SAFETY: pointer and length belong to one slice that is ours to write.
        let got = unsafe { libc::syscall(libc::SYS_getrandom, rest.as_mut_ptr(), rest.len(), 0) };
        match usize::try_from(got) {
            Ok(got) => done += got,
            Err(_) if std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted => {
            }
            Err(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_draws_differ() {
        let (mut a, mut b) = ([0; 32], [0; 32]);
        assert!(super::fill(&mut a) && super::fill(&mut b));
        assert_ne!(a, b);
    }
}
