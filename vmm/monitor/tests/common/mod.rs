//! Test guests: assembled with the C compiler that Rust links with, booted with the real `unik-vmm` on the real KVM.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use unik_abi::ABI_VERSION;

/// Assembles `tests/guests/NAME.S` into an image in `dir`.
pub fn image(dir: &Path, name: &str) -> PathBuf {
    image_with(dir, name, ABI_VERSION, "cpus=1")
}

/// The same with another version and manifest.
pub fn image_with(dir: &Path, name: &str, abi: u32, manifest: &str) -> PathBuf {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests");
    let (object, image) = (
        dir.join(format!("{name}.o")),
        dir.join(format!("{name}.unik")),
    );
    let source = std::fs::read_to_string(guests.join(format!("{name}.S"))).unwrap();
    let bytes: Vec<String> = manifest.bytes().map(|b| b.to_string()).collect();
    let header = format!(
        ".set ABI, {abi}\n.set MANIFEST_LEN, {}\n.macro MANIFEST\n.byte {}\n.endm\n",
        manifest.len(),
        bytes.join(",")
    );
    let file = dir.join(format!("{name}.S"));
    std::fs::write(&file, header + &source).unwrap();
    run(Command::new("cc")
        .current_dir(&guests)
        .args(["-c", "-Wa,-I."])
        .arg(&file)
        .arg("-o")
        .arg(&object));
    run(Command::new("cc")
        .args([
            "-nostdlib",
            "-static",
            "-no-pie",
            "-Wl,--build-id=none,-zmax-page-size=4096,--no-warn-rwx-segments",
        ])
        .arg("-Wl,-T")
        .arg(guests.join("image.ld"))
        .arg(&object)
        .arg("-o")
        .arg(&image));
    image
}

fn run(command: &mut Command) {
    let output = command.output().expect("cc is there, Rust links with it");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Whether these tests can run here; says so loudly when they cannot.
pub fn kvm() -> bool {
    let usable = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok();
    if !usable {
        let _ = writeln!(
            std::io::stderr(),
            "\n!!! SKIPPED: no usable /dev/kvm here, nothing was booted\n"
        );
    }
    usable
}

/// `unik-vmm run` with these arguments, a time limit and no terminal.
pub fn vmm(args: &[&str], image: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.args([
        "--foreground",
        "-k",
        "1",
        "20",
        env!("CARGO_BIN_EXE_unik-vmm"),
        "run",
    ]);
    command
        .args(args.iter().take_while(|a| **a != "--"))
        .arg(image);
    command.args(args.iter().skip_while(|a| **a != "--"));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs to the end: exit code, standard output, standard error.
pub fn finish(command: &mut Command) -> (Option<i32>, String, String) {
    read(&command.output().unwrap())
}

/// The parts of an output.
pub fn read(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}
