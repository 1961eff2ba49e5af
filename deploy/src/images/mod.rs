//! Keelson's own container images, as OCI archives that any runtime imports.
//!
//! - [`oci`]: the archive: layout, manifest, configuration, one layer, all digests
//! - [`layer`]: a root file system as a tar
//! - [`recipes`]: what is in each image

pub mod layer;
pub mod oci;
pub mod recipes;

pub use recipes::{BuildError, build_all, names};

/// The registry part of our own images' names. It is no registry: they are never pulled.
pub const REGISTRY: &str = "keelson.local";

/// The sandbox image's full name.
pub const PAUSE: &str = "keelson.local/pause:1";

/// Whether these bytes are a program that needs no dynamic linker: an ELF file without an interpreter segment.
#[must_use]
pub fn is_static_elf(bytes: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let u16_at = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    // 64-bit little-endian: e_phoff at 0x20, e_phentsize at 0x36, e_phnum at 0x38 (System V ABI, ELF-64 object format)
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return false;
    }
    let (Some(offset), Some(size), Some(count)) = (u64_at(0x20), u16_at(0x36), u16_at(0x38)) else {
        return false;
    };
    (0..u64::from(count)).all(|index| {
        usize::try_from(offset + index * u64::from(size))
            .ok()
            .and_then(u32_at)
            .is_some_and(|kind| kind != PT_INTERP)
    })
}

#[cfg(test)]
mod tests {
    use super::is_static_elf;

    #[test]
    fn a_dynamic_program_is_told_from_other_files() {
        let shell = std::fs::read("/bin/sh").unwrap_or_default();
        assert!(!is_static_elf(&shell), "Debian's shell is linked dynamically");
        assert!(!is_static_elf(b"#!/bin/sh\n"));
        assert!(!is_static_elf(b""));
    }
}
