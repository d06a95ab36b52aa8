//! What the API tells about one kind of objects, as facts. A list counts when it is
//! complete: until then it is collected here.

use std::fmt::Debug;

use futures_util::{Stream, StreamExt};
use kube::Api;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use serde::de::DeserializeOwned;

/// A change of one kind.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change<T> {
    /// All there are: others are gone.
    Listed(Vec<T>),
    /// New, or changed.
    Seen(T),
    /// As it last was.
    Gone(T),
}

/// Watches all objects of a kind, for ever; pauses between attempts grow. `read` gives
/// `None` for what is no object.
pub(super) fn changes<K, T>(
    api: Api<K>,
    read: fn(K) -> Option<T>,
) -> impl Stream<Item = Result<Change<T>, watcher::Error>> + Send
where
    K: kube::Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    T: Send,
{
    let events = watcher(api, watcher::Config::default()).default_backoff();
    let mut list = Vec::new();
    events.filter_map(move |event| {
        let change = event.map(|event| step(&mut list, event, read)).transpose();
        std::future::ready(change)
    })
}

fn step<K, T>(list: &mut Vec<T>, event: Event<K>, read: fn(K) -> Option<T>) -> Option<Change<T>> {
    match event {
        Event::Init => list.clear(),
        Event::InitApply(object) => list.extend(read(object)),
        Event::InitDone => return Some(Change::Listed(std::mem::take(list))),
        Event::Apply(object) => return read(object).map(Change::Seen),
        Event::Delete(object) => return read(object).map(Change::Gone),
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_counts_when_it_is_complete() {
        let mut list = Vec::new();
        let mut told = |event| step(&mut list, event, |number: u8| (number > 0).then_some(number));
        assert_eq!(told(Event::Init), None);
        assert_eq!(told(Event::InitApply(1)), None);
        // Interrupted, and begun again.
        assert_eq!(told(Event::Init), None);
        assert_eq!(told(Event::InitApply(2)), None);
        assert_eq!(told(Event::InitApply(0)), None);
        assert_eq!(told(Event::InitDone), Some(Change::Listed(vec![2])));
        assert_eq!(told(Event::Apply(3)), Some(Change::Seen(3)));
        assert_eq!(told(Event::Delete(3)), Some(Change::Gone(3)));
        assert_eq!(told(Event::Apply(0)), None);
    }
}
