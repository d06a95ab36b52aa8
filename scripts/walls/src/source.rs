//! Checks one source file. Pure.

use std::path::Path;

use crate::Breach;
use crate::house::{
    COLUMNS, EFFECTS, EXCEPTIONS, LONGEST_FILE, May, Name, PURE, ROOMS, TABLE, UNFINISHED,
};
use crate::lexer::{self, Token};

/// Whether people write this file for the product.
pub fn is_ours(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let is_script = path.starts_with("scripts") || path.starts_with(".ci");
    match extension {
        Some(known) => ["rs", "toml", "md", "sh", "proto", "yaml", "yml", "json", "tpl", "service"]
            .contains(&known),
        None => is_script,
    }
}

/// Everything that is wrong with the file at `path`, from the root of the workspace.
pub fn check(path: &str, text: &str) -> Vec<Breach> {
    let mut breaches = unfinished(path, text);
    if !path.ends_with(".rs") || is_test(path) {
        return breaches;
    }
    let mut tokens = lexer::tokens(text);
    let tests_begin = tests_begin(&tokens);
    tokens.retain(|token| token.line < tests_begin);
    let length = text.lines().count().min(tests_begin - 1);
    if length > LONGEST_FILE {
        let rule = format!("{length} lines without tests, at most {LONGEST_FILE}: split it");
        breaches.push(Breach { place: path.to_owned(), rule });
    }
    breaches.extend(strangers(path, &tokens));
    breaches
}

fn unfinished(path: &str, text: &str) -> Vec<Breach> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let found = text.lines().enumerate().filter_map(|(at, line)| {
        let word = UNFINISHED
            .iter()
            .find(|unfinished| line.split(|c| !is_word(c)).any(|word| word == **unfinished))?;
        let rule = format!("{word}: finish it, or leave it out and name it in the README");
        Some(Breach { place: format!("{path}:{}", at + 1), rule })
    });
    found.collect()
}

/// Tests are free to use what they need.
fn is_test(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "testing")
        || path.ends_with("/tests.rs")
        || path.ends_with("_tests.rs")
        || path.ends_with("/testing.rs")
        || path.ends_with("build.rs")
}

/// The line of the inline test module, which is the last thing in a file.
fn tests_begin(tokens: &[Token]) -> usize {
    const OPENING: [&str; 8] = ["#", "[", "cfg", "(", "test", ")", "]", "mod"];
    let texts: Vec<&str> = tokens.iter().map(|token| token.text.as_str()).collect();
    let opens = |at: &usize| texts[*at..].starts_with(&OPENING) && texts.get(at + 9) == Some(&"{");
    (0..tokens.len()).find(opens).map_or(usize::MAX, |at| tokens[at].line)
}

/// Names that are said outside their room.
fn strangers(path: &str, tokens: &[Token]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut look_for = |name: Name, rule: &dyn Fn(&str) -> String| {
        let (Name::Crate(text) | Name::Path(text)) = name;
        let is_excepted =
            EXCEPTIONS.iter().any(|known| known.name == text && path.starts_with(known.place));
        if !is_excepted {
            breaches.extend(
                says(tokens, name)
                    .into_iter()
                    .map(|line| Breach { place: format!("{path}:{line}"), rule: rule(text) }),
            );
        }
    };
    for room in ROOMS.iter().filter(|room| !is_in(path, room.places)) {
        look_for(room.name, &|name| {
            format!("{name} outside {}: {}", room.places.join(", "), room.why)
        });
    }
    if is_in(path, PURE) {
        for effect in EFFECTS {
            look_for(*effect, &|name| format!("{name} in a pure room: facts in, decisions out"));
        }
    }
    for (column, rooms) in columns_with_rooms(path) {
        for name in column {
            look_for(Name::Crate(name), &|name| {
                format!("{name} outside {}: the table of the house", rooms.join(", "))
            });
        }
    }
    breaches
}

fn is_in(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| path.starts_with(place))
}

