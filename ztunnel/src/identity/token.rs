//! The token that proves this node to the control plane.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use tonic::metadata::AsciiMetadataValue;

use super::TokenError;

/// Where a pod's projected token is mounted.
const DEFAULT_PATH: &str = "./var/run/secrets/tokens/istio-token";

/// Where the bearer token comes from.
#[derive(Clone)]
pub struct Token(Source);

#[derive(Clone)]
enum Source {
    File(PathBuf),
    Literal(String),
    None,
}

impl Token {
    /// Reads the setting as Istio's ztunnel does: a path if such a file exists, else the
    /// token itself; without a setting the default file if it exists, else none. What
    /// looks like a path is one also when there is no file yet: no token has a slash in
    /// front, and a path must not be sent as a token.
    #[must_use]
    pub fn from_setting(setting: Option<&str>) -> Self {
        let (text, otherwise) = match setting {
            Some(text) => (text, Source::Literal(text.trim().to_owned())),
            None => (DEFAULT_PATH, Source::None),
        };
        let file = Path::new(text);
        let path = setting.is_some() && (text.starts_with('/') || text.starts_with("./"));
        Self(if path || file.is_file() { Source::File(file.to_owned()) } else { otherwise })
    }

    /// The value of the `authorization` header; a file is read again for each call,
    /// because the kubelet renews it.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn bearer(&self) -> Result<Option<AsciiMetadataValue>, TokenError> {
        let (origin, text) = match &self.0 {
            Source::None => return Ok(None),
            Source::Literal(text) => ("the setting".to_owned(), text.clone()),
            Source::File(path) => {
                let failed = |source| TokenError::Read { path: path.clone(), source };
                (path.display().to_string(), fs::read_to_string(path).map_err(failed)?)
            }
        };
        let mut value = AsciiMetadataValue::try_from(format!("Bearer {}", text.trim()))
            .map_err(|_| TokenError::Characters(origin))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// The token itself stays out of logs.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::File(path) => write!(f, "Token({})", path.display()),
            Source::Literal(_) => f.write_str("Token(literal)"),
            Source::None => f.write_str("Token(none)"),
        }
    }
}
