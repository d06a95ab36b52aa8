//! What a runtime starts that is no pod: a namespace that nobody in Kubernetes has heard of.

use netns::NamedNetns;
use serde_json::Map;

use crate::cni_runtime::Attachment;
use crate::place::Place;
use crate::sandbox::container_id;

/// A container without a pod. Its namespace goes when it is dropped; what plugins have made for
/// it outside is undone by DEL only.
#[derive(Debug)]
pub struct Container {
    place: Place,
    attachment: Attachment,
    _named: NamedNetns,
}

impl Container {
    pub(crate) fn new(place: Place, named: NamedNetns) -> Self {
        let attachment = Attachment {
            container_id: container_id(),
            netns: Some(place.path().to_owned()),
            ifname: "eth0".into(),
            args: Vec::new(),
            capability_args: Map::new(),
        };
        Self { place, attachment, _named: named }
    }

    /// Its network namespace.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Its first interface, with no arguments at all.
    #[must_use]
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }
}
