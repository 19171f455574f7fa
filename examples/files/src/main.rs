//! The file API of `std` in a fresh directory: the output says what each step saw.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

fn main() -> io::Result<()> {
    let dir = std::env::temp_dir().join(format!("files-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    std::env::set_current_dir(&dir)?;
    contents()?;
    positions()?;
    names()?;
    links()?;
    attributes()?;
    directories()?;
    large()?;
    errors();
    devices()?;
    std::env::set_current_dir("/")?;
    fs::remove_dir_all(&dir)?;
    println!("removed: {}", !dir.exists());
    Ok(())
}

fn contents() -> io::Result<()> {
    fs::write("a.txt", "one\ntwo\nthree\n")?;
    let mut file = OpenOptions::new().append(true).open("a.txt")?;
    write!(file, "four")?;
    let lines: Vec<_> = BufReader::new(File::open("a.txt")?)
        .lines()
        .collect::<io::Result<_>>()?;
    println!("lines {lines:?}");
    println!("copied {}", fs::copy("a.txt", "b.txt")?);
    println!("same {}", fs::read("a.txt")? == fs::read("b.txt")?);
    Ok(())
}

fn positions() -> io::Result<()> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open("seek")?;
    file.write_all(b"0123456789")?;
    file.seek(SeekFrom::Start(3))?;
    file.write_all(b"xy")?;
    file.write_at(b"END", 20)?;
    let mut all = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut all)?;
    println!("seek {:?}", String::from_utf8_lossy(&all));
    file.set_len(4)?;
    println!(
        "length {} end {}",
        file.metadata()?.len(),
        file.seek(SeekFrom::End(-1))?
    );
    let mut two = [0; 2];
    file.read_exact_at(&mut two, 1)?;
    println!("at 1: {two:?}");
    file.sync_all()
}

fn names() -> io::Result<()> {
    fs::rename("b.txt", "c.txt")?;
    println!(
        "renamed {} {}",
        Path::new("b.txt").exists(),
        Path::new("c.txt").exists()
    );
    fs::write("over", "old")?;
    fs::rename("c.txt", "over")?;
    println!("replaced {}", fs::metadata("over")?.len());
    fs::remove_file("over")?;
    let open = File::open("a.txt")?;
    fs::remove_file("a.txt")?;
    println!(
        "unlinked file still has {} bytes, {} links",
        io::read_to_string(&open)?.len(),
        open.metadata()?.nlink()
    );
    Ok(())
}

fn links() -> io::Result<()> {
    fs::write("target", "text")?;
    fs::hard_link("target", "hard")?;
    symlink("target", "soft")?;
    symlink("nowhere", "dangling")?;
    println!(
        "links {} soft {:?}",
        fs::metadata("hard")?.nlink(),
        fs::read_link("soft")?
    );
    println!("through {:?}", fs::read_to_string("soft")?);
    println!(
        "dangling {} {}",
        Path::new("dangling").exists(),
        fs::symlink_metadata("dangling")?.is_symlink()
    );
    println!(
        "same inode {}",
        fs::metadata("hard")?.ino() == fs::metadata("target")?.ino()
    );
    println!("canonical {:?}", fs::canonicalize("soft")?.file_name());
    Ok(())
}

fn attributes() -> io::Result<()> {
    fs::set_permissions("target", Permissions::from_mode(0o640))?;
    println!("mode {:o}", fs::metadata("target")?.mode());
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open("private")?;
    println!("created {:o}", file.metadata()?.mode());
    file.set_modified(UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789))?;
    println!(
        "modified {:?}",
        file.metadata()?.modified()?.duration_since(UNIX_EPOCH).ok()
    );
    file.lock()?;
    println!("locked {}", file.unlock().is_ok());
    Ok(())
}

fn directories() -> io::Result<()> {
    fs::create_dir_all("d/e/f")?;
    for n in 0..200 {
        fs::write(format!("d/{n:03}"), n.to_string())?;
    }
    let mut names: Vec<_> = fs::read_dir("d")?
        .map(|e| e.map(|e| (e.file_name(), e.file_type().map(|t| t.is_dir()).ok())))
        .collect::<io::Result<_>>()?;
    names.sort();
    println!(
        "entries {} first {:?} last {:?}",
        names.len(),
        names.first(),
        names.last()
    );
    println!("not empty {:?}", fs::remove_dir("d").map_err(|e| e.kind()));
    fs::remove_dir_all("d")?;
    println!("left {:?}", Path::new("d").try_exists()?);
    Ok(())
}

fn large() -> io::Result<()> {
    let block: Vec<u8> = (0..1 << 20)
        .map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let mut file = File::create("large")?;
    for _ in 0..16 {
        file.write_all(&block)?;
    }
    let sum = fs::read("large")?.iter().fold(0u64, |sum, b| {
        sum.wrapping_mul(31).wrapping_add(u64::from(*b))
    });
    println!(
        "large {} bytes, sum {sum:016x}",
        fs::metadata("large")?.len()
    );
    io::copy(&mut File::open("large")?, &mut File::create("large2")?)?;
    println!("copied {}", fs::metadata("large2")?.len());
    Ok(())
}

fn errors() {
    let kind = |r: io::Result<()>| r.map_err(|e| e.kind());
    println!("missing {:?}", kind(fs::remove_file("no")));
    println!("is a directory {:?}", kind(fs::write("/", "x")));
    println!("not a directory {:?}", kind(fs::read("target/x").map(drop)));
    println!("exists {:?}", kind(fs::create_dir("target")));
    println!("new {:?}", kind(File::create_new("target").map(drop)));
    println!(
        "long name {:?}",
        fs::write("n".repeat(300), "").map_err(|e| e.kind() == ErrorKind::InvalidFilename)
    );
    println!(
        "loop {:?}",
        symlink("loop", "loop")
            .and_then(|()| fs::read("loop").map(drop))
            .map_err(|e| e.raw_os_error())
    );
}

fn devices() -> io::Result<()> {
    fs::write("/dev/null", "gone")?;
    println!("null {}", fs::read("/dev/null")?.len());
    let mut zeros = [1; 8];
    File::open("/dev/zero")?.read_exact(&mut zeros)?;
    println!("zero {zeros:?}");
    let mut random = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    println!("random {}", random != [0; 32]);
    println!(
        "full {:?}",
        fs::write("/dev/full", "x").map_err(|e| e.kind())
    );
    println!("self {:?}", std::env::current_exe()?.file_name().is_some());
    println!(
        "own descriptors {}",
        fs::read_dir("/proc/self/fd")?.count() >= 3
    );
    Ok(())
}
