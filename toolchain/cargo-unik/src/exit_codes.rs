//! Every exit code of `cargo unik`, in one place. The monitor's (`vmm/monitor/src/exit_codes.rs`) have the same numbers
//! and pass through unchanged; those of the tool itself are BSD's `sysexits.h`.

/// All went well.
pub const OK: u8 = 0;
/// The command line was wrong.
pub const USAGE: u8 = 64;
/// The program cannot become an image.
pub const DATA: u8 = 65;
/// A file cannot be read.
pub const NO_INPUT: u8 = 66;
/// There is nothing here to run an image with; `doctor` found something missing.
pub const UNAVAILABLE: u8 = 69;
/// The guest crashed, and not through the program's own signal.
pub const CRASH: u8 = 70;
/// The host refused something.
pub const HOST: u8 = 71;
/// A file cannot be written.
pub const CANNOT_CREATE: u8 = 73;
/// The manifest, or wishes that do not go together.
pub const CONFIG: u8 = 78;
/// Cargo failed (its own code passes through), or a test failed: what cargo returns then.
pub const CARGO: u8 = 101;

/// The table for `--help`; README has the same.
pub const HELP: &str = "\
Exit codes:
  0-255  run: the program's own exit code; 128+N when signal N killed it
  64     the command line was wrong
  65     the program cannot become an image, or the image cannot be booted
  66     a file cannot be read
  69     neither /dev/kvm nor QEMU is there; doctor: something is missing
  70     the guest crashed in a way that is not the program's
  71     the host refused something
  73     a file cannot be written
  78     the manifest is wrong, or wishes do not go together
  101    cargo failed, a test failed, or the program panicked";
