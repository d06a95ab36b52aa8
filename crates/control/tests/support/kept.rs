//! Single objects that are read, made, patched and removed: Secrets, ConfigMaps, DaemonSets.

use std::collections::BTreeMap;

use http::Method;
use serde_json::Value;

/// Objects by their paths.
#[derive(Default)]
pub struct Kept {
    pub objects: BTreeMap<String, Value>,
    /// Status that the next calls are answered with, the first one last.
    pub troubles: Vec<u16>,
    /// Methods and paths, in order.
    pub calls: Vec<String>,
}

impl Kept {
    pub fn has(path: &str) -> bool {
        let (_, kind) = path.split_once("/namespaces/mesh/").unwrap_or_default();
        ["secrets", "configmaps", "daemonsets", "pods"].iter().any(|it| kind.starts_with(it))
    }

    pub fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> Result<Value, u16> {
        self.calls.push(format!("{method} {path}"));
        if let Some(status) = self.troubles.pop() {
            return Err(status);
        }
        if *method == Method::GET {
            return self.objects.get(path).cloned().ok_or(404);
        }
        let told: Value = serde_json::from_slice(body).unwrap();
        if *method == Method::POST {
            let path = format!("{path}/{}", told["metadata"]["name"].as_str().unwrap());
            if self.objects.contains_key(&path) {
                return Err(409);
            }
            self.objects.insert(path, told.clone());
            return Ok(told);
        }
        if *method == Method::DELETE {
            // The test removes it, as the garbage collector would.
            let object = self.objects.get_mut(path).ok_or(404_u16)?;
            object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            object["deletedBy"] = told;
            return Ok(object.clone());
        }
        assert_eq!(method, Method::PATCH, "{path}");
        let object = self.objects.get_mut(path).ok_or(404_u16)?;
        for (key, value) in told["data"].as_object().unwrap() {
            object["data"][key] = value.clone();
        }
        Ok(object.clone())
    }
}
