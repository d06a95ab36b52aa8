//! What an open connection costs in memory, apart from the kernel's share.

use std::sync::Arc;

use crate::proxy::accept::Arrival;
use crate::proxy::pod::{Life, PodShared};
use crate::proxy::{inbound, inbound_plain, outbound};

fn size<A, F: Future>(_task: impl Fn(Arc<PodShared>, A) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn the_tasks_of_connections_stay_small() {
    let tunnel = |pod, (life, arrival): (Life, Arrival)| inbound::serve(pod, life, arrival);
    let stream = |pod, (worker, peer, incoming)| inbound::stream(pod, worker, peer, incoming);
    let sizes = [
        ("outbound", size(outbound::serve), 304),
        ("inbound in clear", size(inbound_plain::serve), 368),
        ("inbound stream", size(stream), 320),
        ("inbound tunnel", size(tunnel), 2944),
    ];
    let above: Vec<_> = sizes.iter().filter(|(_, bytes, most)| bytes > most).collect();
    assert!(above.is_empty(), "{sizes:?}");
}
