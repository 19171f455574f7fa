//! The part of the program that tests can reach.

use std::io;
use std::path::Path;

/// Reads the greeting and addresses it to `names`, or to the world when there are none.
pub fn greeting(file: &Path, names: &[String]) -> io::Result<String> {
    let text = std::fs::read_to_string(file)?;
    let to = if names.is_empty() {
        "world".to_owned()
    } else {
        names.join(", ")
    };
    Ok(format!("{}, {to}!", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greets_by_name() {
        let file = Path::new("assets/greeting.txt");
        let names = ["Ada".to_owned(), "Grace".to_owned()];
        assert_eq!(
            greeting(file, &names).unwrap(),
            "Hello from one address space, Ada, Grace!"
        );
        assert!(greeting(file, &[]).unwrap().ends_with(", world!"));
    }

    #[test]
    fn a_missing_file_is_an_error() {
        assert!(greeting(Path::new("assets/none"), &[]).is_err());
    }
}
