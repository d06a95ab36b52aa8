//! PURE. Whether this node can carry what Sluice puts on it, and carries it.

use super::facts::{Facts, NodeFacts};
use super::finding::Finding;
use crate::install::PLUGIN;

/// Everything about the node, or why it was not looked at.
pub(super) fn detect(facts: &Facts) -> Vec<Finding> {
    let node = match &facts.node {
        Ok(node) => node,
        Err(why) => return vec![Finding::unknown("node", why)],
    };
    vec![rules(node), entry(node), writable(node), program(node), agent(node)]
}

/// The agent answers here: then what it should have done counts.
fn acts(node: &NodeFacts) -> bool {
    node.agent.is_ok()
}

fn rules(node: &NodeFacts) -> Finding {
    const ID: &str = "node-rules";
    match &node.rules {
        Ok(Ok(())) => Finding::fine(ID, format!("{}: the kernel takes a pod's rules", node.name)),
        Ok(Err(error)) => Finding::problem(
            ID,
            format!("{}: a pod's rules cannot be written: {error}", node.name),
            "nft 1.0 or later in PATH (NFT), and nf_tables, nft_nat, nft_redir, nft_ct and inet \
             tables in the kernel",
        ),
        Err(why) => Finding::unknown(ID, why),
    }
}

fn entry(node: &NodeFacts) -> Finding {
    const ID: &str = "node-conflist";
    let NodeFacts { name, conf_dir, .. } = node;
    let (file, plugins) = match &node.conf {
        Ok(Some(conf)) => conf,
        Ok(None) => {
            let change =
                "a primary plugin, or CNI_CONF_DIR where the runtime's folder is elsewhere";
            let text = format!("{name}: no usable network configuration in {conf_dir}");
            return Finding::problem(ID, text, change);
        }
        Err(why) => return Finding::unknown(ID, why),
    };
    let list = plugins.join(", ");
    let text = format!("{name}: the runtime takes {file} of {conf_dir}, with {list}");
    if plugins.iter().any(|plugin| plugin == PLUGIN) {
        return Finding::fine(ID, text);
    }
    let (text, change) =
        (format!("{text}, without {PLUGIN}"), "INSTALL_CNI=own (chart: nodeAgent.installCni)");
    if acts(node) { Finding::problem(ID, text, change) } else { Finding::warning(ID, text, change) }
}

fn writable(node: &NodeFacts) -> Finding {
    const ID: &str = "node-conf-dir";
    match &node.conf_writable {
        Ok(()) => Finding::fine(ID, format!("{}: {} can be written", node.name, node.conf_dir)),
        Err(why) => Finding::problem(
            ID,
            format!("{}: {} cannot be written from here: {why}", node.name, node.conf_dir),
            "CNI_CONF_DIR (chart: nodeAgent.cni.confDir), mounted writable",
        ),
    }
}

fn program(node: &NodeFacts) -> Finding {
    const ID: &str = "node-plugin";
    match &node.program {
        Ok(path) => Finding::fine(ID, format!("{}: plugin {path} can be executed", node.name)),
        Err(why) => {
            let text = format!("{}: {why}", node.name);
            let change = "CNI_PLUGIN and CNI_BIN_DIR (chart: nodeAgent.cni.binDir)";
            if acts(node) {
                Finding::problem(ID, text, change)
            } else {
                Finding::warning(ID, text, change)
            }
        }
    }
}

fn agent(node: &NodeFacts) -> Finding {
    const ID: &str = "node-agent";
    let name = &node.name;
    match &node.agent {
        Ok((200, page)) => match remarks(page) {
            remarks if remarks.is_empty() => {
                Finding::fine(ID, format!("{name}: the agent is ready, and a ztunnel is connected"))
            }
            remarks => Finding::warning(
                ID,
                format!("{name}: the agent is ready, but says: {remarks}"),
                "see /readyz and the log of the agent",
            ),
        },
        Ok((_, page)) => Finding::problem(
            ID,
            format!("{name}: the agent is not ready: {}", remarks(page)),
            "see the logs of the agent and of ztunnel on this node",
        ),
        Err(why) => Finding::unknown(ID, format!("the agent of {name} does not answer: {why}")),
    }
}

fn remarks(page: &str) -> String {
    let lines = page.lines().map(str::trim).filter(|line| !line.is_empty() && *line != "ok");
    lines.collect::<Vec<_>>().join("; ")
}
