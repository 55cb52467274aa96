//! Finds fields of the running kernel's structures in its BTF.
//!
//! aya uses BTF for relocations and shows no members, and Rust has no relocations of its own: the
//! offsets go into the programs as constants. Format: kernel documentation, "BPF Type Format".

use std::{fs, io, path::Path};

/// The kernel's type information, as the kernel gives it.
pub struct Btf {
    types: Vec<u8>,
    strings: Vec<u8>,
    /// Where each type begins in `types`; type ids start at 1.
    starts: Vec<usize>,
}

const MAGIC: u16 = 0xeb9f;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_INT: u32 = 1;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;

impl Btf {
    /// Reads the BTF of the running kernel.
    pub fn of_kernel() -> io::Result<Self> {
        Self::read(Path::new("/sys/kernel/btf/vmlinux"))
    }

    fn read(path: &Path) -> io::Result<Self> {
        Self::parse(&fs::read(path)?).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "it is no BTF that wsmon knows")
        })
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        if u16::from_le_bytes(*bytes.first_chunk()?) != MAGIC {
            return None;
        }
        let header_len = word(bytes, 4)? as usize;
        let section = |at: usize| -> Option<Vec<u8>> {
            let start = header_len.checked_add(word(bytes, at)? as usize)?;
            let len = word(bytes, at + 4)? as usize;
            Some(bytes.get(start..start.checked_add(len)?)?.to_vec())
        };
        let (types, strings) = (section(8)?, section(16)?);
        let mut starts = vec![usize::MAX];
        let mut at = 0;
        while at < types.len() {
            starts.push(at);
            at += 12 + tail_len(word(&types, at + 4)?)?;
        }
        Some(Self {
            types,
            strings,
            starts,
        })
    }

    /// The offset of a field in bytes, looked for in anonymous members too; `a.b` is field `b` of
    /// member `a`. `None` if it is not there, or is a bit field.
    pub fn offset(&self, structure: &str, field: &str) -> Option<u32> {
        let (bits, size) = self.bits(structure, field)?;
        (size == 0 && bits % 8 == 0).then_some(bits / 8)
    }

    /// The byte that holds a bit field of one bit, and which bit of it that is.
    pub fn bit(&self, structure: &str, field: &str) -> Option<(u32, u32)> {
        let (bits, size) = self.bits(structure, field)?;
        (size == 1).then_some((bits / 8, 1 << (bits % 8)))
    }

    /// The offset of a field in bits, and its size in bits if it is a bit field, else 0.
    fn bits(&self, structure: &str, field: &str) -> Option<(u32, u32)> {
        (1..self.starts.len() as u32)
            .filter(|&id| self.kind(id) == Some(KIND_STRUCT) && self.name(id) == Some(structure))
            .find_map(|id| self.field(id, field, 0))
    }

    fn field(&self, id: u32, field: &str, depth: u32) -> Option<(u32, u32)> {
        let at = *self.starts.get(id as usize)?;
        let info = word(&self.types, at + 4)?;
        if depth > 8 || !matches!(kind(info), KIND_STRUCT | KIND_UNION) {
            return None;
        }
        for member in 0..(info & 0xffff) as usize {
            let at = at + 12 + member * 12;
            let bits = word(&self.types, at + 8)?;
            // With the flag, the upper byte is the size of a bit field.
            let (bit_size, bits) = if info >> 31 == 1 {
                (bits >> 24, bits & 0xff_ffff)
            } else {
                (0, bits)
            };
            let name = self.string(word(&self.types, at)?)?;
            if name == field {
                return Some((bits, bit_size));
            }
            if let Some((outer, rest)) = field.split_once('.')
                && name == outer
            {
                let id = self.unqualified(word(&self.types, at + 4)?)?;
                let (inner, size) = self.field(id, rest, depth + 1)?;
                return Some((bits + inner, size));
            }
            if name.is_empty()
                && let Some((inner, size)) =
                    self.field(word(&self.types, at + 4)?, field, depth + 1)
            {
                return Some((bits + inner, size));
            }
        }
        None
    }

    /// The type behind typedefs and qualifiers.
    fn unqualified(&self, mut id: u32) -> Option<u32> {
        for _ in 0..8 {
            match self.kind(id)? {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT => {
                    id = word(&self.types, self.starts.get(id as usize)? + 8)?;
                }
                _ => return Some(id),
            }
        }
        None
    }

    fn kind(&self, id: u32) -> Option<u32> {
        Some(kind(word(&self.types, self.starts.get(id as usize)? + 4)?))
    }

    fn name(&self, id: u32) -> Option<&str> {
        self.string(word(&self.types, *self.starts.get(id as usize)?)?)
    }

    fn string(&self, at: u32) -> Option<&str> {
        let rest = self.strings.get(at as usize..)?;
        let len = rest.iter().position(|&byte| byte == 0)?;
        std::str::from_utf8(&rest[..len]).ok()
    }
}

fn kind(info: u32) -> u32 {
    (info >> 24) & 0x1f
}

/// Bytes behind the 12 that every type has.
fn tail_len(info: u32) -> Option<usize> {
    let entries = (info & 0xffff) as usize;
    Some(match kind(info) {
        KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => entries * 12,
        KIND_ENUM | KIND_FUNC_PROTO => entries * 8,
        // Pointers, forward declarations, typedefs, qualifiers, functions, floats, type tags.
        2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_running_kernel_are_found() {
        let Ok(btf) = Btf::of_kernel() else {
            eprintln!("SKIPPED fields_of_the_running_kernel_are_found: no /sys/kernel/btf/vmlinux");
            return;
        };
        // In an anonymous member, and far into a structure.
        assert_eq!(btf.offset("sock_common", "skc_daddr"), Some(0));
        assert!(btf.offset("tcp_sock", "write_seq").expect("it is there") > 600);
        assert_eq!(btf.offset("tcp_sock", "no_such_field"), None);
        assert!(btf.offset("file", "f_path.dentry") > btf.offset("file", "f_path"));
        assert!(btf.offset("dentry", "d_name.name").is_some());
        assert_eq!(btf.offset("sk_buff", "csum_valid"), None);
        assert!(btf.bit("sk_buff", "csum_valid").is_some());
    }

    #[test]
    fn bytes_that_are_no_btf_are_refused() {
        assert!(Btf::parse(b"").is_none());
        assert!(Btf::parse(&[0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0xff, 0xff]).is_none());
    }
}
