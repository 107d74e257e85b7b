//! Templates: what is compiled, and what is refused.

use crate::executor::BadProgram;
use crate::executor::shape::{Op, Shape};
use crate::template::{CALL, DICT, FUNC, LIST, SET, TUPLE, to_bytes};

use super::{call, code, constant, input, local};

fn refused(code: &[u8], functions: usize) -> BadProgram {
    match Shape::compile(code, vec![0; functions]) {
        Ok(shape) => panic!("compiled to {:?}", shape.ops),
        Err(error) => error,
    }
}

fn refused_words(words: &[u32], functions: usize) -> BadProgram {
    refused(&to_bytes(words), functions)
}

#[test]
fn operations_come_in_order_and_last_uses_take() {
    let steps = [call(0, &[input(1)]), call(1, &[local(0), constant(0)]), constant(2), call(1, &[local(0), local(1)])];
    let shape = Shape::compile(&code(&steps), vec![4, 5]).ok().unwrap();
    let expected = [
        Op::Func(0),
        Op::Input(0),
        Op::Call(1),
        Op::Store(0),
        Op::Func(1),
        Op::Local(0),
        Op::Const(0),
        Op::Call(2),
        Op::Store(1),
        Op::Const(2),
        Op::Discard,
        Op::Func(1),
        Op::Take(0),
        Op::Take(1),
        Op::Call(2),
    ];
    assert_eq!(*shape.ops, expected);
    assert_eq!(*shape.inputs, [1]);
    assert_eq!((shape.parameters, shape.steps), (3, 4));
    assert!(shape.has_constants);
}

#[test]
fn inputs_are_listed_once_in_order_of_appearance() {
    let shape = Shape::compile(&code(&[call(0, &[input(3), input(0), input(3)])]), vec![0]).ok().unwrap();
    assert_eq!(*shape.inputs, [3, 0]);
    assert!(!shape.has_constants);
}

#[test]
fn keyword_names_stand_between_the_operands() {
    let words = [1, CALL, 1, 2, FUNC, 0, LIST, 0, FUNC, 1, TUPLE, 0, SET, 0];
    let shape = Shape::compile(&to_bytes(&words), vec![0, 0]).ok().unwrap();
    let call = Op::CallNamed { positional: 1, named: 2, names: 1 };
    assert_eq!(*shape.ops, [Op::Func(0), Op::List(0), Op::Tuple(0), Op::Set(0), call]);
}

#[test]
fn deep_nesting_is_no_problem() {
    let depth = 200_000;
    let mut words = vec![1];
    words.extend([LIST, 1].repeat(depth));
    words.extend(constant(0));
    assert_eq!(Shape::compile(&to_bytes(&words), Vec::new()).ok().unwrap().ops.len(), depth + 1);
}

#[test]
fn malformed_code_is_refused() {
    assert_eq!(refused(&[], 0), BadProgram::Truncated);
    assert_eq!(refused(&[1, 0, 0, 0, 1], 0), BadProgram::Truncated);
    assert_eq!(refused_words(&[0], 0), BadProgram::NoSteps);
    assert_eq!(refused_words(&[1], 0), BadProgram::Truncated);
    assert_eq!(refused_words(&[u32::MAX, 1, 0], 0), BadProgram::Truncated);
    assert_eq!(refused_words(&[1, 9, 0], 0), BadProgram::UnknownOpcode(9));
    assert_eq!(refused_words(&[1, FUNC, 2], 2), BadProgram::FunctionOutOfRange(2));
    assert_eq!(refused(&code(&[local(0)]), 0), BadProgram::StepOutOfRange(0));
    assert_eq!(refused(&code(&[constant(0), local(1)]), 0), BadProgram::StepOutOfRange(1));
    assert_eq!(refused_words(&[1, LIST, u32::MAX], 0), BadProgram::TooManyOperands);
    assert_eq!(refused_words(&[1, DICT, 1, 1, 0, 1], 0), BadProgram::Truncated);
    assert_eq!(refused_words(&[1, CALL, u32::MAX, u32::MAX, FUNC, 0], 1), BadProgram::TooManyOperands);
    assert_eq!(refused_words(&[1, CALL, 0, 1, FUNC, 0, LIST, 0, LIST, 0], 1), BadProgram::NamesNotConstant);
    assert_eq!(refused_words(&[1, CALL, 0, 1, FUNC, 0, FUNC, 1, LIST, 0], 1), BadProgram::FunctionOutOfRange(1));
    assert_eq!(refused_words(&[1, LIST, 0, 0], 0), BadProgram::Trailing);
}

#[test]
fn every_cut_and_every_changed_word_gives_an_answer() {
    let steps = [call(0, &[input(1), constant(0)]), [vec![DICT, 1], local(0), call(1, &[])].concat()];
    let whole = code(&steps);
    for end in 0..whole.len() {
        refused(&whole[..end], 2);
    }
    for word in 0..whole.len() / 4 {
        for new in [0, 1, 4, 8, 9, 1 << 31, u32::MAX] {
            let mut changed = whole.clone();
            changed[4 * word..4 * word + 4].copy_from_slice(&u32::to_le_bytes(new));
            if let Ok(shape) = Shape::compile(&changed, vec![0, 0]) {
                assert!(shape.steps >= 1 && !shape.ops.is_empty());
            }
        }
    }
}
