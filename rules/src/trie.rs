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
    pub(crate) names: Vec<Name>,
    by_hash: Option<hashbrown::HashMap<Box<[u8]>, u32>>,
    pub(crate) indices: Vec<(u32, u32)>,
    /// Slots that this value fills: more than one where different spellings name one place.
    pub(crate) slots: Vec<u32>,
    /// Slots of this node and of everything below it, to forget when a duplicate key comes.
    pub(crate) below: Vec<u32>,
}

/// A member's name and its node. Nearly all names differ from each other within eight bytes, so that comparing is two numbers.
#[derive(Debug)]
pub(crate) struct Name {
    head: u64,
    bytes: Box<[u8]>,
    node: u32,
}

/// The first eight bytes as a number, zeros behind shorter names.
fn head(name: &[u8]) -> u64 {
    name.iter().take(8).rev().fold(0, |head, byte| head << 8 | u64::from(*byte))
}

/// The same for the name at `start..end` of a payload: one load, where eight bytes are left.
#[inline(always)]
fn head_at(payload: &[u8], start: usize, end: usize) -> u64 {
    match payload.get(start..).and_then(<[u8]>::first_chunk::<8>) {
        Some(chunk) => {
            let word = u64::from_le_bytes(*chunk);
            match end - start {
                short @ 0..8 => word & ((1 << (8 * short)) - 1),
                _ => word,
            }
        }
        None => head(&payload[start..end]),
    }
}

impl Node {
    #[inline]
    pub(crate) fn named(&self, name: &[u8]) -> Option<u32> {
        self.named_at(name, 0, name.len())
    }

    /// The node of the name that stands at `start..end` of a payload.
    #[inline]
    pub(crate) fn named_at(&self, payload: &[u8], start: usize, end: usize) -> Option<u32> {
        let name = &payload[start..end];
        match &self.by_hash {
            Some(map) => map.get(name).copied(),
            None => {
                let head = head_at(payload, start, end);
                let same = |candidate: &&Name| {
                    candidate.head == head
                        && candidate.bytes.len() == name.len()
                        && (name.len() <= 8 || candidate.bytes[8..] == name[8..])
                };
                self.names.iter().find(same).map(|candidate| candidate.node)
            }
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
    pub fn slot(&mut self, path: &[Step]) -> u32 {
        match self.paths.get_index_of(path) {
            Some(index) => index as u32,
            None => self.paths.insert_full(path.to_vec()).0 as u32,
        }
    }

    pub fn build(self) -> Trie {
        let mut nodes = vec![Node::default()];
        for (slot, path) in self.paths.iter().enumerate() {
            insert(&mut nodes, 0, path, slot as u32);
        }
        for node in &mut nodes {
            if node.names.len() > LINEAR {
                node.by_hash = Some(node.names.iter().map(|name| (name.bytes.clone(), name.node)).collect());
            }
        }
        Trie { nodes, slots: self.paths.len() }
    }
}

fn insert(nodes: &mut Vec<Node>, at: u32, path: &[Step], slot: u32) {
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
                let bytes = name.as_bytes();
                nodes[at as usize].names.push(Name { head: head(bytes), bytes: bytes.into(), node: child });
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
