//! The primary's file is written again and again, and a runtime reads at any moment.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::*;

/// How long the primary's file is written again and again: three seconds, or as many as
/// `SLUICE_REWRITE_SECONDS` says, half an hour at most.
fn rewritten_for() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "a setting of this test alone")]
    let given = std::env::var("SLUICE_REWRITE_SECONDS");
    let seconds = given.ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    Duration::from_secs(u64::min(seconds, 1800))
}

/// The primary's owner writes its file as owners do: in place, or by removing and renaming,
/// with a broken moment in between; and a reader, who is as fast as can be, chooses.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_moment_a_runtime_picks_our_plugin_is_in_the_list() {
    let mut node = Node::new(Mode::Own);
    node.start();
    node.until("our list is there", |node| node.text(OWN).contains(PLUGIN)).await;
    let done = Arc::new(AtomicBool::new(false));
    let reader = std::thread::spawn({
        let (folder, done) = (node.folder(), Arc::clone(&done));
        move || {
            let mut looks = 0_u64;
            while !done.load(Ordering::Relaxed) {
                let text = chosen(&folder).unwrap_or_default();
                assert!(text.contains(PLUGIN), "look {looks} found {text:?}");
                looks += 1;
            }
            looks
        }
    });
    let (begin, length) = (Instant::now(), rewritten_for());
    let deadline = begin + length;
    let mut mtu = 1000;
    while Instant::now() < deadline && !reader.is_finished() {
        mtu += 1;
        match mtu % 3 {
            0 => node.put("10-calico.conflist", &calico(mtu)),
            1 => {
                // In place, in two steps.
                node.put("10-calico.conflist", &calico(mtu)[..20]);
                node.put("10-calico.conflist", &calico(mtu));
            }
            _ => {
                let _ = std::fs::remove_file(node.file("10-calico.conflist"));
                node.put("calico.tmp", &calico(mtu));
                let (fresh, name) = (node.file("calico.tmp"), node.file("10-calico.conflist"));
                std::fs::rename(fresh, name).unwrap();
            }
        }
        if mtu % 20 == 0 {
            node.until_chained(mtu).await;
        }
        // For ten seconds as fast as can be, and then as an owner does that is stuck.
        if begin.elapsed().as_secs() / 10 % 2 == 1 {
            node.until_chained(mtu).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    node.until_chained(mtu).await;
    done.store(true, Ordering::Relaxed);
    let looks = reader.join().expect("every look finds our plugin");
    assert!(looks > 100, "{looks} looks, {} changes", mtu - 1000);
    node.stop().await;
}
