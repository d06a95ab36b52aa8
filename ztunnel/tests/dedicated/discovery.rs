//! Discovery of two machines.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use futures_util::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use mesh::proto::ADDRESS_TYPE;
use mesh::proto::envoy::config::core::v3::Node;
use mesh::proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource,
};
use mesh::proto::workload::{Address, TunnelProtocol, Workload, address};
use prost::Message;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::authority::{Body, PREFIX, frame};

/// Who has asked.
pub type Nodes = Arc<Mutex<Vec<Node>>>;

/// Answers one stream, for as long as somebody asks.
pub fn stream(requests: Incoming, nodes: Nodes) -> Body {
    let (sender, responses) = unbounded_channel();
    tokio::spawn(listen(requests, nodes, sender));
    let frames = UnboundedReceiverStream::new(responses);
    StreamBody::new(frames.map(|response| Ok(Frame::data(frame(&response))))).boxed_unsync()
}

async fn listen(
    mut requests: Incoming,
    nodes: Nodes,
    sender: UnboundedSender<DeltaDiscoveryResponse>,
) {
    let mut bytes = BytesMut::new();
    while let Some(Ok(data)) = requests.frame().await {
        bytes.extend(data.into_data().unwrap_or_default());
        while let Some(message) = cut(&mut bytes) {
            let request = DeltaDiscoveryRequest::decode(message).unwrap();
            assert_eq!(request.error_detail, None);
            if let Some(response) = answer(&request) {
                sender.send(response).unwrap();
            }
            nodes.lock().unwrap().extend(request.node);
        }
    }
}

/// Everything, or what is asked for by name.
fn answer(request: &DeltaDiscoveryRequest) -> Option<DeltaDiscoveryResponse> {
    // A star that is taken back at once stands for nothing.
    let (stars, names): (Vec<_>, Vec<_>) =
        request.resource_names_subscribe.iter().cloned().partition(|name| name == "*");
    let nothing = names.is_empty() && !stars.is_empty();
    if nothing || !request.response_nonce.is_empty() {
        return None;
    }
    let mut response = DeltaDiscoveryResponse {
        type_url: request.type_url.clone(),
        nonce: "1".to_owned(),
        ..Default::default()
    };
    if request.type_url == ADDRESS_TYPE {
        let machines = [machine("buyer", 1), machine("seller", 2)];
        let known = |name: &str| machines.iter().find(|(uid, at, _)| uid == name || at == name);
        let found = |(_, _, resource): &Machine| resource.clone();
        if names.is_empty() {
            response.resources = machines.iter().map(found).collect();
        } else {
            response.resources = names.iter().filter_map(|it| known(it)).map(found).collect();
            response.removed_resources =
                names.iter().filter(|it| known(it).is_none()).cloned().collect();
        }
    }
    Some(response)
}

/// The next whole message.
fn cut(bytes: &mut BytesMut) -> Option<BytesMut> {
    let length = u32::from_be_bytes(bytes.get(1..PREFIX)?.try_into().unwrap());
    let end = PREFIX + usize::try_from(length).unwrap();
    (bytes.len() >= end).then(|| bytes.split_to(end).split_off(PREFIX))
}

/// Its UID, the name of its address, and what is said of it.
type Machine = (String, String, Resource);

fn machine(name: &str, number: u8) -> Machine {
    let v4 = Ipv4Addr::new(10, 79, 0, number);
    let uid = format!("Kubernetes/networking.istio.io/WorkloadEntry/shop/{name}");
    let workload = Workload {
        uid: uid.clone(),
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        service_account: name.to_owned(),
        addresses: vec![v4.octets().to_vec()],
        tunnel_protocol: TunnelProtocol::Hbone.into(),
        ..Default::default()
    };
    let address = Address { r#type: Some(address::Type::Workload(workload)) };
    let value = address.encode_to_vec();
    let any = prost_types::Any { type_url: ADDRESS_TYPE.to_owned(), value };
    let resource = Resource { name: uid.clone(), resource: Some(any), ..Default::default() };
    (uid, format!("/{v4}"), resource)
}
