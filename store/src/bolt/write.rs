//! Writing a file as a stream.
//!
//! The first pages say how many there are, which is not known before all are written. So the same records are
//! written twice: once to count, and once for real.

use std::ops::ControlFlow;

use super::{
    BRANCH, ELEMENT_BYTES, FREE_LIST, HEAD_BYTES, IS_BUCKET, LEAF, MAGIC, META, META_BYTES, PAGE_BYTES,
    VERSION, checksum,
};

/// A leaf is ended when it has reached this size; larger leaves waste less behind values of some KiB.
const LEAF_BYTES: usize = 4 * PAGE_BYTES;

/// Pages before the first bucket: two metas and the free list.
const FIRST_PAGES: u64 = 3;

/// Is given the bytes of the file, in order.
pub type Sink<'s> = dyn FnMut(&[u8]) -> ControlFlow<()> + 's;

/// A file being written. Buckets come in the order of their names, records in that of their keys.
pub struct Writer<'s> {
    sink: Option<&'s mut Sink<'s>>,
    stopped: bool,
    next_page: u64,
    leaf: Leaf,
    /// First key and number of the pages one level up from those being written.
    children: Vec<(Vec<u8>, u64)>,
    /// Names and root pages of the buckets that are complete.
    buckets: Vec<(Vec<u8>, u64)>,
}

/// Elements of a leaf: flags and the lengths of key and value, and the bytes of both.
#[derive(Default)]
struct Leaf {
    elements: Vec<(u32, usize, usize)>,
    data: Vec<u8>,
}

impl Leaf {
    fn add(&mut self, flags: u32, key: &[u8], value: &[u8]) {
        self.elements.push((flags, key.len(), value.len()));
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
    }

    fn bytes(&self) -> usize {
        HEAD_BYTES + self.elements.len() * ELEMENT_BYTES + self.data.len()
    }

    fn first_key(&self) -> Vec<u8> {
        let length = self.elements.first().map_or(0, |(_, key, _)| *key);
        self.data[..length].to_vec()
    }
}

fn put32(page: &mut Vec<u8>, number: usize) {
    page.extend_from_slice(&(number as u32).to_le_bytes());
}

/// The page's head. How many pages it goes on over is known from its length.
fn head(number: u64, kind: u16, count: usize, bytes: usize) -> Vec<u8> {
    let more = bytes.div_ceil(PAGE_BYTES) - 1;
    let mut page = Vec::with_capacity((more + 1) * PAGE_BYTES);
    page.extend_from_slice(&number.to_le_bytes());
    page.extend_from_slice(&kind.to_le_bytes());
    page.extend_from_slice(&(count as u16).to_le_bytes());
    put32(&mut page, more);
    page
}

