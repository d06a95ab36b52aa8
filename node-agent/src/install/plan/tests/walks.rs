//! Long random stories of a folder.

use super::*;

/// Whatever happens to the other files, in whatever order: as soon as our list stands there,
/// the first file that a runtime can use has our plugin.
#[test]
fn whatever_happens_no_list_without_us_comes_first() {
    let texts = [CALICO, BRIDGE, "{", "", &CALICO[..50]];
    let names = ["05-a.conflist", "10-b.conflist", "10-b.conf", "87-c.json"];
    for seed in 0..400 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut story = Story::new(Mode::Own, &[]);
        story.look();
        for step in 0..40 {
            let name = names[random.usize(..names.len())];
            let is_list = Shape::of(name) == Some(Shape::List);
            match random.u8(..4) {
                0 => drop(story.view.files.remove(name)),
                1 if !is_list => story.put(name, SINGLE),
                2 => drop(story.later(Duration::from_millis(random.u64(..3000)))),
                _ => story.put(name, texts[random.usize(..texts.len())]),
            }
            let before = story.chosen();
            assert_eq!(before.last().unwrap(), "sluice-cni", "seed {seed}, step {step}, before");
            let plan = plan(&story.view, &story.settings, &story.past, story.now);
            (story.past, story.reports) = (plan.past, plan.reports);
            for change in plan.changes {
                story.apply(change);
                assert_eq!(story.chosen().last().unwrap(), "sluice-cni", "seed {seed}, {step}");
            }
            assert_eq!(story.look(), [""; 0], "seed {seed}, step {step}: it comes to rest");
        }
    }
}
