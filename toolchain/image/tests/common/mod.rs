//! Small ELF files made by hand, and real programs made by the tools that this machine has.
#![expect(dead_code, reason = "each test file uses its own part")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// A segment of a hand-made ELF file.
#[derive(Clone, Debug)]
pub struct Segment {
    pub kind: u32,
    pub flags: u32,
    pub vaddr: u64,
    pub data: Vec<u8>,
    pub mem_len: u64,
    pub align: u64,
}

impl Segment {
    pub fn load(flags: u32, vaddr: u64, data: &[u8]) -> Self {
        Self {
            kind: 1,
            flags,
            vaddr,
            data: data.into(),
            mem_len: data.len() as u64,
            align: 4096,
        }
    }
}

/// A hand-made ELF file.
#[derive(Clone, Debug)]
pub struct Elf {
    pub class: u8,
    pub data: u8,
    pub abi: u8,
    pub kind: u16,
    pub machine: u16,
    pub entry: u64,
    pub segments: Vec<Segment>,
    /// Name and value.
    pub symbols: Vec<(&'static str, u64)>,
}

impl Elf {
    /// A program that is well: one segment of code, one of data with zero memory.
    pub fn program() -> Self {
        let mut data = Segment::load(6, 0x60_2ff0, b"initialised data");
        data.mem_len = 0x3010;
        Self {
            class: 2,
            data: 1,
            abi: 0,
            kind: 2,
            machine: 62,
            entry: 0x40_1000,
            // mov $231, %eax; xor %edi, %edi; syscall; ud2
            segments: vec![
                Segment::load(5, 0x40_1000, b"\xb8\xe7\0\0\0\x31\xff\x0f\x05\x0f\x0b"),
                data,
            ],
            symbols: Vec::new(),
        }
    }

    /// A library OS that does nothing, but has everything the linker wants.
    pub fn libos() -> Self {
        const BASE: u64 = unik_abi::layout::LIBOS_VADDR;
        let mut info = Segment::load(6, BASE + 0x5000, &[0; 2048]);
        info.mem_len = 0x3456;
        Self {
            entry: BASE + 0x1000,
            segments: vec![
                Segment::load(5, BASE + 0x1000, &[0xf4; 4096]),
                Segment::load(6, BASE + 0x2000, &[1; 4096]),
                Segment::load(5, BASE + 0x3000, &[0x90; 100]),
                Segment::load(4, BASE + 0x4000, &[2; 200]),
                info,
            ],
            symbols: vec![
                ("pvh_entry", BASE + 0x1010),
                ("UNIK_IMAGE_INFO", BASE + 0x5040),
                ("__nucleus_start", BASE + 0x1000),
                ("__nucleus_end", BASE + 0x2000),
                ("__nucleus_data_start", BASE + 0x2000),
                ("__nucleus_data_end", BASE + 0x3000),
            ],
            ..Self::program()
        }
    }

    /// The file: header, program headers, segments at page boundaries plus their page offset, symbols.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = vec![0; 64 + 56 * self.segments.len()];
        let mut phdrs = Vec::new();
        for s in &self.segments {
            let at = out.len().next_multiple_of(4096) + (s.vaddr % 4096) as usize;
            out.resize(at, 0xee);
            out.extend(&s.data);
            phdrs.extend([s.kind, s.flags].map(u32::to_le_bytes).concat());
            phdrs.extend(
                [
                    at as u64,
                    s.vaddr,
                    s.vaddr,
                    s.data.len() as u64,
                    s.mem_len,
                    s.align,
                ]
                .map(u64::to_le_bytes)
                .concat(),
            );
        }
        out[64..64 + phdrs.len()].copy_from_slice(&phdrs);
        let sections = self.put_symbols(&mut out);
        let mut header = vec![
            0x7f, b'E', b'L', b'F', self.class, self.data, 1, self.abi, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        header.extend([self.kind, self.machine].map(u16::to_le_bytes).concat());
        header.extend(1u32.to_le_bytes());
        header.extend([self.entry, 64, sections.0].map(u64::to_le_bytes).concat());
        header.extend(0u32.to_le_bytes());
        header.extend(
            [64, 56, self.segments.len() as u16, 64, sections.1, 0]
                .map(u16::to_le_bytes)
                .concat(),
        );
        out[..64].copy_from_slice(&header);
        out
    }

