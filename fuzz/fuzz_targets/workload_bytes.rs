#![no_main]
//! Workloads, services and policies as bytes: whatever is accepted can be taken out again.

use libfuzzer_sys::fuzz_target;
use mesh::proto::security::Authorization;
use mesh::proto::workload::{Address, address};
use mesh::{Policy, Service, View, Workload};
use prost::Message;

fuzz_target!(|bytes: &[u8]| {
    let mut view = View::default();
    match Address::decode(bytes).ok().and_then(|it| it.r#type) {
        Some(address::Type::Workload(message)) => {
            view.reject_workload("other", &message);
            if let Ok(workload) = Workload::try_from(message) {
                let (uid, at) = (workload.uid().to_string(), workload.addresses.clone());
                let network = workload.network.clone();
                view.insert_workload(workload);
                view.remove_workload(&uid);
                assert!(at.iter().all(|ip| view.by_address(&network, *ip).is_none()));
            }
            view.remove_workload("other");
            assert_eq!(view.workloads().count(), 0);
        }
        Some(address::Type::Service(message)) => {
            if let Ok(service) = Service::try_from(message) {
                let key = service.key.clone();
                view.insert_service(service);
                assert!(view.service(&key).is_some());
                view.remove_service(&key);
            }
            assert_eq!(view.services().count(), 0);
        }
        None => {}
    }
    if let Ok(policy) = Authorization::decode(bytes).map(Policy::try_from) {
        let Ok(policy) = policy else { return };
        let key = policy.key().clone();
        view.insert_policy(policy);
        view.remove_policy(&key);
        assert_eq!(view.policies().count(), 0);
    }
});
