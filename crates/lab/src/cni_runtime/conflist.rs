//! What a network configuration list says. PURE but for [`Conflist::load`], which reads
//! the first file of a folder as runtimes do.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// Versions of the specification whose rules this runtime follows.
const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A file that is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConflistError {
    /// The folder holds none.
    #[error("no network configuration (*.conflist) in {folder}")]
    None {
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// The system refused to read it.
    #[error("read network configuration {path}: {source}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Its content is not what the specification asks for.
    #[error("network configuration {path}: {problem}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where in the file.
        problem: String,
    },
}

/// One entry of the list, as written.
#[derive(Clone, Debug, PartialEq)]
pub struct Plugin {
    /// Name of the binary.
    pub kind: String,
    /// The capabilities that it declares, hence may be given arguments for.
    pub capabilities: Vec<String>,
    /// The whole entry, known keys and unknown ones.
    pub config: Map<String, Value>,
}

/// A checked network configuration list.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflist {
    /// Name of the network.
    pub name: String,
    /// Version of the specification that all its plugins are spoken to in.
    pub version: String,
    /// CHECK is not to be called.
    pub disable_check: bool,
    /// GC is not to be called.
    pub disable_gc: bool,
    /// In the order of ADD.
    pub plugins: Vec<Plugin>,
}

impl Conflist {
    /// Reads the lexically first `*.conflist` of `folder`, as container runtimes do.
    ///
    /// # Errors
    /// [`ConflistError`] naming the file. A malformed first file is an error: a later one
    /// would silently be another network.
    pub fn load(folder: &Path) -> Result<Self, ConflistError> {
        let path = first(folder)?.ok_or_else(|| ConflistError::None { folder: folder.into() })?;
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ConflistError::Read { path: path.clone(), source })?;
        Self::parse(&text).map_err(|problem| ConflistError::Malformed { path, problem })
    }

    /// # Errors
    /// What is wrong, and where in the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value: Value =
            serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
        let list = value.as_object().ok_or("the file is not a JSON object")?;
        let name = string(list, "name")?;
        if !is_name(name) {
            return Err(format!(
                "name {name:?} must start with a letter or digit and hold only those and . _ -"
            ));
        }
        let version = string(list, "cniVersion")?;
        if !VERSIONS.contains(&version) {
            let known = VERSIONS.join(", ");
            return Err(format!("cniVersion {version:?} is not one of {known}"));
        }
        let plugins = list.get("plugins").ok_or("plugins is missing")?;
        let plugins = plugins.as_array().ok_or("plugins is not a list")?;
        if plugins.is_empty() {
            return Err("plugins is empty".into());
        }
        let parse =
            |(index, entry)| Plugin::parse(entry).map_err(|e| format!("plugins[{index}]: {e}"));
        Ok(Self {
            name: name.to_owned(),
            version: version.to_owned(),
            disable_check: is_set(list, "disableCheck")?,
            disable_gc: is_set(list, "disableGC")?,
            plugins: plugins.iter().enumerate().map(parse).collect::<Result<_, _>>()?,
        })
    }

    /// Whether this version has CHECK, and prevResult on DEL: both came with 0.4.0.
    pub(crate) fn remembers_results(&self) -> bool {
        self.version != "0.3.1"
    }

    /// Whether this version has STATUS and GC.
    pub(crate) fn asks_about_the_network(&self) -> bool {
        self.version == "1.1.0"
    }
}

impl Plugin {
    fn parse(entry: &Value) -> Result<Self, String> {
        let config = entry.as_object().ok_or("not a JSON object")?;
        let kind = string(config, "type")?;
        // The name is looked up in the plugin folders; it must not lead out of them.
        if kind.is_empty() || kind.contains('/') {
            return Err(format!("type {kind:?} is not the name of a binary"));
        }
        let capabilities = match config.get("capabilities") {
            None => Vec::new(),
            Some(Value::Object(map)) => declared(map)?,
            Some(other) => return Err(format!("capabilities is {other}, not an object")),
        };
        Ok(Self { kind: kind.to_owned(), capabilities, config: config.clone() })
    }
}

fn declared(capabilities: &Map<String, Value>) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for (name, value) in capabilities {
        match value {
            Value::Bool(true) => names.push(name.clone()),
            Value::Bool(false) => {}
            other => return Err(format!("capability {name} is {other}, not true or false")),
        }
    }
    Ok(names)
}

fn is_set(list: &Map<String, Value>, key: &str) -> Result<bool, String> {
    match list.get(key) {
        None => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(other) => Err(format!("{key} is {other}, not true or false")),
    }
}

