//! Why a program cannot become an image: one sentence each, with what to do.

/// A program file that is not a static x86-64 Linux executable, or not a sound one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are the numbers in the sentences")]
pub enum ElfError {
    /// No ELF magic number.
    #[error("not an ELF file: give a static x86-64 Linux executable")]
    NotElf,
    /// A part lies beyond the end of the file.
    #[error(
        "the file is cut short: {what} at {at:#x} lies beyond its {len} bytes; build or copy it again"
    )]
    Truncated {
        what: &'static str,
        at: u64,
        len: usize,
    },
    /// Numbers that contradict each other.
    #[error("the file is damaged: {0}; build or copy it again")]
    Damaged(&'static str),
    /// ELFCLASS32.
    #[error("a 32-bit program: build it for x86_64-unknown-linux-gnu")]
    Class32,
    /// ELFDATA2MSB.
    #[error("a big-endian program: build it for x86_64-unknown-linux-gnu")]
    BigEndian,
    /// Another architecture.
    #[error("a program for {0}: build it for x86_64-unknown-linux-gnu")]
    Machine(String),
    /// OS/ABI of another system.
    #[error(
        "a program for another operating system (ELF OS/ABI {0}): build it for x86_64-unknown-linux-gnu"
    )]
    System(u8),
    /// ET_REL.
    #[error("an object file (.o), not a program: link it to a static executable first")]
    Object,
    /// ET_CORE.
    #[error("a core dump, not a program: give the executable itself")]
    Core,
    /// ET_DYN that is no executable.
    #[error("a shared library, not a program: give a static executable")]
    SharedLibrary,
    /// An unknown ET_* value.
    #[error("not an executable (ELF type {0}): give a static x86-64 Linux executable")]
    Type(u16),
    /// PT_INTERP.
    #[error(
        "dynamically linked (it asks for {interpreter}): build it with `cargo unik build`, or by hand with \
         RUSTFLAGS=\"-C target-feature=+crt-static\" and --target x86_64-unknown-linux-gnu (C: gcc -static; Go: CGO_ENABLED=0)"
    )]
    Dynamic { interpreter: String },
    /// DT_TEXTREL.
    #[error(
        "its code needs relocation at run time (DT_TEXTREL): build it with -fPIC, or without -pie"
    )]
    TextRelocations,
    /// Nothing to load.
    #[error("it has no loadable segments: give a static x86-64 Linux executable")]
    NoSegments,
    /// More PT_LOAD segments than an image can describe.
    #[error(
        "{count} loadable segments, at most {most} are possible: link it with the default linker script"
    )]
    TooManySegments { count: usize, most: usize },
    /// Writable and executable.
    #[error(
        "the segment at {vaddr:#x} is both writable and executable: link without -N, -z execstack or -z rwx-segments"
    )]
    WritableCode { vaddr: u64 },
    /// Two segments in one page.
    #[error(
        "the segments at {first:#x} and {second:#x} share a page: link without -n or -N, with pages of 4 KiB or more"
    )]
    Overlap { first: u64, second: u64 },
    /// A segment that wraps or whose file part is longer than its memory.
    #[error(
        "the segment at {vaddr:#x} has impossible sizes: the file is damaged, build or copy it again"
    )]
    Segment { vaddr: u64 },
    /// A segment where a program may not be.
    #[error(
        "the segment at {vaddr:#x} lies outside the program's addresses 0x1000..{top:#x}: link it at the default address"
    )]
    Address { vaddr: u64, top: u64 },
    /// The entry point is not in executable memory.
    #[error(
        "the entry point {entry:#x} is not in an executable segment: give an executable, not a library"
    )]
    Entry { entry: u64 },
    /// An alignment that is no power of two or absurd.
    #[error(
        "the segment at {vaddr:#x} wants an alignment of {align:#x}: link with a power of two up to 1 GiB"
    )]
    Alignment { vaddr: u64, align: u64 },
}