impl<'s> Writer<'s> {
    /// Counts the pages that `fill` writes.
    ///
    /// # Errors
    /// What `fill` returns.
    pub fn count<E>(fill: impl FnOnce(&mut Writer<'_>) -> Result<(), E>) -> Result<u64, E> {
        let mut writer = Writer::new(None);
        fill(&mut writer)?;
        writer.root();
        Ok(writer.next_page)
    }

    /// Writes the file that `fill` fills, which has so many `pages` as were counted. `false`: the sink broke off, or
    /// `fill` wrote something else than was counted.
    ///
    /// # Errors
    /// What `fill` returns.
    pub fn write<E>(
        pages: u64,
        sink: &'s mut Sink<'s>,
        fill: impl FnOnce(&mut Writer<'s>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let mut writer = Writer::new(Some(sink));
        // The root's leaf is the last page.
        for transaction in 0..2 {
            writer.page(meta(transaction, pages));
        }
        writer.page(head(2, FREE_LIST, 0, HEAD_BYTES));
        fill(&mut writer)?;
        writer.root();
        Ok(!writer.stopped && writer.next_page == pages)
    }

    fn new(sink: Option<&'s mut Sink<'s>>) -> Self {
        Self {
            sink,
            stopped: false,
            next_page: FIRST_PAGES,
            leaf: Leaf::default(),
            children: Vec::new(),
            buckets: Vec::new(),
        }
    }

    /// Whether nobody wants the rest.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Adds a record to the bucket.
    pub fn record(&mut self, key: &[u8], value: &[u8]) {
        let more = ELEMENT_BYTES + key.len() + value.len();
        if !self.leaf.elements.is_empty() && self.leaf.bytes() + more > LEAF_BYTES {
            self.end_leaf();
        }
        self.leaf.add(0, key, value);
    }

    /// The records so far are those of the bucket `name`.
    pub fn end_bucket(&mut self, name: &str) {
        self.end_leaf();
        let mut level = std::mem::take(&mut self.children);
        while level.len() > 1 {
            level = self.branches(&level);
        }
        if let Some((_, root)) = level.pop() {
            self.buckets.push((name.into(), root));
        }
    }

    fn end_leaf(&mut self) {
        let leaf = std::mem::take(&mut self.leaf);
        let number = self.next_page;
        self.children.push((leaf.first_key(), number));
        self.leaf_page(&leaf);
    }

    fn leaf_page(&mut self, leaf: &Leaf) {
        let mut page = head(self.next_page, LEAF, leaf.elements.len(), leaf.bytes());
        let mut at = HEAD_BYTES;
        let mut data = HEAD_BYTES + leaf.elements.len() * ELEMENT_BYTES;
        for (flags, key, value) in &leaf.elements {
            page.extend_from_slice(&flags.to_le_bytes());
            put32(&mut page, data - at);
            put32(&mut page, *key);
            put32(&mut page, *value);
            at += ELEMENT_BYTES;
            data += key + value;
        }
        page.extend_from_slice(&leaf.data);
        self.next_page += leaf.bytes().div_ceil(PAGE_BYTES) as u64;
        self.page(page);
    }

    /// Writes the branches over a level of pages, and returns them.
    fn branches(&mut self, level: &[(Vec<u8>, u64)]) -> Vec<(Vec<u8>, u64)> {
        let mut above = Vec::new();
        let mut rest = level;
        while let Some((first, _)) = rest.first() {
            let mut bytes = HEAD_BYTES;
            let fit = rest
                .iter()
                .take_while(|(key, _)| {
                    bytes += ELEMENT_BYTES + key.len();
                    bytes <= PAGE_BYTES
                })
                .count();
            // With one child a page, no level would be smaller than the one below it.
            let (here, others) = rest.split_at(fit.max(2).min(rest.len()));
            let bytes = HEAD_BYTES
                + here
                    .iter()
                    .map(|(key, _)| ELEMENT_BYTES + key.len())
                    .sum::<usize>();
            let mut page = head(self.next_page, BRANCH, here.len(), bytes);
            let mut at = HEAD_BYTES;
            let mut data = HEAD_BYTES + here.len() * ELEMENT_BYTES;
            for (key, child) in here {
                put32(&mut page, data - at);
                put32(&mut page, key.len());
                page.extend_from_slice(&child.to_le_bytes());
                at += ELEMENT_BYTES;
                data += key.len();
            }
            for (key, _) in here {
                page.extend_from_slice(key);
            }
            above.push((first.clone(), self.next_page));
            self.next_page += bytes.div_ceil(PAGE_BYTES) as u64;
            self.page(page);
            rest = others;
        }
        above
    }

    /// The bucket of buckets: one leaf.
    fn root(&mut self) {
        let mut leaf = Leaf::default();
        for (name, root) in &self.buckets {
            let mut bucket = root.to_le_bytes().to_vec();
            bucket.extend_from_slice(&[0; 8]);
            leaf.add(IS_BUCKET, name, &bucket);
        }
        self.leaf_page(&leaf);
    }

    fn page(&mut self, mut page: Vec<u8>) {
        let Some(sink) = &mut self.sink else {
            return;
        };
        if !self.stopped {
            page.resize(page.len().next_multiple_of(PAGE_BYTES), 0);
            self.stopped = sink(&page).is_break();
        }
    }
}

/// One of the two first pages. The root is the last page: few buckets fit into one.
fn meta(transaction: u64, pages: u64) -> Vec<u8> {
    let mut page = head(transaction, META, 0, HEAD_BYTES);
    put32(&mut page, MAGIC as usize);
    put32(&mut page, VERSION as usize);
    put32(&mut page, PAGE_BYTES);
    put32(&mut page, 0);
    let root = pages.saturating_sub(1);
    for number in [root, 0, 2, pages, transaction] {
        page.extend_from_slice(&number.to_le_bytes());
    }
    let sum = checksum(&page[HEAD_BYTES..HEAD_BYTES + META_BYTES]);
    page.extend_from_slice(&sum.to_le_bytes());
    page
}
