//! How a request is refused: one value that becomes the API's own `Status` object.

use serde_json::{Value, json};

use super::resource::Resource;

/// The machine-readable part of a refusal. Clients branch on it, never on the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    BadRequest,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    AlreadyExists,
    Conflict,
    Expired,
    TooLarge,
    UnsupportedMediaType,
    Invalid,
    TooManyRequests,
    Internal,
    NotImplemented,
    Timeout,
}

impl Reason {
    /// The HTTP status code that goes with it.
    pub(crate) fn code(self) -> u16 {
        self.row().0
    }

    /// The word clients know it by.
    pub(crate) fn word(self) -> &'static str {
        self.row().1
    }

    fn row(self) -> (u16, &'static str) {
        match self {
            Reason::BadRequest => (400, "BadRequest"),
            Reason::Forbidden => (403, "Forbidden"),
            Reason::NotFound => (404, "NotFound"),
            Reason::MethodNotAllowed => (405, "MethodNotAllowed"),
            Reason::NotAcceptable => (406, "NotAcceptable"),
            Reason::AlreadyExists => (409, "AlreadyExists"),
            Reason::Conflict => (409, "Conflict"),
            Reason::Expired => (410, "Expired"),
            Reason::TooLarge => (413, "RequestEntityTooLarge"),
            Reason::UnsupportedMediaType => (415, "UnsupportedMediaType"),
            Reason::Invalid => (422, "Invalid"),
            Reason::TooManyRequests => (429, "TooManyRequests"),
            Reason::Internal => (500, "InternalError"),
            Reason::NotImplemented => (501, "NotImplemented"),
            Reason::Timeout => (504, "Timeout"),
        }
    }
}

/// One thing that is wrong with an object, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) reason: &'static str,
    pub(crate) field: String,
    pub(crate) message: String,
}

impl Cause {
    /// A value that is not allowed at `field`.
    pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Cause {
        Cause { reason: "FieldValueInvalid", field: field.into(), message: message.into() }
    }

    /// A value that must be there and is not.
    pub(crate) fn required(field: impl Into<String>, message: impl Into<String>) -> Cause {
        Cause { reason: "FieldValueRequired", field: field.into(), message: message.into() }
    }

    /// A change that may not be made.
    pub(crate) fn forbidden(field: impl Into<String>, message: impl Into<String>) -> Cause {
        Cause { reason: "FieldValueForbidden", field: field.into(), message: message.into() }
    }
}

/// Why a request was not done. Rendered by [`Refusal::status`].
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) message: String,
    about: Option<(&'static Resource, String)>,
    causes: Vec<Cause>,
}

impl Refusal {
    /// A refusal that is about the request itself and not about one object.
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Refusal {
        Refusal { reason, message: message.into(), about: None, causes: Vec::new() }
    }

    /// The request cannot be understood.
    pub(crate) fn bad_request(message: impl Into<String>) -> Refusal {
        Refusal::new(Reason::BadRequest, message)
    }

    /// The request is understood and this API does not do it.
    pub(crate) fn not_implemented(message: impl Into<String>) -> Refusal {
        Refusal::new(Reason::NotImplemented, message)
    }

    /// The version asked for is no longer (or not) in the history kept here.
    pub(crate) fn expired(message: impl Into<String>) -> Refusal {
        Refusal::new(Reason::Expired, message)
    }

    /// The object does not exist.
    pub(crate) fn not_found(resource: &'static Resource, name: &str) -> Refusal {
        let message = format!("{} \"{name}\" not found", resource.qualified());
        Refusal::new(Reason::NotFound, message).about(resource, name)
    }

    /// An object of that name is already there.
    pub(crate) fn already_exists(resource: &'static Resource, name: &str) -> Refusal {
        let message = format!("{} \"{name}\" already exists", resource.qualified());
        Refusal::new(Reason::AlreadyExists, message).about(resource, name)
    }

    /// The object is not in the state the caller required.
    pub(crate) fn conflict(resource: &'static Resource, name: &str, why: &str) -> Refusal {
        let message = format!("{} \"{name}\" was not changed: {why}", resource.qualified());
        Refusal::new(Reason::Conflict, message).about(resource, name)
    }

    /// Fields of the object are wrong; each cause names one.
    pub(crate) fn invalid(resource: &'static Resource, name: &str, causes: Vec<Cause>) -> Refusal {
        let list: Vec<_> = causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        let message = format!("{} \"{name}\" is invalid: {}", resource.kind, list.join("; "));
        Refusal { causes, ..Refusal::new(Reason::Invalid, message).about(resource, name) }
    }

    /// Names the object that the refusal is about.
    pub(crate) fn about(mut self, resource: &'static Resource, name: &str) -> Refusal {
        self.about = Some((resource, name.to_owned()));
        self
    }

    /// Adds the causes clients list one by one (conflicts of a server-side apply).
    pub(crate) fn with_causes(mut self, causes: Vec<Cause>) -> Refusal {
        self.causes = causes;
        self
    }

    /// The `Status` object sent to the client.
    pub(crate) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason.word(), "code": self.reason.code(),
        });
        let mut details = json!({});
        if let Some((resource, name)) = &self.about {
            // Failures about fields name the kind, all others the plural: clients print either.
            let kind = if self.reason == Reason::Invalid { resource.kind } else { resource.plural };
            details = json!({ "name": name, "group": resource.group, "kind": kind });
        }
        if !self.causes.is_empty() {
            details["causes"] = self.causes.iter().map(cause_json).collect();
        }
        if details.as_object().is_some_and(|d| !d.is_empty()) {
            status["details"] = details;
        }
        status
    }
}

fn cause_json(cause: &Cause) -> Value {
    json!({ "reason": cause.reason, "message": cause.message, "field": cause.field })
}

/// The `Status` object that answers a deletion after which nothing is left.
pub(crate) fn deleted(resource: &Resource, name: &str, uid: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": { "name": name, "group": resource.group, "kind": resource.plural, "uid": uid },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube_api::resource::find;

    #[test]
    fn a_refusal_about_fields_names_object_and_field() {
        let pods = find("", "v1", "pods").unwrap();
        let cause = Cause::required("spec.containers", "at least one container is needed");
        let status = Refusal::invalid(pods, "web", vec![cause]).status();
        assert_eq!(status["code"], 422);
        assert_eq!(status["reason"], "Invalid");
        assert_eq!(status["details"]["name"], "web");
        assert_eq!(status["details"]["causes"][0]["field"], "spec.containers");
        assert!(status["message"].as_str().unwrap().contains("spec.containers"));
    }

    #[test]
    fn a_refusal_about_the_request_has_no_details() {
        let status = Refusal::bad_request("the body is not JSON").status();
        assert_eq!(status["code"], 400);
        assert_eq!(status.get("details"), None);
    }
}
