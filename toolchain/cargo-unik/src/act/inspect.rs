//! `cargo unik inspect`: what an image says about itself, for people or as JSON.

use super::link::LinkError;
use crate::Error;
use crate::args::InspectArgs;
use crate::exit_codes;
use std::path::PathBuf;
use unik_image::{Inspection, inspect as read};

/// Why an image cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// No image.
    #[error("`{path}`: {source}")]
    Image {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: unik_image::InspectError,
    },
    /// Cannot be said in JSON.
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl InspectError {
    /// See [`exit_codes`].
    pub fn exit_code(&self) -> u8 {
        exit_codes::DATA
    }
}

/// Prints to standard output.
pub fn inspect(args: &InspectArgs) -> Result<(), Error> {
    let path = &args.image;
    let bytes = std::fs::read(path).map_err(|source| LinkError::Read {
        path: path.clone(),
        source,
    })?;
    let inspection = read(&bytes).map_err(|source| InspectError::Image {
        path: path.clone(),
        source,
    })?;
    match args.json {
        true => println!(
            "{}",
            serde_json::to_string_pretty(&inspection).map_err(InspectError::from)?
        ),
        false => print!("{}", words(&inspection)),
    }
    Ok(())
}

/// The report for people.
fn words(image: &Inspection) -> String {
    let mut out = Vec::new();
    let mut line = |name: &str, text: String| out.push(format!("{name:<14} {text}\n"));
    let kind = if image.program.pie {
        "position independent"
    } else {
        "at fixed addresses"
    };
    line(
        "program",
        format!(
            "{}, {kind}, entry {:#x}",
            image.record("exe").unwrap_or("?"),
            image.program.entry
        ),
    );
    for segment in &image.program.segments {
        let what = if segment.trampolines {
            "trampolines"
        } else {
            ""
        };
        let text = format!(
            "{} {:#12x} {:>9} in memory {what}",
            segment.permissions,
            segment.vaddr,
            size(segment.mem_len)
        );
        line("  segment", text.trim_end().to_owned());
    }
    line(
        "system calls",
        sites(image.syscall.map(|c| (c.bound, c.unbound))),
    );
    line("cpuid", sites(image.cpuid.map(|c| (c.bound, c.unbound))));
    let s = &image.sizes;
    line(
        "image",
        format!("{}, ABI version {}", size(s.total), image.abi_version),
    );
    let parts = [
        ("library OS", s.libos),
        ("program", s.program),
        ("trampolines", s.trampolines),
        ("vDSO", s.vdso),
        ("files", s.files),
        ("page tables", s.page_tables),
        ("symbols", s.symbols),
    ];
    parts
        .iter()
        .for_each(|(name, bytes)| line(&format!("  {name}"), size(*bytes)));
    for (key, value) in image.manifest.iter().filter(|(key, _)| !key.contains('.')) {
        line("manifest", format!("{key} = {value}"));
    }
    for file in &image.files {
        let target = file
            .target
            .as_ref()
            .map(|t| format!(" -> {t}"))
            .unwrap_or_default();
        line(
            "file",
            format!(
                "{:o} {:>9} /{}{target}",
                file.mode,
                size(file.size.into()),
                file.path
            ),
        );
    }
    out.concat()
}

fn sites(counts: Option<(u64, u64)>) -> String {
    match counts {
        None => "not rewritten (--no-bind)".to_owned(),
        Some((bound, unbound)) => {
            format!("{bound} sites rewritten, {unbound} left to the processor's path")
        }
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}