fn string<'a>(object: &'a Map<String, Value>, key: &str) -> Result<&'a str, String> {
    match object.get(key) {
        Some(Value::String(value)) => Ok(value),
        Some(other) => Err(format!("{key} is {other}, not a string")),
        None => Err(format!("{key} is missing")),
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

fn first(folder: &Path) -> Result<Option<PathBuf>, ConflistError> {
    let failed = |source| ConflistError::Read { path: folder.into(), source };
    let mut found: Option<PathBuf> = None;
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let conflist = path.extension().is_some_and(|extension| extension == "conflist");
        if conflist && found.as_ref().is_none_or(|best| path < *best) {
            found = Some(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sound_list_keeps_its_order_and_unknown_keys() {
        let text = r#"{"cniVersion":"1.0.0","name":"n1","disableCheck":true,"plugins":[
            {"type":"bridge","mtu":1400},
            {"type":"portmap","capabilities":{"portMappings":true,"other":false}}]}"#;
        let list = Conflist::parse(text).unwrap();
        assert!(list.disable_check);
        let kinds: Vec<_> = list.plugins.iter().map(|plugin| plugin.kind.as_str()).collect();
        assert_eq!(kinds, ["bridge", "portmap"]);
        assert_eq!(list.plugins[0].config["mtu"], 1400);
        assert_eq!(list.plugins[1].capabilities, ["portMappings"]);
    }

    #[test]
    fn every_mistake_is_named() {
        let cases = [
            ("{", "not JSON"),
            ("[]", "not a JSON object"),
            (r#"{"cniVersion":"1.0.0","plugins":[{"type":"a"}]}"#, "name is missing"),
            (r#"{"name":"../x","cniVersion":"1.0.0","plugins":[{"type":"a"}]}"#, "must start with"),
            (r#"{"name":7,"cniVersion":"1.0.0","plugins":[{"type":"a"}]}"#, "name is 7"),
            (r#"{"name":"n","plugins":[{"type":"a"}]}"#, "cniVersion is missing"),
            (r#"{"name":"n","cniVersion":"9.9.9","plugins":[{"type":"a"}]}"#, "9.9.9"),
            (r#"{"name":"n","cniVersion":"1.0.0"}"#, "plugins is missing"),
            (r#"{"name":"n","cniVersion":"1.0.0","plugins":{}}"#, "plugins is not a list"),
            (r#"{"name":"n","cniVersion":"1.0.0","plugins":[]}"#, "plugins is empty"),
            (r#"{"name":"n","cniVersion":"1.0.0","plugins":[{"type":"a"},7]}"#, "plugins[1]"),
            (r#"{"name":"n","cniVersion":"1.0.0","plugins":[{}]}"#, "type is missing"),
            (r#"{"name":"n","cniVersion":"1.0.0","plugins":[{"type":"../a"}]}"#, "../a"),
        ];
        for (text, part) in cases {
            let problem = Conflist::parse(text).unwrap_err();
            assert!(problem.contains(part), "{text}: {problem}");
        }
    }

    #[test]
    fn options_of_the_wrong_kind_are_named() {
        let cases = [
            (r#""disableCheck":"no","plugins":[{"type":"a"}]"#, "disableCheck"),
            (r#""disableGC":0,"plugins":[{"type":"a"}]"#, "disableGC"),
            (r#""plugins":[{"type":"a","capabilities":[]}]"#, "capabilities"),
            (r#""plugins":[{"type":"a","capabilities":{"b":1}}]"#, "capability b"),
        ];
        for (rest, part) in cases {
            let text = format!(r#"{{"name":"n","cniVersion":"1.0.0",{rest}}}"#);
            let problem = Conflist::parse(&text).unwrap_err();
            assert!(problem.contains(part), "{text}: {problem}");
        }
    }

    #[test]
    fn the_first_file_counts_and_is_named_when_malformed() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Conflist::load(folder.path()), Err(ConflistError::None { .. })));
        let sound = r#"{"name":"late","cniVersion":"1.0.0","plugins":[{"type":"a"}]}"#;
        std::fs::write(folder.path().join("20-b.conflist"), sound).unwrap();
        std::fs::write(folder.path().join("00-not-a-list.txt"), "{").unwrap();
        assert_eq!(Conflist::load(folder.path()).unwrap().name, "late");
        std::fs::write(folder.path().join("10-a.conflist"), "{").unwrap();
        let error = Conflist::load(folder.path()).unwrap_err().to_string();
        assert!(error.contains("10-a.conflist") && error.contains("not JSON"), "{error}");
        assert!(Conflist::load(&folder.path().join("absent")).is_err());
    }
}
