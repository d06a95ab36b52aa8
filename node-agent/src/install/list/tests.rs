use super::*;

const ENTRY: &str = r#"{"type":"sluice-cni","agentSocket":"/x"}"#;

fn list(text: &str) -> List<'_> {
    List::parse(Shape::List, text).unwrap()
}

#[test]
fn our_entry_comes_last_and_nothing_else_changes() {
    let before = r#"{
  "name": "n", "x-unknown": [1e3, 12345678901234567890, 0.10, "\u00e9"],
  "cniVersion": "0.3.1",
  "plugins": [
    {"type": "calico", "mtu": 1e3,
     "big": 12345678901234567890},
    {"type": "portmap","capabilities":{"portMappings":true}}
  ],
  "disableCheck": true
}
"#;
    let after = before.replace("true}}\n  ]", &format!("true}}}},\n    {ENTRY}\n  ]"));
    assert_eq!(list(before).with(ENTRY), after);
    assert_eq!(list(&after).with(ENTRY), after, "twice is once");
    assert_eq!(list(&after).without(), before, "and it can be taken out again");
    assert_eq!(list(before).without(), before);
}

#[test]
fn a_list_in_one_line_stays_one() {
    let before = r#"{"name":"n","cniVersion":"1.0.0","plugins":[{"type":"a"},{"type":"b"}]}"#;
    let after = list(before).with(ENTRY);
    assert_eq!(after, before.replace("\"b\"}]", &format!("\"b\"}}, {ENTRY}]")));
    assert_eq!(list(&after).without(), before);
}

#[test]
fn entries_of_ours_that_stand_elsewhere_go() {
    let cases = [
        r#"[{"type":"sluice-cni"},{"type":"a"},{"type":"b"}]"#,
        r#"[{"type":"a"},{"type":"sluice-cni","old":1},{"type":"b"}]"#,
        r#"[{"type":"a"},{"type":"sluice-cni"},{"type":"b"},{"type":"sluice-cni"}]"#,
        r#"[{"type":"a"},{"type":"b"},{"type":"sluice-cni","agentSocket":"/old"}]"#,
    ];
    for plugins in cases {
        let text = format!(r#"{{"name":"n","cniVersion":"1.0.0","plugins":{plugins}}}"#);
        let after = list(&text).with(ENTRY);
        assert_eq!(list(&after).kinds().collect::<Vec<_>>(), ["a", "b", "sluice-cni"], "{plugins}");
        assert!(after.contains(ENTRY));
        let without = list(&text).without();
        assert_eq!(list(&without).kinds().collect::<Vec<_>>(), ["a", "b"], "{plugins}");
    }
}

#[test]
fn a_single_plugin_becomes_a_list_of_its_name_and_version() {
    let text = "{\"cniVersion\":\"0.3.1\", \"name\":\"mynet\",\"type\":\"bridge\", \"mtu\": 1e3}\n";
    let single = List::parse(Shape::Single, text).unwrap();
    let made = single.with(ENTRY);
    let value: serde_json::Value = serde_json::from_str(&made).unwrap();
    assert_eq!((&value["name"], &value["cniVersion"]), (&"mynet".into(), &"0.3.1".into()));
    assert!(made.contains(text.trim()), "as it is: {made}");
    assert_eq!(list(&made).kinds().collect::<Vec<_>>(), ["bridge", "sluice-cni"]);
}

#[test]
fn what_no_runtime_can_use_is_named() {
    let cases = [
        (Shape::List, "", "no JSON object"),
        (Shape::List, "{", "no JSON object"),
        (Shape::List, "[]", "no JSON object"),
        (Shape::List, "{} {}", "no JSON object"),
        (Shape::List, r#"{"plugins":[{"type":"a"}]}"#, "no name"),
        (Shape::List, r#"{"name":"../x","plugins":[{"type":"a"}]}"#, "name is \"../x\""),
        (Shape::List, r#"{"name":7,"plugins":[{"type":"a"}]}"#, "name is 7"),
        (Shape::List, r#"{"name":"n"}"#, "no plugins"),
        (Shape::List, r#"{"name":"n","type":"a"}"#, "no plugins"),
        (Shape::List, r#"{"name":"n","plugins":{}}"#, "no list"),
        (Shape::List, r#"{"name":"n","plugins":[]}"#, "empty"),
        (Shape::List, r#"{"name":"n","plugins":[{"type":"a"},7]}"#, "no type"),
        (Shape::List, r#"{"name":"n","plugins":[{"type":""}]}"#, "no type"),
        (Shape::List, r#"{"name":"n","plugins":[{"type":"../a"}]}"#, "no type"),
        (Shape::Single, r#"{"name":"n"}"#, "no type"),
        (Shape::Single, r#"{"name":"n","plugins":[{"type":"a"}]}"#, "only a *.conflist"),
    ];
    for (shape, text, part) in cases {
        let problem = List::parse(shape, text).unwrap_err();
        assert!(problem.contains(part), "{text}: {problem}");
    }
}

#[test]
fn a_version_that_our_plugin_does_not_speak_is_told() {
    let cases = [
        (r#""cniVersion":"1.1.0","#, None),
        (r#""cniVersion":"0.3.1","#, None),
        (r#""cniVersion":"0.2.0","#, Some("0.2.0")),
        (r#""cniVersion":"9.0.0","#, Some("9.0.0")),
        ("", Some("0.1.0")),
        (r#""cniVersion":"0.1.0","cniVersions":["0.1.0","1.0.0"],"#, None),
    ];
    for (version, expected) in cases {
        let text = format!(r#"{{{version}"name":"n","plugins":[{{"type":"a"}}]}}"#);
        assert_eq!(list(&text).unspoken(), expected, "{text}");
    }
}

#[test]
fn files_are_told_by_the_end_of_their_names() {
    let cases = [
        ("10-a.conflist", Some(Shape::List)),
        ("10-a.conf", Some(Shape::Single)),
        ("a.json", Some(Shape::Single)),
        (".hidden.conf", Some(Shape::Single)),
        ("10-a.conf.bak", None),
        ("10-a.conflist.cilium_bak", None),
        (".00-sluice.conflist.sluice-new", None),
        ("conf", None),
        ("", None),
    ];
    for (name, expected) in cases {
        assert_eq!(Shape::of(name), expected, "{name}");
    }
}
