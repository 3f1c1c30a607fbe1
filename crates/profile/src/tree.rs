//! Spans added up: one node for all that have the same name in the same place.

use std::fmt;
use std::time::Duration;

/// The name of a span, such as `vae/decode` or `unet/down_blocks.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) text: &'static str,
    pub(crate) number: Option<u64>,
}

impl Name {
    /// The part before the first slash.
    pub(crate) fn area(&self) -> &'static str {
        self.text.split('/').next().unwrap_or(self.text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            Some(number) => write!(f, "{}.{number}", self.text),
            None => f.write_str(self.text),
        }
    }
}

/// The spans of a thread, or of several of one name.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    roots: Vec<usize>,
}

/// All spans of a name below the same parents.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: Name,
    pub(crate) calls: u64,
    pub(crate) total: Duration,
    /// In the order in which they came first.
    children: Vec<usize>,
}

impl Tree {
    /// The node of `name` below `parent`, or at the top; created if missing.
    pub(crate) fn child(&mut self, parent: Option<usize>, name: Name) -> usize {
        // There are as many as one function has parts.
        if let Some(&known) = self.children(parent).iter().find(|&&child| self.nodes[child].name == name) {
            return known;
        }
        let new = self.nodes.len();
        self.nodes.push(Node { name, calls: 0, total: Duration::ZERO, children: Vec::new() });
        match parent {
            Some(parent) => self.nodes[parent].children.push(new),
            None => self.roots.push(new),
        }
        new
    }

    /// Counts a span of a node.
    pub(crate) fn add(&mut self, node: usize, duration: Duration) {
        self.nodes[node].calls += 1;
        self.nodes[node].total += duration;
    }

    pub(crate) fn node(&self, node: usize) -> &Node {
        &self.nodes[node]
    }

    /// The nodes below `parent`, or at the top.
    pub(crate) fn children(&self, parent: Option<usize>) -> &[usize] {
        parent.map_or(&self.roots, |parent| &self.nodes[parent].children)
    }

    /// The time of all nodes below `parent`, or at the top.
    pub(crate) fn covered(&self, parent: Option<usize>) -> Duration {
        self.children(parent).iter().map(|&child| self.nodes[child].total).sum()
    }

    /// A node's time without that of the nodes below it.
    pub(crate) fn own(&self, node: usize) -> Duration {
        self.nodes[node].total.saturating_sub(self.covered(Some(node)))
    }
}
