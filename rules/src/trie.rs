//! All paths that the rules of one event want, as one tree, so that a payload is looked at once whatever their number.

use indexmap::IndexSet;

use crate::path::Step;

/// Above this many names a node is searched by hash instead of one by one.
const LINEAR: usize = 12;

#[derive(Debug)]
pub struct Trie {
    nodes: Vec<Node>,
    slots: usize,
}

#[derive(Debug, Default)]
pub struct Node {
    pub(crate) names: Vec<(Box<[u8]>, u32)>,
    by_hash: Option<hashbrown::HashMap<Box<[u8]>, u32>>,
    pub(crate) indices: Vec<(u32, u32)>,
    /// Slots that this value fills: more than one where different spellings name one place.
    pub(crate) slots: Vec<u16>,
    /// Slots of this node and of everything below it, to forget when a duplicate key comes.
    pub(crate) below: Vec<u16>,
}

impl Node {
    #[inline]
    pub(crate) fn named(&self, name: &[u8]) -> Option<u32> {
        match &self.by_hash {
            Some(map) => map.get(name).copied(),
            None => self.names.iter().find(|(candidate, _)| **candidate == *name).map(|(_, node)| *node),
        }
    }

    #[inline]
    pub(crate) fn indexed(&self, index: u32) -> Option<u32> {
        self.indices.iter().find(|(candidate, _)| *candidate == index).map(|(_, node)| *node)
    }
}

impl Trie {
    pub(crate) fn root(&self) -> &Node {
        &self.nodes[0]
    }

    #[inline]
    pub(crate) fn node(&self, index: u32) -> &Node {
        &self.nodes[index as usize]
    }

    /// How many slots a scan fills.
    pub fn slots(&self) -> usize {
        self.slots
    }
}

/// Collects paths; equal paths share a slot.
#[derive(Debug, Default)]
pub struct TrieBuilder {
    paths: IndexSet<Vec<Step>>,
}

impl TrieBuilder {
    /// The slot in which a scan leaves what stands at `path`.
    pub fn slot(&mut self, path: &[Step]) -> u16 {
        match self.paths.get_index_of(path) {
            Some(index) => index as u16,
            None => self.paths.insert_full(path.to_vec()).0 as u16,
        }
    }

    pub fn build(self) -> Trie {
        let mut nodes = vec![Node::default()];
        for (slot, path) in self.paths.iter().enumerate() {
            insert(&mut nodes, 0, path, slot as u16);
        }
        for node in &mut nodes {
            if node.names.len() > LINEAR {
                node.by_hash = Some(node.names.iter().cloned().collect());
            }
        }
        Trie { nodes, slots: self.paths.len() }
    }
}

fn insert(nodes: &mut Vec<Node>, at: u32, path: &[Step], slot: u16) {
    if !nodes[at as usize].below.contains(&slot) {
        nodes[at as usize].below.push(slot);
    }
    let Some((step, rest)) = path.split_first() else {
        nodes[at as usize].slots.push(slot);
        return;
    };
    let number;
    let (name, index) = match step {
        Step::Member(name) => (Some(name.as_str()), None),
        Step::Index(index) => (None, Some(*index)),
        Step::Either(index) => {
            number = index.to_string();
            (Some(number.as_str()), Some(*index))
        }
    };
    if let Some(name) = name {
        let child = match nodes[at as usize].named(name.as_bytes()) {
            Some(child) => child,
            None => {
                nodes.push(Node::default());
                let child = nodes.len() as u32 - 1;
                nodes[at as usize].names.push((name.as_bytes().into(), child));
                child
            }
        };
        insert(nodes, child, rest, slot);
    }
    if let Some(index) = index {
        let child = match nodes[at as usize].indexed(index) {
            Some(child) => child,
            None => {
                nodes.push(Node::default());
                let child = nodes.len() as u32 - 1;
                nodes[at as usize].indices.push((index, child));
                child
            }
        };
        insert(nodes, child, rest, slot);
    }
}
