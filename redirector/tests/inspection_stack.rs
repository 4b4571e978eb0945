//! What the kernel programs take of the stack, which is 512 bytes for all functions that call each other.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for code")]

use aya_obj::{Object, generated::bpf_insn};
use std::collections::{BTreeMap, BTreeSet};

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("REDIRECTOR_EBPF_OBJECT"));

/// There is to be room for another function.
const MOST: usize = 480;
/// What the verifier rounds each function's part to, before Linux 6.9 or where it is not the JIT that runs them.
const UNIT: usize = 32;

#[test]
fn the_stack_has_room_for_another_function() {
    let mut object = Object::parse(OBJECT).unwrap();
    let sections = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_calls(&sections).unwrap();
    for (name, program) in &object.programs {
        let code = &object.functions[&program.function_key()].instructions;
        let functions = functions(code);
        if name == "redirector_inspect" {
            assert!(functions.len() > 20, "{functions:?}");
        }
        let depth = depth(&functions, 0);
        println!("{name}: {depth}");
        assert!(depth <= MOST, "{name}: {depth} of {functions:?}");
    }
}

#[derive(Debug, Default)]
struct Function {
    frame: usize,
    calls: BTreeSet<usize>,
}

/// By their first instruction.
fn functions(code: &[bpf_insn]) -> BTreeMap<usize, Function> {
    let mut functions = BTreeMap::from([(0, Function::default())]);
    for called in (0..code.len()).filter_map(|at| called(code, at)) {
        functions.entry(called).or_default();
    }
    for at in 0..code.len() {
        let (_, function) = functions.range_mut(..=at).next_back().unwrap();
        function.frame = function.frame.max(reach(code, at));
        function.calls.extend(called(code, at));
    }
    functions
}

fn depth(functions: &BTreeMap<usize, Function>, at: usize) -> usize {
    let function = &functions[&at];
    let below = function.calls.iter().map(|called| depth(functions, *called)).max();
    function.frame.max(1).next_multiple_of(UNIT) + below.unwrap_or(0)
}

/// The function that the instruction calls, or gives to a helper to be called.
fn called(code: &[bpf_insn], at: usize) -> Option<usize> {
    const CALL: u8 = 0x85;
    const LOAD_IMMEDIATE: u8 = 0x18;
    const PSEUDO_CALL: u8 = 1;
    const PSEUDO_FUNC: u8 = 4;
    let instruction = &code[at];
    let calls = matches!(
        (instruction.code, instruction.src_reg()),
        (CALL, PSEUDO_CALL) | (LOAD_IMMEDIATE, PSEUDO_FUNC)
    );
    calls.then(|| (at as i64 + 1 + i64::from(instruction.imm)) as usize)
}

/// How far below the frame pointer the instruction reads, writes, or points.
fn reach(code: &[bpf_insn], at: usize) -> usize {
    const FRAME: u8 = 10;
    const MOVE: u8 = 0xbf;
    const ADD_IMMEDIATE: u8 = 0x07;
    let instruction = &code[at];
    let offset = match instruction.code & 7 {
        // BPF_LDX; BPF_ST and BPF_STX
        1 if instruction.src_reg() == FRAME => i32::from(instruction.off),
        2 | 3 if instruction.dst_reg() == FRAME => i32::from(instruction.off),
        _ if instruction.code == ADD_IMMEDIATE && at > 0 => {
            let before = &code[at - 1];
            let points =
                before.code == MOVE && before.src_reg() == FRAME && before.dst_reg() == instruction.dst_reg();
            if points { instruction.imm } else { 0 }
        }
        _ => 0,
    };
    offset.min(0).unsigned_abs() as usize
}
