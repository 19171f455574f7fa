//! `[package.metadata.unik]`: what a package says about its image. Wrong types are refused by name.
//!
//! ```toml
//! [package.metadata.unik]
//! memory = "256M"                  # of the machine
//! cpus = 2                         # virtual CPUs
//! args = ["--listen", "[::]:80"]   # arguments when the command line gives none
//! env = { RUST_LOG = "info" }
//! files = ["assets", "conf/app.toml:/etc/app.toml"]
//! ports = ["8080:80", "127.0.0.1:5353:53/udp"]       # of the guest, published on the host
//! net = "user,mtu=9000"            # a network card, or an array of them
//! ```

use crate::args::run::{self, Memory};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The section, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Memory of the machine.
    pub memory: Option<Memory>,
    /// Virtual CPUs.
    pub cpus: Option<u32>,
    /// Arguments after the program's name.
    pub args: Vec<String>,
    /// Environment, in the order of the names.
    pub env: Vec<(String, String)>,
    /// `SRC[:GUESTPATH]`, relative to the package.
    pub files: Vec<String>,
    /// Ports to publish.
    pub ports: Vec<String>,
    /// Network cards.
    pub net: Vec<String>,
    /// Directories to share: read, not used yet.
    pub volumes: Vec<String>,
}

/// A value of the section that does not fit.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not a table, or a value of another type.
    #[error("package.metadata.unik{key} in {path} must be {wanted}, but it is {found}")]
    Type {
        /// `.cpus`, `.env.NAME`, or empty for the section.
        key: String,
        /// The Cargo.toml.
        path: PathBuf,
        /// In words.
        wanted: &'static str,
        /// The value as JSON.
        found: String,
    },
    /// A key nobody knows.
    #[error(
        "package.metadata.unik in {path} has no key `{key}`; it knows memory, cpus, args, env, files, ports, net, volumes"
    )]
    Unknown {
        /// The key.
        key: String,
        /// The Cargo.toml.
        path: PathBuf,
    },
    /// A value of the right type that is no size, number or variable.
    #[error("package.metadata.unik.{key} in {path}: {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// The Cargo.toml.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl Manifest {
    /// Reads the section out of a package's `metadata`; an absent section is the default. `path` is for messages.
    pub fn read(metadata: &Value, path: &Path) -> Result<Self, ManifestError> {
        let section = match metadata.get("unik") {
            None => return Ok(Self::default()),
            Some(Value::Object(section)) => section,
            Some(other) => return Err(Reader { path }.wrong("", "a table", other)),
        };
        let (read, mut manifest) = (Reader { path }, Self::default());
        for (key, value) in section {
            match key.as_str() {
                "memory" => manifest.memory = Some(read.memory(value)?),
                "cpus" => manifest.cpus = Some(read.cpus(value)?),
                "args" => manifest.args = read.strings("args", value)?,
                "env" => manifest.env = read.env(value)?,
                "files" => manifest.files = read.strings("files", value)?,
                "ports" => manifest.ports = read.checked("ports", value, run::port)?,
                "net" => manifest.net = read.checked("net", value, run::net)?,
                "volumes" => manifest.volumes = read.strings("volumes", value)?,
                _ => {
                    return Err(ManifestError::Unknown {
                        key: key.clone(),
                        path: path.to_owned(),
                    });
                }
            }
        }
        Ok(manifest)
    }
}

/// Takes values apart; knows the file for messages.
struct Reader<'a> {
    path: &'a Path,
}

