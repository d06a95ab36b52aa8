//! Names as clients ask for them, and which hostnames they may mean. Pure.

/// A name from the wire as text, in lower case and without the final dot. `None` for what
/// no host is called: the root, bytes that are no text, dots inside a label.
pub(super) fn host(mut name: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(name.len());
    while let Some((length, rest)) = name.split_first() {
        let (label, rest) = rest.split_at_checked(usize::from(*length))?;
        if label.is_empty() {
            break;
        }
        if !label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.') {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
        name = rest;
    }
    (!text.is_empty()).then_some(text)
}

/// Text for the wire. `None` when a label is empty or longer than 63, or the whole longer
/// than 255.
pub(super) fn encode(host: &str) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(host.len() + 2);
    for label in host.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        name.push(length);
        name.extend(label.as_bytes());
    }
    name.push(0);
    (name.len() <= 255).then_some(name)
}

/// A hostname that a question may mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alias {
    /// The hostname.
    pub(super) host: String,
    /// How it came about.
    pub(super) by: Derivation,
}

/// How an [`Alias`] was made of the name that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Derivation {
    /// It is that name, or one that the cluster's own forms complete it to.
    Asked,
    /// The client's resolver had appended a search domain, which is taken off again. The
    /// answer says so with a CNAME, or the client would believe in a name that nobody
    /// else knows.
    SearchStripped,
}

/// All hostnames that `asked` may mean to a client in `namespace`, the likeliest first: the
/// name itself, the cluster's forms of it, and both again without the search domain that
/// the kubelet gives to every pod.
pub(super) fn aliases(asked: &str, namespace: &str, domain: &str) -> Vec<Alias> {
    let mut found = Vec::with_capacity(8);
    let mut add = |host: String, by| {
        if found.iter().all(|alias: &Alias| alias.host != host) {
            found.push(Alias { host, by });
        }
    };
    let mut add_forms = |name: &str, by| {
        add(name.to_owned(), by);
        cluster_forms(name, namespace, domain).into_iter().for_each(|host| add(host, by));
    };
    add_forms(asked, Derivation::Asked);
    let search = [format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
    for search in search {
        let stripped = asked.strip_suffix(&*search).and_then(|rest| rest.strip_suffix('.'));
        if let Some(stripped) = stripped.filter(|rest| !rest.is_empty()) {
            add_forms(stripped, Derivation::SearchStripped);
        }
    }
    found
}

/// The full names of services, `service.namespace.svc.domain`, and of pods with a
/// subdomain, `host.subdomain.namespace.svc.domain`, that `name` can be the beginning of.
fn cluster_forms(name: &str, namespace: &str, domain: &str) -> Vec<String> {
    let in_namespace = || format!("{name}.{namespace}.svc.{domain}");
    let with_namespace = || format!("{name}.svc.{domain}");
    let with_svc = || name.ends_with(".svc").then(|| format!("{name}.{domain}"));
    match name.split('.').count() {
        1 => vec![in_namespace()],
        2 => vec![with_namespace(), in_namespace()],
        3 => with_svc().into_iter().chain([with_namespace()]).collect(),
        4 => with_svc().into_iter().collect(),
        _ => Vec::new(),
    }
}

/// The wildcards that cover `host`, the narrowest first: `*.b.c` and `*.c` for `a.b.c`.
pub(super) fn wildcards(host: &str) -> impl Iterator<Item = String> {
    host.match_indices('.').map(|(dot, _)| format!("*{}", &host[dot..]))
}
