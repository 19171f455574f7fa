//! Debian's packages: downloaded by apt, unpacked, kept outside the tree.
//!
//! Everything lies under `$XDG_CACHE_HOME/unik/lab` (`~/.cache/unik/lab`): archives in `deb`, what is in them in a folder of the same name.

use crate::sh;
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package that names the newest stock kernel for cloud machines.
const KERNEL: &str = "linux-image-cloud-amd64";

/// What the laboratory takes from Debian.
#[derive(Clone, Debug)]
pub struct Debian {
    /// The stock kernel.
    pub kernel: Kernel,
    /// `busybox`, static.
    pub busybox: PathBuf,
    /// `e2fsck`, static.
    pub e2fsck: PathBuf,
}

/// A kernel and its modules.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Such as `6.1.0-56-cloud-amd64`.
    pub release: String,
    /// The compressed kernel.
    pub bzimage: PathBuf,
    /// The folder `/lib/modules/RELEASE` of the package.
    pub modules: PathBuf,
}

/// Downloads what is not there yet.
pub fn fetch() -> Result<Debian> {
    let cache = folder()?;
    let kernel = kernel(&cache)?;
    let busybox = unpacked(&cache, "busybox-static")?.join("bin/busybox");
    ensure!(
        busybox.is_file(),
        "the package busybox-static has no {}",
        busybox.display()
    );
    let e2fsck = unpacked(&cache, "e2fsck-static")?.join("sbin/e2fsck.static");
    ensure!(
        e2fsck.is_file(),
        "the package e2fsck-static has no {}",
        e2fsck.display()
    );
    Ok(Debian {
        kernel,
        busybox,
        e2fsck,
    })
}

/// Where packages are kept.
pub fn folder() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME says where to keep Debian's packages")?;
    let cache = base.join("unik/lab");
    std::fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
    Ok(cache)
}

fn kernel(cache: &Path) -> Result<Kernel> {
    let package = kernel_package(cache)?;
    let root = unpacked(cache, &package)?;
    let release = package
        .trim_start_matches("linux-image-")
        .trim_end_matches("-unsigned")
        .to_owned();
    let bzimage = root.join(format!("boot/vmlinuz-{release}"));
    let modules = root.join(format!("lib/modules/{release}"));
    ensure!(
        bzimage.is_file() && modules.is_dir(),
        "the package {package} has no kernel {release}"
    );
    Ok(Kernel {
        release,
        bzimage,
        modules,
    })
}

/// The newest kernel that apt knows; without lists of packages, one that was kept.
fn kernel_package(cache: &Path) -> Result<String> {
    let mut depends = Command::new("apt-cache");
    depends
        .args(["depends", KERNEL])
        .stderr(std::process::Stdio::null());
    let text = depends
        .output()
        .map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
        .unwrap_or_default();
    let newest = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .map(str::to_owned);
    // What is kept already needs no network.
    let kept = kept(cache, "linux-image-")?;
    if let Some(name) = newest.as_ref().filter(|name| kept.contains(name)) {
        return Ok(name.clone());
    }
    match (newest, kept.last()) {
        (Some(name), None) => Ok(name),
        (Some(name), Some(old)) => {
            Ok(unpacked(cache, &name).map_or_else(|_| old.clone(), |_| name))
        }
        (None, Some(old)) => Ok(old.clone()),
        (None, None) => bail!(
            "apt knows no package {KERNEL}: run `apt-get update` with network, on Debian or with Debian's archive among the sources"
        ),
    }
}

/// Unpacked packages whose names begin like this, sorted.
fn kept(cache: &Path, prefix: &str) -> Result<Vec<String>> {
    let mut names: Vec<_> = std::fs::read_dir(cache)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    Ok(names)
}

/// The folder with a package's files.
fn unpacked(cache: &Path, package: &str) -> Result<PathBuf> {
    let folder = cache.join(package);
    if folder.is_dir() {
        return Ok(folder);
    }
    let work = tempfile::Builder::new().prefix("fetch").tempdir_in(cache)?;
    download(work.path(), package)?;
    let archive = std::fs::read_dir(work.path())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|e| e == "deb"))
        .with_context(|| format!("apt-get download left no archive of {package}"))?;
    let stage = work.path().join("files");
    sh::run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&stage))?;
    // Two at the same time: the second finds the folder of the first.
    if let Err(error) = std::fs::rename(&stage, &folder) {
        ensure!(folder.is_dir(), "cannot keep {}: {error}", folder.display());
    }
    Ok(folder)
}

fn download(folder: &Path, package: &str) -> Result<()> {
    let mut download = Command::new("apt-get");
    download.current_dir(folder).args([
        "download",
        "-qq",
        "-o",
        "APT::Sandbox::User=root",
        package,
    ]);
    sh::run(&mut download).with_context(|| {
        format!("the Debian package {package} is not in {} and cannot be downloaded: the laboratory needs network once (and `apt-get update`)",
            folder.parent().unwrap_or(folder).display())
    })
}
