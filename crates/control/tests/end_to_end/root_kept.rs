//! The root in a Secret and its certificate in a ConfigMap, as a chart has it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use control::{CaStore, Control, ControlError, KubeApi as Where, ObjectName, Settings};
use serde_json::json;
use tokio::time::{Duration, sleep};

use crate::support::kube_api::KubeApi;
use crate::support::soon;

const SECRET: &str = "/api/v1/namespaces/mesh/secrets/ca";
const CONFIG_MAP: &str = "/api/v1/namespaces/mesh/configmaps/ca-root";

async fn start(api: &KubeApi) -> Result<Control, ControlError> {
    // The Kubernetes client asks for the process's provider; a second test finds it set.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let own = |name: &str| ObjectName { namespace: "mesh".into(), name: name.into() };
    let settings = Settings {
        ca: CaStore::Secret(own("ca")),
        root_config_map: Some(own("ca-root")),
        ..Settings::new(Where::Url(api.url()))
    };
    Control::start(settings, listener).await
}

/// Until the ConfigMap says what the control plane says.
async fn published(api: &KubeApi, control: &Control) {
    let says = || {
        let map = api.kept(|kept| kept.objects.get(CONFIG_MAP).cloned());
        map.is_some_and(|map| map["data"]["root-cert.pem"] == control.root_pem())
    };
    soon("the certificate in the config map", async {
        while !says() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn all_replicas_and_all_lives_have_one_root_and_publish_it() {
    let api = KubeApi::start().await;
    let (one, other) = tokio::join!(start(&api), start(&api));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one.root_pem(), other.root_pem());
    published(&api, &one).await;
    let secret = api.kept(|kept| kept.objects[SECRET].clone());
    let kept = STANDARD.decode(secret["data"]["root.pem"].as_str().unwrap()).unwrap();
    let kept = String::from_utf8(kept).unwrap();
    assert!(kept.contains("PRIVATE KEY") && kept.contains(one.root_pem().trim()), "{kept}");
    let map = api.kept(|kept| kept.objects[CONFIG_MAP].clone());
    assert!(!map.to_string().contains("PRIVATE KEY"), "{map}");

    let root = one.root_pem().to_owned();
    one.shutdown().await;
    other.shutdown().await;
    let next = start(&api).await.unwrap();
    assert_eq!(next.root_pem(), root);
}

#[tokio::test]
async fn what_an_earlier_root_has_published_is_replaced_and_the_rest_stays() {
    let api = KubeApi::start().await;
    let old = json!({
        "metadata": { "name": "ca-root", "namespace": "mesh" },
        "data": { "root-cert.pem": "old", "other": "theirs" },
    });
    api.kept(|kept| kept.objects.insert(CONFIG_MAP.into(), old));
    let control = start(&api).await.unwrap();
    published(&api, &control).await;
    assert_eq!(api.kept(|kept| kept.objects[CONFIG_MAP]["data"]["other"].clone()), "theirs");
}

#[tokio::test]
async fn an_api_that_cannot_answer_yet_is_asked_again() {
    let api = KubeApi::start().await;
    api.kept(|kept| kept.troubles = vec![403, 500]);
    let control = soon("the start", start(&api)).await.unwrap();
    let reads =
        api.kept(|kept| kept.calls.iter().filter(|it| **it == format!("GET {SECRET}")).count());
    assert!(reads >= 3, "{reads}");
    published(&api, &control).await;
}

#[tokio::test]
async fn a_secret_without_a_usable_root_is_named_and_left_alone() {
    let api = KubeApi::start().await;
    for (data, says) in [
        (json!({}), "mesh/ca has no text under root.pem"),
        (json!({ "root.pem": STANDARD.encode("nonsense") }), "secret mesh/ca cannot be used"),
    ] {
        let secret = json!({ "metadata": { "name": "ca" }, "data": data });
        api.kept(|kept| kept.objects.insert(SECRET.into(), secret.clone()));
        let error = soon("the refusal", start(&api)).await.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert_eq!(api.kept(|kept| kept.objects[SECRET].clone()), secret);
    }
}