    /// Returns offset and number of section headers.
    fn put_symbols(&self, out: &mut Vec<u8>) -> (u64, u16) {
        if self.symbols.is_empty() {
            return (0, 0);
        }
        let (mut names, mut table) = (vec![0], vec![0; 24]);
        for (name, value) in &self.symbols {
            table.extend((names.len() as u32).to_le_bytes());
            table.extend([0x10, 0, 0xf1, 0xff]); // global, no type, SHN_ABS
            table.extend([*value, 0].map(u64::to_le_bytes).concat());
            names.extend(name.as_bytes());
            names.push(0);
        }
        let section = |kind: u32, at: usize, len: usize, link: u32| {
            let mut s = [0, kind].map(u32::to_le_bytes).concat();
            s.extend([0, 0, at as u64, len as u64].map(u64::to_le_bytes).concat());
            s.extend([link, 0].map(u32::to_le_bytes).concat());
            s.extend([8, 24].map(u64::to_le_bytes).concat());
            s
        };
        let (table_at, names_at) = (out.len(), out.len() + table.len());
        out.extend(&table);
        out.extend(&names);
        let headers = [
            vec![0; 64],
            section(2, table_at, table.len(), 2),
            section(3, names_at, names.len(), 0),
        ];
        let at = out.len() as u64;
        out.extend(headers.concat());
        (at, 3)
    }
}

/// Static programs in several languages, as far as this machine has the tools. Each prints the same every time.
pub fn programs(folder: &Path) -> Vec<PathBuf> {
    const GLIBC: &[&str] = &[
        "-C",
        "target-feature=+crt-static",
        "--target",
        "x86_64-unknown-linux-gnu",
        "--edition=2021",
        "-O",
    ];
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs");
    let build = |name: &str, tool: &str, flags: &[&str], source: &str| {
        let out = folder.join(name);
        let mut command = Command::new(tool);
        // Whatever flags this test itself was built with are not those of the programs.
        for leaked in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "GOFLAGS"] {
            command.env_remove(leaked);
        }
        let done = command
            .args(flags)
            .arg("-o")
            .arg(&out)
            .arg(sources.join(source))
            .env("CGO_ENABLED", "0")
            .status();
        match done {
            Ok(status) if status.success() => Some(out),
            other => {
                eprintln!("SKIPPED: {name} cannot be built here with {tool} ({other:?})");
                None
            }
        }
    };
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    [
        build("rust-pie", &rustc, GLIBC, "threads.rs"),
        build(
            "rust-fixed",
            &rustc,
            &[GLIBC, &["-C", "relocation-model=static"]].concat(),
            "threads.rs",
        ),
        build(
            "rust-stripped",
            &rustc,
            &[GLIBC, &["-C", "strip=symbols"]].concat(),
            "threads.rs",
        ),
        build(
            "c-glibc",
            "gcc",
            &["-O2", "-static", "-pthread"],
            "threads.c",
        ),
        build(
            "c-glibc-pie",
            "gcc",
            &["-O2", "-static-pie", "-pthread"],
            "threads.c",
        ),
        build(
            "c-glibc-stripped",
            "gcc",
            &["-O2", "-static", "-pthread", "-s"],
            "threads.c",
        ),
        // The only hints on where functions start are those of the unwinding table.
        build(
            "c-glibc-stripped-unwindable",
            "gcc",
            &["-O2", "-static", "-pthread", "-s", "-Wl,--eh-frame-hdr"],
            "threads.c",
        ),
        build("c-musl", "musl-gcc", &["-O2", "-static"], "threads.c"),
        build("go", "go", &["build"], "threads.go"),
        build(
            "go-stripped",
            "go",
            &["build", "-ldflags=-s -w"],
            "threads.go",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}
