//! Kernel modules in the order in which they must be loaded.
//!
//! A package's modules come without an index; each names what it needs in its `.modinfo` section (`depends=a,b`).

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// All modules of a kernel by name; a name has `_` wherever the file has `-`.
#[derive(Clone, Debug)]
pub struct Modules {
    files: BTreeMap<String, PathBuf>,
}

impl Modules {
    /// Those under a folder.
    pub fn find(folder: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        walk(folder, &mut files)
            .with_context(|| format!("kernel modules in {}", folder.display()))?;
        Ok(Self { files })
    }

    /// Files of these modules and of all that they need, in the order of loading.
    pub fn ordered(&self, wanted: &[&str]) -> Result<Vec<PathBuf>> {
        let mut order = Vec::new();
        for name in wanted {
            self.visit(name, &mut order)?;
        }
        Ok(order)
    }

    fn visit(&self, name: &str, order: &mut Vec<PathBuf>) -> Result<()> {
        let name = name.replace('-', "_");
        let file = self
            .files
            .get(&name)
            .with_context(|| format!("the kernel has no module {name}"))?;
        if order.contains(file) {
            return Ok(());
        }
        let content = std::fs::read(file).with_context(|| file.display().to_string())?;
        for needed in depends(&content) {
            self.visit(&needed, order)?;
        }
        order.push(file.clone());
        Ok(())
    }
}

fn walk(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            walk(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "ko") {
            let name = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .replace('-', "_");
            files.insert(name, path);
        }
    }
    Ok(())
}

/// The names after `depends=`.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module[at + KEY.len()..]
        .split(|&byte| byte == 0)
        .next()
        .unwrap_or_default();
    String::from_utf8_lossy(value)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn needed_modules_are_named_in_the_module() {
        assert_eq!(
            super::depends(b"license=GPL\0depends=kvm,ccp\0retpoline=Y\0"),
            ["kvm", "ccp"]
        );
        assert!(super::depends(b"license=GPL\0depends=\0").is_empty());
        assert!(super::depends(b"\0depends=x").len() == 1 && super::depends(b"").is_empty());
    }
}
