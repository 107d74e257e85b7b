//! Inputs are read-only, wherever they come from; a task that writes to one gets copies.

use eagleray_core::message::output::KEEP;
use pyo3::prelude::*;

use super::{Io, PUTS, Session, TASKS, call, constant, holds, input, python};

#[test]
fn arrays_of_others_are_read_only() {
    python(|py| {
        let session = Session::default();
        session.template(py, 0, &[call(0, &[constant(0)])], &["array"]);
        session.template(py, 1, &[call(0, &[input(0)])], &["writeable"]);
        session.constants(py, "[3]");
        let io = Io::new(6);
        let (small, large) = (TASKS, TASKS + 1);
        let tasks: [(u32, u32, u8, &[u32]); 6] = [
            (0, 0, 0, &[0]),
            (1, 1, KEEP, &[0]),
            (2, 0, KEEP, &[0]),
            (3, 1, KEEP, &[2]),
            (4, 1, KEEP, &[small]),
            (5, 1, KEEP, &[large]),
        ];
        session.execute_with(py, &tasks, &[(0, "array(3)"), (1, "array(3000)")], &io).unwrap();
        assert_eq!(io.ends(), "++++++");
        for index in [1, 3, 4, 5] {
            assert_eq!(session.kept_repr(py, index).unwrap(), "False", "task {index}");
        }
        assert!(holds(&session.kept(py, 2).unwrap(), "not x.flags.writeable"));
    });
}

#[test]
fn a_task_that_writes_to_an_input_runs_again_on_copies() {
    python(|py| {
        let session = Session::default();
        session.template(py, 0, &[call(0, &[constant(0)])], &["array"]);
        session.template(py, 1, &[call(0, &[input(0)])], &["write"]);
        session.template(py, 2, &[call(0, &[input(0)])], &["writeable"]);
        session.constants(py, "[3]");
        let io = Io::new(3);
        let tasks: [(u32, u32, u8, &[u32]); 3] = [(0, 0, KEEP, &[0]), (1, 1, KEEP, &[0]), (2, 1, KEEP, &[TASKS])];
        session.execute_with(py, &tasks, &[(0, "array(2)")], &io).unwrap();
        assert_eq!(io.ends(), "+++");
        assert_eq!(session.kept_repr(py, 0).unwrap(), "array([0, 1, 2])");
        assert_eq!(session.kept_repr(py, 1).unwrap(), "array([7, 1, 2])");
        assert_eq!(session.kept_repr(py, 2).unwrap(), "array([7, 1])");
    });
}

#[test]
fn copies_are_made_at_once_the_next_time_only_where_they_helped() {
    python(|py| {
        let session = Session::default();
        // Tells whether it got a copy.
        session.template(py, 1, &[call(0, &[input(0), constant(1)])], &["write_if"]);
        session.template(py, 2, &[call(0, &[input(0)])], &["write_and_fail"]);
        session.constants(py, "[None, False, True]");
        let io = Io::new(4);
        let tasks: [(u32, u32, u8, &[u32]); 4] =
            [(0, 1, KEEP, &[TASKS, 1]), (1, 1, KEEP, &[TASKS, 2]), (2, 1, KEEP, &[TASKS, 1]), (3, 2, KEEP, &[TASKS])];
        session.execute_with(py, &tasks, &[(0, "array(2)")], &io).unwrap();
        assert_eq!(io.ends(), "+++R");
        assert_eq!(session.kept_repr(py, 0).unwrap(), "False");
        assert_eq!(session.kept_repr(py, 1).unwrap(), "True");
        assert_eq!(session.kept_repr(py, 2).unwrap(), "True");
        assert_eq!(io.error(py, 3), ("KeyError".into(), "'after writing'".into()));
    });
}

#[test]
fn writing_to_something_else_is_the_tasks_own_failure() {
    python(|py| {
        let session = Session::default();
        session.template(py, 0, &[call(0, &[])], &["write_to_own"]);
        let io = Io::new(1);
        session.execute(py, &[(0, 0, KEEP, &[])], &io).unwrap();
        assert_eq!(io.error(py, 0).0, "ValueError");
        assert!(io.error(py, 0).1.contains("read-only"));
    });
}

