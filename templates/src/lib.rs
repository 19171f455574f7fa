//! What `cargo unik new` writes: whole projects as data, each also a crate that builds where it lies.
//!
//! [`TEMPLATES`] lists them; [`Template::files`] gives the files for a package name.
#![forbid(unsafe_code)]

/// A project to start from.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    /// What `--template` takes.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    sources: &'static [(&'static str, &'static str)],
}

/// Every template; the first is the default.
pub const TEMPLATES: &[Template] = &[Template {
    name: "hello",
    about: "a program that greets, with a packed file, a test and image settings",
    sources: &[
        ("Cargo.toml", include_str!("../hello/Cargo.toml")),
        ("README.md", include_str!("../hello/README.md")),
        (".gitignore", include_str!("../hello/gitignore")),
        ("src/main.rs", include_str!("../hello/src/main.rs")),
        ("src/lib.rs", include_str!("../hello/src/lib.rs")),
        (
            "assets/greeting.txt",
            include_str!("../hello/assets/greeting.txt"),
        ),
    ],
}];

impl Template {
    /// The template of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        TEMPLATES.iter().find(|t| t.name == name)
    }

    /// `(relative path, text)` of every file, with the template's own name replaced by `package` (and by the package's
    /// crate name where Rust code names it).
    pub fn files(&self, package: &str) -> impl Iterator<Item = (&'static str, String)> {
        let names = (
            self.placeholder(),
            package.to_owned(),
            package.replace('-', "_"),
        );
        self.sources
            .iter()
            .map(move |(path, text)| (*path, rename(text, path.ends_with(".rs"), &names)))
    }

    /// The name that stands for the package's in the sources.
    fn placeholder(&self) -> String {
        format!("unik-template-{}", self.name)
    }
}

/// In a template's manifest, what follows this line is left out.
const END: &str = "\n# From here on for the template itself only";

fn rename(
    text: &str,
    rust: bool,
    (placeholder, package, krate): &(String, String, String),
) -> String {
    let text = text.split_once(END).map_or(text, |(text, _)| text);
    match rust {
        true => text.replace(&placeholder.replace('-', "_"), krate),
        false => text.replace(placeholder.as_str(), package),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_everywhere() {
        for template in TEMPLATES {
            for (path, text) in template.files("my-app") {
                assert!(
                    !text.contains("unik-template") && !text.contains("unik_template"),
                    "{path}"
                );
                assert!(!path.starts_with('/') && !path.contains(".."), "{path}");
            }
        }
        let (_, manifest) = Template::find("hello")
            .unwrap()
            .files("my-app")
            .next()
            .unwrap();
        assert!(manifest.contains("name = \"my-app\"") && !manifest.contains("[workspace]"));
        assert!(manifest.ends_with("strip = \"debuginfo\"\n"));
        assert!(Template::find("nothing").is_none());
    }
}
