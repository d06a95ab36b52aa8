//! Settings of where the mesh view comes from.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::parse::{self, Flag};
use super::raw::Reader;
use crate::source::local::Origin;
use crate::source::{MassRemoval, Rules, Scope};
use crate::tls::ControlSettings;

/// How long a mass removal is held back: long enough for a control plane to fill its
/// caches after a restart, short enough that what is gone for good does not stay.
const HOLD: Duration = Duration::from_secs(120);

/// Headers that we write ourselves, or that belong to the protocol.
const OUR_HEADERS: [&str; 5] = ["authorization", "clusterid", "te", "content-type", "user-agent"];

/// Where the mesh view comes from.
#[derive(Debug)]
pub struct Source {
    /// The control plane; none: the view is the local one and never changes.
    pub xds: Option<ControlSettings>,
    /// What is known without a control plane.
    pub local: Option<Origin>,
    /// What is asked for and what is believed.
    pub rules: Rules,
    /// Headers to send with the stream, names and values.
    pub headers: Vec<(String, String)>,
}

pub(super) fn source(
    reader: &mut Reader<'_>,
    control: impl FnOnce(&mut Reader<'_>) -> ControlSettings,
) -> Source {
    let off = reader.is_empty("XDS_ADDRESS");
    let xds = control(reader);
    let local = local(reader);
    if off && local.is_none() {
        let text = "without a control plane the mesh must come from LOCAL_XDS_PATH or LOCAL_XDS";
        reader.mistake("XDS_ADDRESS", text);
    }
    let rules = Rules { scope: scope(reader, off), mass_removal: mass_removal(reader) };
    Source { xds: (!off).then_some(xds), local, rules, headers: headers(reader) }
}

fn local(reader: &mut Reader<'_>) -> Option<Origin> {
    let path = reader.text("LOCAL_XDS_PATH").map(|path| Origin::File(PathBuf::from(path)));
    let inline = reader.text("LOCAL_XDS").map(Origin::Inline);
    if path.is_some() && inline.is_some() {
        reader.mistake("LOCAL_XDS_PATH", "LOCAL_XDS is set too: which of them is meant?");
    }
    path.or(inline)
}

fn scope(reader: &mut Reader<'_>, off: bool) -> Scope {
    if reader.flag("XDS_ON_DEMAND", Flag::Off) == Flag::Off {
        return Scope::Everything;
    }
    if off {
        reader.mistake("XDS_ON_DEMAND", "there is no control plane to ask: XDS_ADDRESS is empty");
    }
    if reader.flag("ISTIO_META_DNS_CAPTURE", Flag::On) == Flag::On {
        let text = "the DNS proxy must know all services: set ISTIO_META_DNS_CAPTURE=false with it";
        reader.mistake("XDS_ON_DEMAND", text);
    }
    Scope::OnDemand
}

fn mass_removal(reader: &mut Reader<'_>) -> MassRemoval {
    let time = reader.value("XDS_MASS_REMOVAL_HOLD", HOLD, parse::positive_duration);
    reader.value("XDS_MASS_REMOVAL", MassRemoval::Hold(time), |text| match text {
        "hold" => Ok(MassRemoval::Hold(time)),
        "apply" => Ok(MassRemoval::Apply),
        _ => Err("hold or apply expected".to_owned()),
    })
}

fn headers(reader: &mut Reader<'_>) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for (name, value) in reader.pairs("XDS_HEADER_") {
        let setting = format!("XDS_HEADER_{name}");
        let name = name.to_ascii_lowercase();
        if OUR_HEADERS.contains(&name.as_str()) || name.starts_with("grpc-") {
            reader.mistake(&setting, "this header is written by ztunnel itself");
        } else if name.ends_with("-bin") || HeaderName::from_bytes(name.as_bytes()).is_err() {
            reader.mistake(&setting, "not a name of a header with text");
        } else if HeaderValue::from_str(&value).is_err() || !value.is_ascii() {
            reader.mistake(&setting, "not a value of a header");
        } else {
            headers.push((name, value));
        }
    }
    headers
}

