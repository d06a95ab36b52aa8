#![no_main]
//! A mesh from YAML.

use libfuzzer_sys::fuzz_target;
use ztunnel::source::local::{LocalError, Origin, load};

fuzz_target!(|text: String| {
    match load(&Origin::Inline(text)) {
        Ok(view) => assert!(view.workloads().all(|it| !it.uid().is_empty())),
        Err(LocalError::Entries { mistakes, .. }) => assert!(!mistakes.each().is_empty()),
        Err(LocalError::Yaml { .. }) => {}
        Err(LocalError::Read { .. }) => panic!("there is no file"),
    }
});
