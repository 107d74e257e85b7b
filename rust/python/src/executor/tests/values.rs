//! Values as bytes and back.

use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::{encoded, eval, holds, pickled, python};
use crate::value::{self, Payload};

/// Encodes an expression's value and decodes it both ways. `check` is about `x`, what came out, and must hold for both.
fn round_trip(py: Python<'_>, expression: &str, check: &str) {
    let payload = encoded(py, expression);
    for copy in [false, true] {
        let back = value::decode(py, &payload, copy).expect(expression);
        assert!(holds(&back, check), "{expression} (copy: {copy}): not {check}");
    }
}

fn bytes_of(payload: &Payload) -> Vec<u8> {
    (**payload).as_ref().to_vec()
}

fn parts(payload: &Payload) -> u32 {
    u32::from_le_bytes((**payload).as_ref()[4..8].try_into().unwrap())
}

#[test]
fn plain_objects_come_back() {
    python(|py| {
        for expression in
            ["1", "None", "'text'", "b'short'", "b''", "2 ** 200", "[{'a': (1.5, {2})}]", "b'x' * 100_000"]
        {
            round_trip(py, expression, &format!("x == {expression} and type(x) is type({expression})"));
        }
        assert_eq!(parts(&encoded(py, "b'x' * 4095")), 1);
        assert_eq!(parts(&encoded(py, "b'x' * 4096")), 2);
        round_trip(py, "bytearray(b'x' * 5000)", "x == bytearray(b'x' * 5000)");
        round_trip(py, "inc", "x is inc");
        round_trip(py, "lambda_of(3)", "x() == 3");
    });
}

#[test]
fn what_names_main_is_pickled_by_value() {
    python(|py| {
        py.run(c"def of_main(x): return x + 41", Some(&py.import("__main__").unwrap().dict()), None).unwrap();
        let payload = encoded(py, "sys.modules['__main__'].of_main");
        py.import("__main__").unwrap().delattr("of_main").unwrap();
        let back = value::decode(py, &payload, false).unwrap();
        assert!(holds(&back, "x(1) == 42"));
    });
}

#[test]
fn arrays_come_back_out_of_band() {
    python(|py| {
        for expression in ["array(100)", "array(10_000)", "array(0)", "array(12_000).reshape(100, 120).T"] {
            round_trip(py, expression, &format!("(x == {expression}).all() and x.shape == {expression}.shape"));
            assert!(holds(&value::decode(py, &encoded(py, expression), false).unwrap(), "not x.flags.writeable"));
            assert!(holds(&value::decode(py, &encoded(py, expression), true).unwrap(), "x.flags.writeable"));
        }
        assert_eq!(parts(&encoded(py, "[array(10), array(1000), array(2000)]")), 3);
        // The second entry of the table.
        let bytes = bytes_of(&encoded(py, "array(1000)"));
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!((word(24) % 64, word(32)), (0, 8000));
    });
}

#[test]
fn arrays_that_pickle_in_their_own_ways_come_back() {
    python(|py| {
        round_trip(py, "array(10_000)[::3]", "(x == array(10_000)[::3]).all()");
        round_trip(py, "array(2000).astype('M8[s]')", "(x == array(2000).astype('M8[s]')).all()");
        let masked = "__import__('numpy').ma.masked_less(array(2000), 5)";
        round_trip(py, masked, "x.count() == 1995");
        round_trip(py, "array(3).astype(object)", "list(x) == [0, 1, 2]");
    });
}

#[test]
fn a_read_only_array_can_be_copied_to_a_writable_one() {
    python(|py| {
        for n in [3, 3000] {
            let array = eval(py, &format!("array({n})"));
            value::freeze(&array).unwrap();
            let payload: Payload = Arc::new(value::encode(py, &array).unwrap().to_vec());
            let [copy, again] = [true, true].map(|copy| value::decode(py, &payload, copy).unwrap());
            let view = value::decode(py, &payload, false).unwrap();
            assert!(holds(&copy, "x.flags.writeable and write(x)[0] == 7 and x[2] == 2"));
            assert!(holds(&again, "x[0] == 0"));
            assert!(holds(&view, "not x.flags.writeable and x[0] == 0"));
        }
    });
}

#[test]
fn tables_come_back() {
    python(|py| {
        let table = "__import__('pandas').DataFrame({'a': range(5000), 's': __import__('pandas').Series(map(str, range(5000)), \
                     dtype='string[pyarrow]')})";
        round_trip(py, table, &format!("x.equals({table}) and (x.dtypes == {table}.dtypes).all()"));
        assert!(parts(&encoded(py, table)) > 2);
    });
}

#[test]
fn views_keep_the_payload_alive_and_let_it_go() {
    python(|py| {
        let owner = Arc::new(bytes_of(&encoded(py, "array(5000)")));
        let watch = Arc::downgrade(&owner);
        let payload: Payload = owner;
        let array = value::decode(py, &payload, false).unwrap();
        let view = array.get_item(py.eval(c"slice(4000, None)", None, None).unwrap()).unwrap();
        drop((payload, array));
        assert!(watch.upgrade().is_some());
        assert!(holds(&view, "x[0] == 4000 and len(x) == 1000"));
        drop(view);
        assert!(watch.upgrade().is_none());
    });
}

#[test]
fn malformed_payloads_are_errors() {
    python(|py| {
        let whole = bytes_of(&encoded(py, "[array(1000), array(2000)]"));
        let try_decode = |bytes: &[u8], copy| {
            let payload: Payload = Arc::new(bytes.to_vec());
            value::decode(py, &payload, copy).map(Bound::unbind)
        };
        for copy in [false, true] {
            for end in (0..64).chain([whole.len() - 1]) {
                let error = try_decode(&whole[..end], copy).unwrap_err();
                assert!(error.is_instance_of::<PyValueError>(py), "{end}");
            }
            // Every word of the table: count, then offsets and lengths.
            for at in 0..14 {
                for new in [0, 1, u32::MAX] {
                    let mut changed = whole.clone();
                    changed[4 * at..4 * at + 4].copy_from_slice(&u32::to_le_bytes(new));
                    if let Err(error) = try_decode(&changed, copy) {
                        assert!(!error.is_instance_of::<pyo3::panic::PanicException>(py), "{error}");
                    }
                }
            }
        }
        let plain = bytes_of(&pickled(py, "1"));
        assert!(try_decode(&plain, false).is_err());
        assert!(value::decode(py, &encoded(py, "Bomb()"), false).is_err());
    });
}
