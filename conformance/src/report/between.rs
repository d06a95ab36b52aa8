//! What programs write into files that people write: it stands between two lines.

use std::path::Path;

use anyhow::{Context, anyhow};

/// The lines between which everything belongs to the program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Markers {
    pub begin: &'static str,
    pub end: &'static str,
}

impl Markers {
    /// What is between the lines of a file.
    ///
    /// # Errors
    /// When the file does not have them.
    pub(crate) fn read(self, from: &Path) -> anyhow::Result<String> {
        let text =
            std::fs::read_to_string(from).with_context(|| format!("read {}", from.display()))?;
        let (_, within, _) = self.split(&text).ok_or_else(|| self.missing(from))?;
        Ok(within.to_owned())
    }

    /// Puts a new text between the lines of a file.
    ///
    /// # Errors
    /// When the file does not have them; it stays as it is then.
    pub(crate) fn write(self, into: &Path, new: &str) -> anyhow::Result<()> {
        let name = into.display();
        let text = std::fs::read_to_string(into).with_context(|| format!("read {name}"))?;
        let text = self.put(&text, new).ok_or_else(|| self.missing(into))?;
        std::fs::write(into, text).with_context(|| format!("write {name}"))
    }

    fn put(self, text: &str, new: &str) -> Option<String> {
        let Self { begin, end } = self;
        let (before, _, after) = self.split(text)?;
        Some(format!("{before}{begin}\n{new}{end}{after}"))
    }

    fn split(self, text: &str) -> Option<(&str, &str, &str)> {
        let (before, rest) = text.split_once(self.begin)?;
        let (within, after) = rest.split_once(self.end)?;
        Some((before, within, after))
    }

    fn missing(self, file: &Path) -> anyhow::Error {
        let (Self { begin, end }, name) = (self, file.display());
        anyhow!("{name} has no lines `{begin}` and `{end}`, in this order")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKERS: Markers = Markers { begin: "<!-- begin -->", end: "<!-- end -->" };

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let text = "above\n<!-- begin -->\nold\n<!-- end -->\nbelow\n";
        let once = MARKERS.put(text, "new\n").unwrap();
        assert_eq!(once, "above\n<!-- begin -->\nnew\n<!-- end -->\nbelow\n");
        assert_eq!(MARKERS.put(&once, "new\n").unwrap(), once);
        for wrong in ["no markers", "<!-- begin -->\n", "<!-- end -->\n<!-- begin -->\n"] {
            assert_eq!(MARKERS.put(wrong, "new"), None, "{wrong}");
        }
    }

    #[test]
    fn a_file_without_the_markers_stays_as_it_is() {
        let file = std::env::temp_dir().join(format!("between-{}.md", std::process::id()));
        let read = || std::fs::read_to_string(&file).unwrap();
        assert!(MARKERS.write(&file, "new\n").is_err(), "there is no file");
        std::fs::write(&file, "by hand\n").unwrap();
        let error = MARKERS.write(&file, "new\n").unwrap_err().to_string();
        assert!(error.contains("between-") && error.contains(MARKERS.end), "{error}");
        assert_eq!(read(), "by hand\n");
        std::fs::write(&file, "above <!-- begin --><!-- end --> below").unwrap();
        MARKERS.write(&file, "new\n").unwrap();
        assert_eq!(read(), "above <!-- begin -->\nnew\n<!-- end --> below");
        std::fs::remove_file(&file).unwrap();
    }
}
