//! Reading a file. Nothing in it is believed: every place is checked, and no tree is followed for longer than the
//! file has pages.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::{BRANCH, ELEMENT_BYTES, HEAD_BYTES, IS_BUCKET, LEAF, MAGIC, META, META_BYTES, VERSION, checksum};

/// Deeper than any tree of pages can be.
const MAX_DEPTH: usize = 64;
/// No page of a database with values of some MiB is larger.
const MAX_PAGE_BYTES: u64 = 1 << 30;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is no database.
    #[error("this is not a database of etcd")]
    Foreign,
    /// It does not hold together.
    #[error("the database is damaged: {0}")]
    Damaged(&'static str),
    /// The taker of records refused one.
    #[error("{0}")]
    Refused(String),
}

/// Is given a key and its value.
pub type Taker<'t> = dyn FnMut(&[u8], &[u8]) -> Result<(), ReadError> + 't;

/// Is given an element's flags, key and value.
type ElementTaker<'t> = dyn FnMut(u32, &[u8], &[u8]) -> Result<(), ReadError> + 't;

/// An open file.
pub struct Reader<'f> {
    file: &'f File,
    bytes: u64,
    page_bytes: u64,
    pages: u64,
    root: u64,
}

/// A page and what it goes on over, or a bucket that is within a value.
struct Page {
    bytes: Vec<u8>,
}

fn number16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn number32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn number64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Page size, root, pages and transaction of a meta, if it is whole.
fn meta(page: &[u8]) -> Option<(u32, u64, u64, u64)> {
    let body = page.get(HEAD_BYTES..HEAD_BYTES + META_BYTES + 8)?;
    let whole = number16(page, 8)? == META
        && number32(body, 0)? == MAGIC
        && number32(body, 4)? == VERSION
        && number64(body, META_BYTES)? == checksum(&body[..META_BYTES]);
    let meta = (
        number32(body, 8)?,
        number64(body, 16)?,
        number64(body, 40)?,
        number64(body, 48)?,
    );
    whole.then_some(meta)
}

impl<'f> Reader<'f> {
    /// Opens the first `bytes` of a file.
    ///
    /// # Errors
    /// When they are not a database.
    pub fn open(file: &'f File, bytes: u64) -> Result<Self, ReadError> {
        // Where the second meta is depends on the page size, which the first one knows if it is whole.
        let mut found: Option<(u32, u64, u64, u64)> = None;
        for place in std::iter::once(0).chain((9..=16).map(|power| 1_u64 << power)) {
            let mut page = [0; HEAD_BYTES + META_BYTES + 8];
            if place + page.len() as u64 > bytes {
                break;
            }
            file.read_exact_at(&mut page, place)?;
            let Some(meta) = meta(&page) else {
                continue;
            };
            if (place == 0 || place == u64::from(meta.0)) && found.is_none_or(|other| other.3 < meta.3) {
                found = Some(meta);
            }
        }
        let (page_bytes, root, pages, _) = found.ok_or(ReadError::Foreign)?;
        if page_bytes < 512 {
            return Err(ReadError::Foreign);
        }
        Ok(Self {
            file,
            bytes,
            page_bytes: page_bytes.into(),
            pages,
            root,
        })
    }

    /// Visits the records of a bucket in order. `false`: there is no such bucket.
    ///
    /// # Errors
    /// When the file is damaged, or the taker refuses a record.
    pub fn bucket(&self, name: &str, take: &mut Taker<'_>) -> Result<bool, ReadError> {
        let mut found = None;
        let mut budget = self.pages;
        let root = self.page(self.root)?;
        self.walk(&root, 0, &mut budget, &mut |flags, key, value| {
            if flags & IS_BUCKET != 0 && key == name.as_bytes() {
                found = Some(value.to_vec());
            }
            Ok(())
        })?;
        let Some(bucket) = found else {
            return Ok(false);
        };
        let root = match number64(&bucket, 0) {
            Some(0) => Page {
                bytes: bucket.get(16..).unwrap_or_default().to_vec(),
            },
            Some(root) => self.page(root)?,
            None => return Err(ReadError::Damaged("a bucket without a root")),
        };
        let mut budget = self.pages;
        self.walk(&root, 0, &mut budget, &mut |_, key, value| take(key, value))?;
        Ok(true)
    }

    fn page(&self, number: u64) -> Result<Page, ReadError> {
        const OUTSIDE: ReadError = ReadError::Damaged("a page outside the file");
        let start = number.checked_mul(self.page_bytes).ok_or(OUTSIDE)?;
        let mut head = [0; HEAD_BYTES];
        if number >= self.pages
            || start
                .checked_add(self.page_bytes)
                .is_none_or(|end| end > self.bytes)
        {
            return Err(OUTSIDE);
        }
        self.file.read_exact_at(&mut head, start)?;
        let more = number32(&head, 12).unwrap_or(0);
        let bytes = (u64::from(more) + 1) * self.page_bytes;
        if bytes > MAX_PAGE_BYTES || start + bytes > self.bytes {
            return Err(OUTSIDE);
        }
        let mut page = vec![0; bytes as usize];
        self.file.read_exact_at(&mut page, start)?;
        if number64(&page, 0) != Some(number) {
            return Err(ReadError::Damaged("a page is not where it should be"));
        }
        Ok(Page { bytes: page })
    }

    fn walk(
        &self,
        page: &Page,
        depth: usize,
        budget: &mut u64,
        take: &mut ElementTaker<'_>,
    ) -> Result<(), ReadError> {
        let Some(left) = budget.checked_sub(1).filter(|_| depth < MAX_DEPTH) else {
            return Err(ReadError::Damaged("a tree without an end"));
        };
        *budget = left;
        let bytes = page.bytes.as_slice();
        let (Some(kind), Some(count)) = (number16(bytes, 8), number16(bytes, 10)) else {
            return Err(ReadError::Damaged("a page without a head"));
        };
        for element in 0..usize::from(count) {
            let at = HEAD_BYTES + element * ELEMENT_BYTES;
            let within = match kind {
                BRANCH => {
                    let child = number64(bytes, at + 8).ok_or(ReadError::Damaged("a branch"))?;
                    self.walk(&self.page(child)?, depth + 1, budget, take)?;
                    continue;
                }
                LEAF => leaf_element(bytes, at),
                _ => return Err(ReadError::Damaged("a page that is neither branch nor leaf")),
            };
            let (flags, key, value) = within.ok_or(ReadError::Damaged("a leaf"))?;
            take(flags, &bytes[key], &bytes[value])?;
        }
        Ok(())
    }
}

/// Flags of a leaf's element, and where its key and value are.
fn leaf_element(bytes: &[u8], at: usize) -> Option<(u32, Range<usize>, Range<usize>)> {
    let start = at + number32(bytes, at + 4)? as usize;
    let key_end = start + number32(bytes, at + 8)? as usize;
    let end = key_end + number32(bytes, at + 12)? as usize;
    (end <= bytes.len()).then_some((number32(bytes, at)?, start..key_end, key_end..end))
}