impl Reader<'_> {
    fn wrong(&self, key: &str, wanted: &'static str, found: &Value) -> ManifestError {
        ManifestError::Type {
            key: key.to_owned(),
            path: self.path.to_owned(),
            wanted,
            found: found.to_string(),
        }
    }

    fn bad(&self, key: &'static str, reason: String) -> ManifestError {
        ManifestError::Value {
            key,
            path: self.path.to_owned(),
            reason,
        }
    }

    fn memory(&self, value: &Value) -> Result<Memory, ManifestError> {
        let text = value
            .as_str()
            .ok_or_else(|| self.wrong(".memory", "a string such as \"64M\"", value))?;
        text.parse().map_err(|reason| self.bad("memory", reason))
    }

    fn cpus(&self, value: &Value) -> Result<u32, ManifestError> {
        let number = value
            .as_u64()
            .ok_or_else(|| self.wrong(".cpus", "a whole number", value))?;
        run::cpus(&number.to_string()).map_err(|reason| self.bad("cpus", reason))
    }

    fn strings(&self, key: &str, value: &Value) -> Result<Vec<String>, ManifestError> {
        let wrong = || self.wrong(&format!(".{key}"), "an array of strings", value);
        let items = value.as_array().ok_or_else(wrong)?;
        items
            .iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect()
    }

    /// A string or an array of strings, each checked.
    fn checked(
        &self,
        key: &'static str,
        value: &Value,
        check: fn(&str) -> Result<String, String>,
    ) -> Result<Vec<String>, ManifestError> {
        let items = match value.as_str() {
            Some(one) => vec![one.to_owned()],
            None => self.strings(key, value)?,
        };
        let check = |item: String| check(&item).map_err(|reason| self.bad(key, reason));
        items.into_iter().map(check).collect()
    }

    fn env(&self, value: &Value) -> Result<Vec<(String, String)>, ManifestError> {
        let table = value
            .as_object()
            .ok_or_else(|| self.wrong(".env", "a table of strings", value))?;
        table
            .iter()
            .map(|(name, value)| self.variable(name, value))
            .collect()
    }

    fn variable(&self, name: &str, value: &Value) -> Result<(String, String), ManifestError> {
        let text = value
            .as_str()
            .ok_or_else(|| self.wrong(&format!(".env.{name}"), "a string", value))?;
        check_variable(name, text).map_err(|reason| self.bad("env", reason))?;
        Ok((name.to_owned(), text.to_owned()))
    }
}

/// Splits `NAME=VALUE`; `NAME` alone takes the value from this process's environment, as `docker run -e` does.
pub fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (
            text.to_owned(),
            std::env::var(text)
                .map_err(|_| format!("`{text}` is not set here; write {text}=VALUE"))?,
        ),
    };
    check_variable(&name, &value)?;
    Ok((name, value))
}

fn check_variable(name: &str, value: &str) -> Result<(), String> {
    match name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
        true => Err(format!(
            "`{name}` cannot name an environment variable; write NAME=VALUE without NUL characters"
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(section: Value) -> Result<Manifest, String> {
        Manifest::read(&json!({ "unik": section }), Path::new("Cargo.toml"))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn whole_section() {
        let manifest = read(
            json!({"memory": "64M", "cpus": 2, "args": ["a"], "env": {"K": "v"}, "files": ["x:/y"],
                "ports": ["80:80", "[::1]:53:53/udp"], "net": "user,mtu=9000"}),
        );
        let expected = Manifest {
            memory: Some(Memory(64 << 20)),
            cpus: Some(2),
            args: vec!["a".into()],
            env: vec![("K".into(), "v".into())],
            files: vec!["x:/y".into()],
            ports: vec!["80:80".into(), "[::1]:53:53/udp".into()],
            net: vec!["user,mtu=9000".into()],
            ..Manifest::default()
        };
        assert_eq!(manifest, Ok(expected));
        assert_eq!(
            Manifest::read(&Value::Null, Path::new("x")).ok(),
            Some(Manifest::default())
        );
    }

    #[test]
    fn wrong_types_are_named() {
        let text = |section| read(section).unwrap_err();
        assert_eq!(
            text(json!({"cpus": "two"})),
            "package.metadata.unik.cpus in Cargo.toml must be a whole number, but it is \"two\""
        );
        assert!(text(json!({"memory": 64})).contains("a string such as \"64M\""));
        assert!(text(json!({"cpus": 99})).contains("`99` is no number of CPUs from 1 to 16"));
        assert!(text(json!({"ports": ["80"]})).contains("unik.ports in Cargo.toml"));
        assert!(text(json!({"net": "token-ring"})).contains("`token-ring` is no network"));
        assert!(text(json!({"args": ["a", 1]})).contains("an array of strings"));
        assert!(text(json!({"env": {"A": 1}})).contains(".env.A"));
        assert!(text(json!({"memroy": "64M"})).contains("no key `memroy`"));
        assert!(text(json!(3)).contains("unik in Cargo.toml must be a table"));
    }

    #[test]
    fn variables() {
        assert_eq!(variable("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert!(variable("=x").is_err());
        assert!(variable("SURELY_NOT_SET_ANYWHERE").is_err());
    }
}
