//! The type information (BTF) of the kernel programs.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for code")]

use aya_obj::Object;
use aya_obj::btf::{Btf, BtfKind};

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("REDIRECTOR_EBPF_OBJECT"));

/// LLVM numbers declarations in the order of addresses in its own memory: with two of them, the object's bytes would differ
/// now and then, wherever it is built. That `cargo xtask test` builds it twice would find that by luck only.
#[test]
fn the_object_defines_every_type_that_it_names() {
    let types = Object::parse(OBJECT).unwrap().btf.unwrap();
    assert!(names(&types, BtfKind::Struct).iter().any(|name| name == "__sk_buff"));
    assert_eq!(names(&types, BtfKind::Fwd), [""; 0]);
}

/// Of the types of this kind. The section says in its header how long that is, and where behind it the strings begin and end
/// (Documentation/bpf/btf.rst of Linux, `struct btf_header`).
fn names(types: &Btf, kind: BtfKind) -> Vec<String> {
    let bytes = types.to_bytes();
    let number = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let start = number(4) + number(16);
    let strings = bytes[start..start + number(20)].split(|byte| *byte == 0);
    let names = strings.map(|name| String::from_utf8_lossy(name).into_owned());
    names.filter(|name| types.id_by_type_name_kind(name, kind).is_ok()).collect()
}
