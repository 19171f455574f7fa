//! The manifest of an image: `key=value` records, each ended by a NUL, as `unik_abi::config` defines them.
//!
//! Beside the caller's records the linker writes its own, which the library OS ignores and [`mod@crate::inspect`] reads:
//! `bound.syscall`, `unbound.syscall`, `bound.cpuid`, `unbound.cpuid` (counts; absent without binding) and `image.info` (file offset of
//! the `ImageInfo`).

use unik_abi::config;

use crate::bind::BindReport;
use crate::link::{LinkError, LinkOptions};

/// Key of the file offset of the `ImageInfo`.
pub const INFO: &str = "image.info";
/// Key of the number of bound `syscall` sites.
pub const BOUND_SYSCALL: &str = "bound.syscall";
/// Key of the number of `syscall` sites left.
pub const UNBOUND_SYSCALL: &str = "unbound.syscall";
/// Key of the number of bound `cpuid` sites.
pub const BOUND_CPUID: &str = "bound.cpuid";
/// Key of the number of `cpuid` sites left.
pub const UNBOUND_CPUID: &str = "unbound.cpuid";

/// Writes all records.
pub fn write(
    options: &LinkOptions,
    bound: Option<&BindReport>,
    info: u64,
) -> Result<Vec<u8>, LinkError> {
    let mut out = Vec::new();
    let mut put = |key: &str, value: &str| {
        if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
            return Err(LinkError::Manifest {
                key: key.to_owned(),
            });
        }
        out.extend_from_slice(format!("{key}={value}\0").as_bytes());
        Ok(())
    };
    put("exe", &options.exe)?;
    for (key, value) in &options.manifest {
        put(key, value)?;
    }
    if let Some(report) = bound {
        put(BOUND_SYSCALL, &report.syscall.bound().to_string())?;
        put(UNBOUND_SYSCALL, &report.syscall.unbound.to_string())?;
        put(BOUND_CPUID, &report.cpuid.bound().to_string())?;
        put(UNBOUND_CPUID, &report.cpuid.unbound.to_string())?;
    }
    put(INFO, &info.to_string())?;
    Ok(out)
}

/// The records as text; what is not UTF-8 is replaced.
pub fn read(bytes: &[u8]) -> Vec<(String, String)> {
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    config::records(bytes)
        .map(|(key, value)| (text(key), text(value)))
        .collect()
}