#[test]
fn an_input_is_decoded_once_and_lives_as_long_as_a_run_names_it() {
    python(|py| {
        let session = Session::default();
        session.template(py, 0, &[call(0, &[input(0)])], &["collect"]);
        let io = Io::new(2);
        let tasks: [(u32, u32, u8, &[u32]); 2] = [(0, 0, KEEP, &[TASKS]), (1, 0, KEEP, &[TASKS])];
        // Another run that waits has named it too.
        let waiting = super::external(0).unwrap();
        session.executor.add_input(waiting, super::encoded(py, "array(1000)"));
        session.execute_with(py, &tasks, &[(0, "array(1000)")], &io).unwrap();
        let [first, second] = [0, 1].map(|index| session.kept(py, index).unwrap().get_item(0).unwrap());
        assert!(first.get_item(0).unwrap().is(second.get_item(0).unwrap()));
        let io = Io::new(1);
        session.execute(py, &[(2, 0, KEEP, &[TASKS])], &io).unwrap();
        assert_eq!(io.ends(), "+");
        let third = session.kept(py, 2).unwrap().get_item(0).unwrap();
        assert!(third.get_item(0).unwrap().is(first.get_item(0).unwrap()));
    });
}

#[test]
fn what_the_driver_sent_is_each_tasks_own_or_read_only() {
    python(|py| {
        let session = Session::default();
        session.template(py, 0, &[call(0, &[constant(0)])], &["change"]);
        session.template(py, 1, &[call(0, &[input(0)])], &["change"]);
        session.template(py, 2, &[call(0, &[constant(0)])], &["writeable"]);
        session.constants(py, "[[1, 2], [[1], {2: [3]}], Changeable([1]), array(3), [array(2)], {1: 2}]");
        let io = Io::new(12);
        let put = TASKS + PUTS;
        let tasks: [(u32, u32, u8, &[u32]); 12] = [
            (0, 0, KEEP, &[0]),
            (1, 0, KEEP, &[0]),
            (2, 0, KEEP, &[1]),
            (3, 0, KEEP, &[1]),
            (4, 0, KEEP, &[2]),
            (5, 0, KEEP, &[2]),
            (6, 1, KEEP, &[put]),
            (7, 1, KEEP, &[put]),
            (8, 1, KEEP, &[put + 1]),
            (9, 1, KEEP, &[put + 1]),
            (10, 2, KEEP, &[3]),
            (11, 0, KEEP, &[4]),
        ];
        session.execute_with(py, &tasks, &[(PUTS, "[1, 2]"), (PUTS + 1, "Changeable([1])")], &io).unwrap();
        assert_eq!(io.ends(), "++++++++++++");
        let kept = |index| session.kept_repr(py, index).unwrap();
        assert_eq!([kept(0), kept(1), kept(6), kept(7)], ["[1, 2, 'changed']"; 4]);
        assert_eq!([kept(2), kept(3)], ["[[1], {2: [3]}, 'changed']"; 2]);
        assert_eq!([kept(4), kept(5), kept(8), kept(9)], ["[1, 'changed']"; 4]);
        assert_eq!(kept(10), "False");
        assert_eq!(kept(11), "[array([0, 1]), 'changed']");
    });
}

#[test]
fn writing_to_what_the_driver_sent_is_an_error_that_names_it() {
    python(|py| {
        let session = Session::default();
        session.template(py, 0, &[call(0, &[constant(0)])], &["write"]);
        session.template(py, 1, &[call(0, &[input(0)])], &["write"]);
        session.template(py, 2, &[call(0, &[constant(0)])], &["write_first"]);
        session.template(py, 3, &[call(0, &[input(0), constant(1)])], &["write_second"]);
        session.constants(py, "[array(3), [array(2)], Changeable(array(3))]");
        let io = Io::new(5);
        let (made, put) = (TASKS, TASKS + PUTS);
        let tasks: [(u32, u32, u8, &[u32]); 5] = [
            (0, 0, KEEP, &[0]),
            (1, 1, KEEP, &[put]),
            (2, 2, KEEP, &[1]),
            (3, 3, KEEP, &[made, 0]),
            (4, 2, KEEP, &[2]),
        ];
        session.execute_with(py, &tasks, &[(0, "array(3)"), (PUTS, "array(3000)")], &io).unwrap();
        assert_eq!(io.ends(), "RRRRR");
        for (place, argument) in [(0, "'a'"), (1, "'a'"), (2, "'items'"), (3, "'b'"), (4, "'items'")] {
            let (class, text) = io.error(py, place);
            assert_eq!(class, "ReadOnlyInputError");
            assert!(text.contains(&format!("wrote to argument {argument} (")), "{text}");
        }
    });
}
