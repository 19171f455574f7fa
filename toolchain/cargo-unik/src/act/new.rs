//! `cargo unik new`: writes a template as a new project. Never touches what is there.

use crate::args::NewArgs;
use crate::exit_codes;
use crate::shell::Shell;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use unik_templates::{TEMPLATES, Template};

/// Why no project was written.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    /// No such template.
    #[error("there is no template `{name}`; there are: {known}")]
    Template {
        /// As given.
        name: String,
        /// All of them.
        known: String,
    },
    /// The name is no package name.
    #[error("`{name}` cannot be used as a package name: {reason}; give another with --name")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// Something is there.
    #[error("destination `{0}` already exists; choose a path that does not")]
    Exists(PathBuf),
    /// Not writable.
    #[error("cannot write `{path}`: {source}")]
    Write {
        /// Where.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

impl NewError {
    /// See [`exit_codes`].
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Template { .. } | Self::Name { .. } => exit_codes::USAGE,
            Self::Exists(_) | Self::Write { .. } => exit_codes::CANNOT_CREATE,
        }
    }
}

/// Words that cannot name a package: Rust's keywords, crates of the standard library, names cargo needs.
const RESERVED: &str = " Self abstract alloc as async await become box break build const continue core crate deps do dyn else enum examples extern \
    false final fn for gen if impl in incremental let loop macro main match mod move mut override priv proc_macro pub ref return self static std struct \
    super test trait true try type typeof unsafe unsized use virtual where while yield ";

/// Writes the project.
pub fn new(args: &NewArgs, shell: &Shell) -> Result<(), NewError> {
    let template = Template::find(&args.template).ok_or_else(|| NewError::Template {
        name: args.template.clone(),
        known: TEMPLATES
            .iter()
            .map(|t| t.name)
            .collect::<Vec<_>>()
            .join(", "),
    })?;
    let name = package_name(args)?;
    if args.path.symlink_metadata().is_ok() {
        return Err(NewError::Exists(args.path.clone()));
    }
    for (path, text) in template.files(&name) {
        write(&args.path.join(path), &text)?;
    }
    shell.status(
        "Created",
        format_args!(
            "`{name}` from template `{}` ({})",
            template.name, template.about
        ),
    );
    shell.note(format_args!(
        "next: cd {} && cargo unik run",
        args.path.display()
    ));
    Ok(())
}

fn package_name(args: &NewArgs) -> Result<String, NewError> {
    let from_path = || {
        args.path
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    let name = args.name.clone().unwrap_or_else(from_path);
    match refusal(&name) {
        None => Ok(name),
        Some(reason) => Err(NewError::Name { name, reason }),
    }
}

/// Cargo's rules (the Cargo book, "The manifest format", field `name`).
fn refusal(name: &str) -> Option<&'static str> {
    let first = name.chars().next();
    if first.is_none() {
        return Some("it is empty");
    }
    if first.is_some_and(|c| c.is_ascii_digit()) {
        return Some("it begins with a digit");
    }
    if first == Some('-') {
        return Some("it begins with a hyphen");
    }
    if !name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    {
        return Some("only letters, digits, `-` and `_` are allowed");
    }
    RESERVED
        .contains(&format!(" {name} "))
        .then_some("the word is reserved")
}

fn write(path: &Path, text: &str) -> Result<(), NewError> {
    let failed = |source| NewError::Write {
        path: path.to_owned(),
        source,
    };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::Verbosity;

    fn args(path: PathBuf) -> NewArgs {
        NewArgs {
            path,
            template: "hello".into(),
            name: None,
        }
    }

    #[test]
    fn names() {
        for good in ["hello", "my-app", "_x", "a1"] {
            assert_eq!(refusal(good), None, "{good}");
        }
        for bad in ["", "1a", "-a", "a b", "é", "fn", "test", "core", "a/b"] {
            assert!(refusal(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn writes_once_and_never_over() {
        let shell = Shell::new(Verbosity::Quiet, None);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("my-app");
        new(&args(path.clone()), &shell).unwrap();
        assert!(
            fs::read_to_string(path.join("Cargo.toml"))
                .unwrap()
                .contains("name = \"my-app\"")
        );
        assert!(path.join(".gitignore").is_file());
        let again = new(&args(path), &shell).unwrap_err().to_string();
        assert!(again.contains("already exists"), "{again}");
        let mut other = args(dir.path().join("x"));
        other.template = "nope".into();
        assert_eq!(
            new(&other, &shell).unwrap_err().to_string(),
            "there is no template `nope`; there are: hello"
        );
    }
}