/// The cells of the table that confine a crate to rooms which `path` is not in.
fn columns_with_rooms(path: &str) -> Vec<(Vec<&'static str>, &'static [&'static str])> {
    let Some(row) = TABLE.iter().find(|row| path.starts_with(row.folder)) else {
        return Vec::new();
    };
    let inside = &path[row.folder.len()..];
    let confined = row.may.iter().filter_map(|may| match may {
        May::In(column, rooms) if !is_in(inside, rooms) => {
            let column = COLUMNS.iter().find(|known| known.name == *column)?;
            Some((column.packages.iter().filter_map(|name| identifier(name)).collect(), *rooms))
        }
        May::In(..) | May::Everywhere(_) => None,
    });
    confined.collect()
}

/// A package's name as source writes it. Those that only come along with another, and so
/// cannot be named in our source, have none: the name may be a module of ours.
fn identifier(package: &'static str) -> Option<&'static str> {
    match package {
        "kube-client" | "kube-core" => None,
        "k8s-openapi" => Some("k8s_openapi"),
        "tonic-prost" => Some("tonic_prost"),
        other => Some(other),
    }
}

/// The lines in which `name` is said.
fn says(tokens: &[Token], name: Name) -> Vec<usize> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let is_identifier = |text: &str| text.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    let matches = |at: usize| match name {
        Name::Path(path) => {
            let parts = path.split("::").flat_map(|part| ["::", part]).skip(1);
            parts.enumerate().all(|(offset, part)| text(at + offset) == part)
        }
        Name::Crate(wanted) => {
            // `::kube` is the crate again, `crate::kube` and `self.kube` are not.
            let before = at.checked_sub(1).map_or("", text);
            let further = at.checked_sub(2).map_or("", text);
            let is_root = match before {
                "." => false,
                "::" => !is_identifier(further) && further != ">",
                _ => true,
            };
            let is_path = text(at + 1) == "::" || before == "use" || before == "crate";
            text(at) == wanted && is_root && is_path
        }
    };
    (0..tokens.len()).filter(|at| matches(*at)).map(|at| tokens[at].line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(path: &str, text: &str) -> Vec<String> {
        check(path, text).into_iter().map(|breach| breach.place).collect()
    }

    #[test]
    fn a_confined_crate_is_found_outside_its_room() {
        let source = "use kube::Api;\nfn f() { k8s_openapi::api::x(); ::kube::y() }\n";
        let lines: [&str; 3] = [":1", ":2", ":2"];
        for folder in ["node-agent", "crates/control", "crates/lab"] {
            let path = format!("{folder}/src/app.rs");
            let mut found = places(&path, source);
            found.sort();
            assert_eq!(found, lines.map(|line| format!("{path}{line}")));
        }
        assert_eq!(places("node-agent/src/kube/watch.rs", source), [""; 0]);
        assert_eq!(places("crates/control/src/kube.rs", source), [""; 0]);
    }

    #[test]
    fn what_only_looks_like_a_crate_is_left_alone() {
        for source in [
            "use crate::kube::watch;",
            "use super::kube::watch;",
            "mod kube;",
            "self.kube.watch();",
            "// kube::Api\nlet x = \"kube::Api\";",
            "use kube_api::server;",
            "pub use kube_client::Client;",
            "fn f(kube: &str) {}",
        ] {
            assert_eq!(places("node-agent/src/app.rs", source), [""; 0], "{source}");
        }
    }

    #[test]
    fn every_room_is_watched() {
        for (path, source) in [
            ("ztunnel/src/proxy/outbound.rs", "use h2::client;"),
            ("ztunnel/src/proxy/outbound.rs", "use tonic::Code;"),
            ("ztunnel/src/app.rs", "tonic_prost::x();"),
            ("node-agent/src/kube/mod.rs", "use tonic::Code;"),
            ("crates/zds/src/message.rs", "use tokio::io;"),
            ("crates/zds/src/wire.rs", "use tokio_seqpacket::UnixSeqpacket;"),
            ("crates/lab/src/net/links.rs", "nix::sched::setns(fd, flags)?;"),
            ("node-agent/src/app.rs", "use rtnetlink::Handle;"),
            ("node-agent/src/app.rs", "use nftables::schema;"),
            ("node-agent/src/enrollment.rs", "let now = Instant::now();"),
            ("node-agent/src/reconcile/plan.rs", "use std::fs;"),
            ("ztunnel/src/route.rs", "fn f(s: TcpStream) {}"),
            ("crates/capture/src/model.rs", "use nix::x;"),
        ] {
            assert_eq!(places(path, source), [format!("{path}:1")], "{source}");
        }
        assert_eq!(places("ztunnel/src/hbone/pool.rs", "use h2::client;"), [""; 0]);
        assert_eq!(places("node-agent/src/pod_netns/runtime/mod.rs", "use tonic::x;"), [""; 0]);
        assert_eq!(places("crates/zds/src/link.rs", "use tokio_seqpacket::x;"), [""; 0]);
        assert_eq!(places("crates/netns/src/fence.rs", "use nix::sched::setns;"), [""; 0]);
    }

    #[test]
    fn tests_are_free() {
        let inline = "fn f() {}\n#[cfg(test)]\nmod tests {\n    use tokio::io;\n}\n";
        assert_eq!(places("crates/zds/src/message.rs", inline), [""; 0]);
        for path in [
            "crates/zds/src/message/tests.rs",
            "crates/zds/tests/link.rs",
            "crates/zds/src/testing/link.rs",
            "crates/zds/src/link_tests.rs",
        ] {
            assert_eq!(places(path, "use tokio::io;"), [""; 0]);
        }
        let elsewhere = "#[cfg(test)]\nmod tests;\nuse tokio::io;\n";
        assert_eq!(places("crates/zds/src/lib.rs", elsewhere), ["crates/zds/src/lib.rs:3"]);
    }

    #[test]
    fn long_files_are_found_by_their_code_alone() {
        let code = "fn f() {}\n".repeat(LONGEST_FILE);
        let tests = format!("{code}#[cfg(test)]\nmod tests {{\n{code}}}\n");
        assert_eq!(places("ztunnel/src/app.rs", &tests), [""; 0]);
        assert_eq!(places("ztunnel/src/app.rs", &format!("{code}fn g() {{}}\n")).len(), 1);
        assert_eq!(places("ztunnel/src/app/tests.rs", &code.repeat(2)), [""; 0]);
    }

    #[test]
    fn unfinished_work_is_found_in_every_file() {
        for path in ["ztunnel/src/app.rs", "crates/x/tests/y.rs", "README.md", "scripts/demo"] {
            for word in UNFINISHED {
                let text = format!("fine\n# {word}: later\n");
                assert_eq!(places(path, &text), [format!("{path}:2")]);
            }
        }
        assert_eq!(places("README.md", "a TODOS list"), [""; 0]);
    }

    #[test]
    fn our_files_are_known_by_their_names() {
        for (path, expected) in [
            ("ztunnel/src/app.rs", true),
            ("scripts/demo", true),
            (".ci/run", true),
            ("LICENSE", false),
            ("Cargo.lock", false),
            ("docs/picture.png", false),
        ] {
            assert_eq!(is_ours(Path::new(path)), expected, "{path}");
        }
    }
}