/// What the operator tells the control plane about this node.
pub(super) fn metadata(reader: &mut Reader<'_>) -> BTreeMap<String, serde_json::Value> {
    let plain = reader.pairs("ISTIO_META_").into_iter();
    let mut metadata: BTreeMap<_, _> = plain.map(|(key, text)| (key, text.into())).collect();
    for (key, text) in reader.pairs("ISTIO_METAJSON_") {
        match serde_json::from_str(&text) {
            Ok(value) => {
                metadata.insert(key, value);
            }
            Err(error) => {
                reader.mistake(&format!("ISTIO_METAJSON_{key}"), &format!("not JSON: {error}"));
            }
        }
    }
    metadata
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Mistakes, Raw};

    fn parse(pairs: &[(&str, &str)]) -> Result<Config, Mistakes> {
        let pairs = pairs.iter().copied().chain([("NODE_NAME", "n1")]);
        Config::parse(&Raw::from_pairs(pairs))
    }

    #[test]
    fn everything_from_a_control_plane_is_the_default() {
        let config = parse(&[]).unwrap();
        assert!(config.source.xds.is_some() && config.source.local.is_none());
        let expected = Rules {
            scope: Scope::Everything,
            mass_removal: MassRemoval::Hold(Duration::from_secs(120)),
        };
        assert_eq!(config.source.rules, expected);
    }

    #[test]
    fn settings_are_understood() {
        let config = parse(&[
            ("XDS_ON_DEMAND", "true"),
            ("ISTIO_META_DNS_CAPTURE", "false"),
            ("XDS_MASS_REMOVAL_HOLD", "10s"),
            ("XDS_HEADER_X-Tenant", "blue"),
            ("ISTIO_META_REGION", "north"),
            ("ISTIO_METAJSON_LABELS", "{\"a\": 1}"),
        ])
        .unwrap();
        let Source { rules, headers, .. } = config.source;
        assert_eq!(rules.scope, Scope::OnDemand);
        assert_eq!(rules.mass_removal, MassRemoval::Hold(Duration::from_secs(10)));
        assert_eq!(headers, [("x-tenant".to_owned(), "blue".to_owned())]);
        assert_eq!(config.node.metadata["REGION"], "north");
        assert_eq!(config.node.metadata["LABELS"]["a"], 1);
        let config = parse(&[("XDS_MASS_REMOVAL", "apply")]).unwrap();
        assert_eq!(config.source.rules.mass_removal, MassRemoval::Apply);
    }

    #[test]
    fn a_file_may_take_the_place_of_the_control_plane_or_add_to_it() {
        let file = ("LOCAL_XDS_PATH", "/etc/mesh.yaml");
        let alone = parse(&[("XDS_ADDRESS", ""), file]).unwrap().source;
        assert!(alone.xds.is_none());
        assert_eq!(alone.local, Some(Origin::File("/etc/mesh.yaml".into())));
        let both = parse(&[("LOCAL_XDS", "workloads: []")]).unwrap().source;
        assert!(both.xds.is_some());
        assert_eq!(both.local, Some(Origin::Inline("workloads: []".to_owned())));
    }

    #[test]
    fn every_mistake_names_its_setting() {
        let dns = ("ISTIO_META_DNS_CAPTURE", "false");
        let cases: [(&str, &[(&str, &str)]); 9] = [
            ("XDS_ADDRESS", &[("XDS_ADDRESS", "")]),
            ("LOCAL_XDS_PATH", &[("LOCAL_XDS_PATH", "/x"), ("LOCAL_XDS", "y")]),
            ("XDS_ON_DEMAND", &[("XDS_ON_DEMAND", "true")]),
            (
                "XDS_ON_DEMAND",
                &[("XDS_ON_DEMAND", "true"), dns, ("XDS_ADDRESS", ""), ("LOCAL_XDS", "y")],
            ),
            ("XDS_MASS_REMOVAL", &[("XDS_MASS_REMOVAL", "maybe")]),
            ("XDS_MASS_REMOVAL_HOLD", &[("XDS_MASS_REMOVAL_HOLD", "0s")]),
            ("XDS_HEADER_authorization", &[("XDS_HEADER_authorization", "Bearer x")]),
            ("XDS_HEADER_a b", &[("XDS_HEADER_a b", "x")]),
            ("ISTIO_METAJSON_X", &[("ISTIO_METAJSON_X", "{")]),
        ];
        for (name, pairs) in cases {
            let mistakes = parse(pairs).expect_err(name);
            let [mistake] = mistakes.each() else { panic!("{name}: {mistakes}") };
            assert!(mistake.starts_with(name), "{mistake}");
        }
    }
}
