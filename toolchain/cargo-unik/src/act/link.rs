//! Writes an image, unless the one that is there was made of the same things.
//!
//! A [`Recipe`] says what goes in. Beside the image lies a stamp (`.NAME.unik.stamp`) with a hash of everything that decides
//! its bytes; only when that changes is the linker run.

use crate::args::ImageArgs;
use crate::args::run::Memory;
use crate::exit_codes;
use crate::plan::files::{Entry, FilesError, Kind, Tree};
use crate::plan::manifest::Manifest;
use crate::shell::Shell;
use object::{Object, ObjectSymbolTable};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use unik_image::{LinkOptions, PackedFile, PackedKind, Symbols};
use unik_monitor::net::{WISH_NET, WISH_PORT};

/// The built-in library OS (build.rs makes it).
static LIBOS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/unik-libos"));

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The files to pack.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// Something cannot be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The image cannot be written.
    #[error("cannot write `{path}`: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// An argument, variable or path that is no UTF-8: the manifest is text.
    #[error("`{0}` is not UTF-8, which the image's manifest needs")]
    Text(String),
    /// The linker refused.
    #[error("cannot make an image of `{path}`: {source}")]
    Link {
        /// The program.
        path: PathBuf,
        /// The reason.
        source: unik_image::LinkError,
    },
}

impl LinkError {
    /// See [`exit_codes`].
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Files(_) | Self::Read { .. } => exit_codes::NO_INPUT,
            Self::Write { .. } => exit_codes::CANNOT_CREATE,
            Self::Text(_) => exit_codes::CONFIG,
            Self::Link { .. } => exit_codes::DATA,
        }
    }
}

/// What goes into an image beside the program itself.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// The program's name, its argument 0.
    pub name: String,
    /// Arguments after that, when the run gives none.
    pub args: Vec<OsString>,
    /// Environment.
    pub env: Vec<(OsString, OsString)>,
    /// Memory of the machine.
    pub memory: Option<Memory>,
    /// Virtual CPUs.
    pub cpus: Option<u32>,
    /// Network cards that a run gets when it names none.
    pub net: Vec<String>,
    /// Ports that a run publishes when it names none.
    pub ports: Vec<String>,
    /// Files to pack.
    pub files: Tree,
    /// Path of the program in the guest; `/bin/NAME` when absent.
    pub exe: Option<PathBuf>,
    /// Working directory; `/` when absent.
    pub cwd: Option<PathBuf>,
    bind: bool,
    libos: Option<PathBuf>,
}

impl Recipe {
    /// A program of this name and what the flags say.
    pub fn new(name: &str, image: &ImageArgs) -> Self {
        Self {
            name: name.to_owned(),
            bind: !image.no_bind,
            libos: image.libos.clone(),
            ..Self::default()
        }
    }

    /// Takes memory, CPUs and environment from a package's section.
    pub fn take(&mut self, manifest: &Manifest) {
        let env = manifest.env.iter();
        self.env = env.map(|(n, v)| (n.into(), v.into())).collect();
        self.memory = manifest.memory;
        self.cpus = manifest.cpus;
    }

    fn exe(&self) -> PathBuf {
        let default = || Path::new("/bin").join(&self.name);
        self.exe.clone().unwrap_or_else(default)
    }

    /// The records of the image's manifest (`unik_abi::config`).
    fn records(&self) -> Result<Vec<(String, String)>, LinkError> {
        let mut out = vec![("arg".to_owned(), self.name.clone())];
        let mut put = |key: &str, value: String| out.push((key.to_owned(), value));
        for arg in &self.args {
            put("arg", text(arg)?);
        }
        for (name, value) in &self.env {
            put("env", format!("{}={}", text(name)?, text(value)?));
        }
        if let Some(cwd) = &self.cwd {
            put("cwd", text(cwd.as_os_str())?);
        }
        put("hostname", self.name.clone());
        if let Some(memory) = self.memory {
            put("memory", memory.0.to_string());
        }
        if let Some(cpus) = self.cpus {
            put("cpus", cpus.to_string());
        }
        for (key, values) in [(WISH_NET, &self.net), (WISH_PORT, &self.ports)] {
            values.iter().for_each(|value| put(key, value.clone()));
        }
        Ok(out)
    }
}

