//! The compiler flags: the user's own, from wherever cargo would take them, plus static linking.
//!
//! Cargo takes flags from exactly one place (`CARGO_ENCODED_RUSTFLAGS`, `RUSTFLAGS`, `target.*.rustflags`,
//! `build.rustflags`, in this order), so adding ours in one place would hide the user's in another. Therefore the user's
//! are resolved as cargo does it, ours appended, and all handed over in the place that wins.

use std::ffi::OsString;
use std::path::Path;

/// The flag that makes a program static.
const STATIC: [&str; 2] = ["-C", "target-feature=+crt-static"];

/// Separator of `CARGO_ENCODED_RUSTFLAGS`.
const SEPARATOR: &str = "\x1f";

/// The value for `CARGO_ENCODED_RUSTFLAGS` when cargo runs in `dir` for `target`.
pub fn encoded(dir: &Path, target: &str) -> Result<OsString, cargo_config2::Error> {
    let config = cargo_config2::Config::load_with_cwd(dir)?;
    let users = config
        .rustflags(target)?
        .map(|flags| flags.flags)
        .unwrap_or_default();
    Ok(join(users).into())
}

fn join(mut flags: Vec<String>) -> String {
    flags.extend(STATIC.map(str::to_owned));
    flags.join(SEPARATOR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const GNU: &str = "x86_64-unknown-linux-gnu";

    fn with_config(text: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".cargo")).unwrap();
        fs::write(dir.path().join(".cargo/config.toml"), text).unwrap();
        encoded(dir.path(), GNU).unwrap().into_string().unwrap()
    }

    #[test]
    fn the_users_flags_come_first() {
        assert_eq!(
            join(vec!["-C".into(), "opt-level=1".into()]),
            "-C\x1fopt-level=1\x1f-C\x1ftarget-feature=+crt-static"
        );
    }

    #[test]
    fn configuration_files_are_respected() {
        if ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"]
            .iter()
            .any(|v| std::env::var_os(v).is_some())
        {
            return;
        }
        let build = with_config("[build]\nrustflags = ['--cfg', 'mine']");
        assert_eq!(build, "--cfg\x1fmine\x1f-C\x1ftarget-feature=+crt-static");
        let target = with_config(
            "[build]\nrustflags = '--cfg hidden'\n[target.'cfg(unix)']\nrustflags = '--cfg unix'",
        );
        assert_eq!(target, "--cfg\x1funix\x1f-C\x1ftarget-feature=+crt-static");
    }
}
