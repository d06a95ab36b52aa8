//! Headers of an operator's own (`CA_HEADER_*`).

use std::fmt;
use std::str::FromStr;

use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};

/// Sent along with each call. Values may be secrets and stay out of logs.
#[derive(Clone, Default, PartialEq)]
pub struct ExtraHeaders(Vec<(AsciiMetadataKey, AsciiMetadataValue)>);

impl ExtraHeaders {
    /// One more.
    ///
    /// # Errors
    /// What is wrong with name or value.
    pub fn add(&mut self, name: &str, value: &str) -> Result<(), String> {
        let wrong = || format!("{name:?} is no header that gRPC can carry");
        let key = AsciiMetadataKey::from_str(&name.to_ascii_lowercase()).map_err(|_| wrong())?;
        let mut value = AsciiMetadataValue::try_from(value).map_err(|_| wrong())?;
        value.set_sensitive(true);
        self.0.push((key, value));
        Ok(())
    }

    pub(super) fn apply(&self, metadata: &mut MetadataMap) {
        for (name, value) in &self.0 {
            metadata.insert(name.clone(), value.clone());
        }
    }
}

impl fmt::Debug for ExtraHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name.as_str())).finish()
    }
}
