//! Checks the walls of the house: which package may use which other, in which room a
//! crate may be named, and a few habits that no lint knows.
//!
//! ```text
//! cargo metadata ─► edges  ┐
//! source files ───► source ┴─ against the tables of house ─► breaches, one a line
//! ```
//!
//! Run by `scripts/check` in the root of the workspace. Prints every breach with the
//! file or edge and the rule, and fails when there is one.

mod edges;
mod house;
mod lexer;
mod source;

use std::fmt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::{fs, io};

/// Something that the house forbids.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Breach {
    /// File and line, or the edge.
    place: String,
    /// What is wrong there and why it matters.
    rule: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.rule)
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(breaches) if breaches.is_empty() => ExitCode::SUCCESS,
        Ok(breaches) => {
            for breach in &breaches {
                println!("{breach}");
            }
            println!("{} breaches", breaches.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("walls: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> io::Result<Vec<Breach>> {
    let metadata = serde_json::from_slice(&cargo_metadata()?)?;
    let graph = edges::Graph::read(&metadata)
        .ok_or_else(|| io::Error::other("cargo metadata has an unknown shape"))?;
    let mut breaches = edges::check(&graph);
    breaches.extend(edges::check_banned(&cargo_tree()?));
    let mut files = 0;
    visit(Path::new(""), &mut |path, text| {
        files += 1;
        breaches.extend(source::check(path, text));
    })?;
    if files == 0 {
        return Err(io::Error::other("no source file here: not the root of the workspace"));
    }
    breaches.sort();
    breaches.dedup();
    Ok(breaches)
}

/// For the machine's own platform: what Windows would need is not built here.
fn cargo_metadata() -> io::Result<Vec<u8>> {
    let version = output_of("rustc", &["-vV"])?;
    let version = String::from_utf8_lossy(&version);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    output_of("cargo", &["metadata", "--format-version", "1", "--filter-platform", host])
}

fn cargo_tree() -> io::Result<String> {
    let tree = output_of("cargo", &["tree", "--workspace", "--edges", "all", "--prefix", "none"])?;
    String::from_utf8(tree).map_err(io::Error::other)
}

#[expect(clippy::disallowed_methods, reason = "a tool around cargo")]
fn output_of(program: &str, arguments: &[&str]) -> io::Result<Vec<u8>> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{program} {}: {complaint}", arguments.join(" "))))
}

/// Hands over every text file below `folder` that people write.
fn visit(folder: &Path, check: &mut impl FnMut(&str, &str)) -> io::Result<()> {
    let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    for entry in fs::read_dir(here)? {
        let entry = entry?;
        let name = entry.file_name();
        let path = folder.join(&name);
        let kind = entry.file_type()?;
        if kind.is_dir() && !house::FOREIGN_FOLDERS.iter().any(|foreign| name == *foreign) {
            visit(&path, check)?;
        } else if kind.is_file() && source::is_ours(&path) {
            check(&path.to_string_lossy(), &fs::read_to_string(&path)?);
        }
    }
    Ok(())
}