/// Links `program` into `image`, unless `image` is up to date.
pub fn link(program: &Path, image: &Path, recipe: &Recipe, shell: &Shell) -> Result<(), LinkError> {
    let elf = read(program)?;
    let other = recipe.libos.as_deref().map(read).transpose()?;
    let libos = other.as_deref().unwrap_or(LIBOS);
    let records = recipe.records()?;
    let fingerprint = fingerprint(&elf, libos, &records, recipe);
    let stamp = stamp_path(image);
    if image.is_file() && std::fs::read_to_string(&stamp).is_ok_and(|s| s == fingerprint) {
        shell.verbose("Fresh", image.display());
        return Ok(());
    }
    shell.status(
        "Linking",
        format_args!("{} ({})", recipe.name, super::run::short(image)),
    );
    let options = LinkOptions {
        bind: recipe.bind,
        manifest: records,
        files: packed(&elf, recipe, shell)?,
        symbols: Symbols::Functions,
        exe: text(recipe.exe().as_os_str())?,
    };
    let linked = unik_image::link(&elf, libos, &options);
    let linked = linked.map_err(|source| LinkError::Link {
        path: program.to_owned(),
        source,
    })?;
    write(image, &linked.bytes)?;
    write(&stamp, fingerprint.as_bytes())
}

/// Hashes everything that decides the bytes of an image. Packed files count by size and time, as in make.
fn fingerprint(elf: &[u8], libos: &[u8], records: &[(String, String)], recipe: &Recipe) -> String {
    let mut hash = blake3::Hasher::new();
    let mut add = |bytes: &[u8]| {
        hash.update(&bytes.len().to_le_bytes()).update(bytes);
    };
    add(env!("CARGO_PKG_VERSION").as_bytes());
    add(elf);
    add(libos);
    add(format!("{records:?} {} {:?}", recipe.bind, recipe.exe()).as_bytes());
    for (path, entry) in &recipe.files {
        add(format!("{path:?} {entry:?}").as_bytes());
    }
    hash.finalize().to_hex().to_string()
}

/// The files' bytes, and the program's own file where it holds something that a backtrace wants to read.
fn packed(elf: &[u8], recipe: &Recipe, shell: &Shell) -> Result<Vec<PackedFile>, LinkError> {
    let mut bar = shell.bar("Packing", recipe.files.len() as u64);
    let mut out = Vec::with_capacity(recipe.files.len() + 1);
    for (path, entry) in &recipe.files {
        bar.step(path.display());
        out.push(one(path, entry)?);
    }
    let exe = recipe.exe();
    if has_symbols(elf) && !recipe.files.contains_key(&exe) {
        let kind = PackedKind::File(elf.to_vec());
        out.push(PackedFile {
            path: text(exe.as_os_str())?,
            kind,
            mode: 0o755,
            mtime: 0,
        });
    }
    Ok(out)
}

fn one(path: &Path, entry: &Entry) -> Result<PackedFile, LinkError> {
    let kind = match &entry.kind {
        Kind::Directory => PackedKind::Directory,
        Kind::File(source) => PackedKind::File(read(source)?),
        Kind::Link(target) => PackedKind::Symlink(text(target.as_os_str())?),
    };
    Ok(PackedFile {
        path: text(path.as_os_str())?,
        kind,
        mode: entry.mode,
        mtime: 0,
    })
}

/// Whether a program can name its own functions: std's backtraces read the symbols from `/proc/self/exe`.
fn has_symbols(elf: &[u8]) -> bool {
    object::File::parse(elf).is_ok_and(|file| {
        let symbols = file
            .symbol_table()
            .is_some_and(|t| t.symbols().next().is_some());
        symbols || file.has_debug_symbols()
    })
}

fn stamp_path(image: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(image.file_name().unwrap_or_default());
    name.push(".stamp");
    image.with_file_name(name)
}

fn text(value: &OsStr) -> Result<String, LinkError> {
    let refused = || LinkError::Text(value.to_string_lossy().into_owned());
    value.to_str().map(str::to_owned).ok_or_else(refused)
}

fn read(path: &Path) -> Result<Vec<u8>, LinkError> {
    std::fs::read(path).map_err(|source| LinkError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Writes beside and renames: a running machine keeps the file it has mapped.
fn write(path: &Path, bytes: &[u8]) -> Result<(), LinkError> {
    let failed = |source| LinkError::Write {
        path: path.to_owned(),
        source,
    };
    let parent = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(failed)?;
    let file = tempfile::Builder::new()
        .prefix(".unik-")
        .tempfile_in(parent)
        .map_err(failed)?;
    std::fs::write(file.path(), bytes).map_err(failed)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(file.path(), mode).map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}
