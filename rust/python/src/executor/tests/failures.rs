//! Tasks that end badly, and what becomes of the others.

use eagleray_core::message::Trouble;
use eagleray_core::message::output::{KEEP, PUBLISH};

use super::{GRAPH, Io, Session, TASKS, call, code, constant, eval, external, input, object, python};
use crate::template::{CALL, FUNC};

#[test]
fn readers_of_a_failed_task_are_skipped_and_the_rest_goes_on() {
    python(|py| {
        let session = Session::default();
        session.template(py, 0, &[constant(0)], &[]);
        session.template(py, 1, &[call(0, &[input(0)])], &["fail"]);
        session.template(py, 2, &[call(0, &[input(0), input(1)])], &["collect"]);
        session.constants(py, "[1]");
        let io = Io::new(5);
        let tasks: [(u32, u32, u8, &[u32]); 5] = [
            (0, 0, 0, &[0]),
            (1, 1, KEEP | PUBLISH, &[0]),
            (2, 2, KEEP, &[0, 1]),
            (3, 2, KEEP, &[2, 0]),
            (4, 2, KEEP, &[0, 0]),
        ];
        session.execute(py, &tasks, &io).unwrap();
        assert_eq!(io.ends(), "+RSS+");
        assert_eq!(io.error(py, 1), ("KeyError".into(), "'no such thing'".into()));
        assert_eq!(*io.started.borrow(), [0, 1, 4]);
        assert!(io.published.borrow().is_empty());
        assert!(session.kept(py, 1).is_none() && session.kept(py, 2).is_none());
        assert_eq!(session.kept_repr(py, 4).unwrap(), "((1, 1), {})");
    });
}

#[test]
fn an_interrupt_fails_the_task_and_an_exit_ends_the_run() {
    python(|py| {
        let session = Session::default();
        session.template(py, 0, &[call(0, &[])], &["interrupt"]);
        session.template(py, 1, &[call(0, &[])], &["leave"]);
        let io = Io::new(3);
        let tasks: [(u32, u32, u8, &[u32]); 3] = [(0, 0, 0, &[]), (1, 1, 0, &[]), (2, 0, 0, &[])];
        let error = session.execute(py, &tasks, &io).unwrap_err();
        assert_eq!(error.to_string(), "SystemExit: 3");
        assert_eq!(io.ends(), "R");
        assert_eq!(io.error(py, 0).0, "KeyboardInterrupt");
    });
}

#[test]
fn only_an_interrupt_that_was_wanted_is_a_cancellation() {
    python(|py| {
        let session = Session::default();
        session.template(py, 0, &[call(0, &[])], &["interrupt"]);
        session.template(py, 1, &[call(0, &[])], &["fail"]);
        let io = Io { interrupted: vec![1, 2, 3], ..Io::new(5) };
        let tasks: [(u32, u32, u8, &[u32]); 5] =
            [(4, 0, 0, &[]), (3, 0, 0, &[]), (2, 1, 0, &[]), (1, 2, 0, &[]), (0, 0, 0, &[])];
        session.template(py, 2, &[call(0, &[])], &["dict"]);
        session.executor.add_retry_filter(GRAPH, &[5], None);
        session.execute(py, &tasks, &io).unwrap();
        // One that raised something else has failed, and one that did well has done so.
        assert_eq!(io.ends(), "ACA+A");
    });
}

#[test]
fn the_result_of_a_task_that_goes_on_concerns_nobody() {
    python(|py| {
        let session = Session::default();
        session.template(py, 0, &[call(0, &[])], &["Thing"]);
        session.template(py, 1, &[call(0, &[])], &["Thing.count"]);
        let io = Io { deferred: vec![7], ..Io::new(2) };
        session.execute(py, &[(7, 0, PUBLISH | KEEP, &[]), (8, 1, KEEP, &[])], &io).unwrap();
        assert_eq!(io.ends(), "D+");
        assert!(io.published.borrow().is_empty() && session.kept(py, 7).is_none());
        assert_eq!(session.kept_repr(py, 8).unwrap(), "0", "it is gone");
    });
}

#[test]
fn a_result_that_cannot_be_pickled_stays_for_those_who_read_it_here() {
    python(|py| {
        let session = Session::default();
        session.template(py, 0, &[call(0, &[])], &["Unpicklable"]);
        session.template(py, 1, &[call(0, &[input(0)])], &["collect"]);
        let io = Io::new(3);
        let tasks: [(u32, u32, u8, &[u32]); 3] = [(0, 0, PUBLISH | KEEP, &[]), (1, 1, 0, &[0]), (2, 0, KEEP, &[])];
        session.execute(py, &tasks, &io).unwrap();
        assert_eq!(io.ends(), "U++");
        assert_eq!(io.error(py, 0), ("TypeError".into(), "Unpicklable: not for travelling".into()));
        assert!(session.kept(py, 0).is_some());
    });
}

#[test]
fn inputs_of_a_failed_task_are_reported_once_each_with_their_numbers() {
    python(|py| {
        let session = Session::default();
        session.template(py, 0, &[constant(0)], &[]);
        session.template(py, 1, &[call(0, &[input(1), input(0), input(1), input(2)])], &["fail"]);
        session.constants(py, "['made here']");
        let io = Io::new(2);
        let tasks: [(u32, u32, u8, &[u32]); 2] = [(4, 0, 0, &[0]), (1, 1, KEEP, &[TASKS + 2, 4, 4])];
        session.execute_with(py, &tasks, &[(2, "'from outside'")], &io).unwrap();
        assert_eq!(io.ends(), "+R");
        let inputs = eval(py, "sorted(inputs_of_failed[-1])").to_string();
        assert_eq!(inputs, format!("[(4, 'made here'), ({}, 'from outside')]", TASKS + 2));
    });
}

#[test]
fn missing_inputs_are_named() {
    python(|py| {
        let session = Session::default();
        session.template(py, 0, &[call(0, &[input(0), input(1), input(2)])], &["collect"]);
        session.template(py, 1, &[call(0, &[])], &["collect"]);
        let io = Io::new(2);
        let tasks: [(u32, u32, u8, &[u32]); 2] = [(0, 0, 0, &[TASKS + 2, 77, TASKS + 3]), (1, 1, 0, &[])];
        session.execute_with(py, &tasks, &[(2, "'here'")], &io).unwrap();
        assert_eq!(io.ends(), "I+");
        let missing = vec![object(77), external(3).unwrap()];
        assert_eq!(io.ended.borrow()[0].2, Some(Trouble::InputNotHere(missing)));
        // What the task would have read of the run stays for its return.
        session.template(py, 2, &[call(0, &[input(0), input(1)])], &["collect"]);
        let later = Io::new(4);
        let tasks: [(u32, u32, u8, &[u32]); 4] =
            [(4, 1, 0, &[]), (5, 1, 0, &[]), (6, 2, 0, &[4, 77]), (7, 2, 0, &[5, 6])];
        session.execute(py, &tasks, &later).unwrap();
        assert_eq!(later.ends(), "++IS");
        assert!(session.kept(py, 4).is_some());
        assert!(session.kept(py, 5).is_none());
        // An input ends with the run that named it.
        let io = Io::new(1);
        session.execute(py, &[(0, 0, 0, &[TASKS + 2, TASKS + 2, TASKS + 2])], &io).unwrap();
        assert_eq!(io.ends(), "I");
    });
}

#[test]
fn what_cannot_be_loaded_fails_each_task_that_needs_it() {
    python(|py| {
        let session = Session::default();
        session.template(py, 0, &[call(0, &[])], &["Bomb()"]);
        session.template(py, 1, &[call(0, &[])], &["collect"]);
        session.template(py, 2, &[constant(0)], &[]);
        // An entry of which this process has not heard, and names that are no names.
        session.executor.add_template(GRAPH, 3, &code(&[call(0, &[])]), vec![999]).unwrap();
        let named = vec![CALL, 0, 1, FUNC, 0, FUNC, 1, FUNC, 0];
        session.template(py, 4, &[named], &["collect", "('a', 'b')"]);
        let io = Io::new(6);
        let none: &[u32] = &[];
        let tasks =
            [(0, 0, 0, none), (1, 0, 0, none), (2, 1, 0, none), (3, 2, 0, &[0]), (4, 3, 0, none), (5, 4, 0, none)];
        session.execute(py, &tasks, &io).unwrap();
        assert_eq!(io.ends(), "RR+RRR");
        assert_eq!(io.error(py, 0).0, "KeyError");
        assert_eq!(io.error(py, 1).0, "KeyError");
        assert_eq!(io.error(py, 3).1, "a task that names constants came without a batch");
        assert_eq!(io.error(py, 4).1, "function 999 was not sent to this process");
        assert_eq!(io.error(py, 5).0, "TypeError");

        session.constants(py, "[1]");
        let io = Io::new(2);
        session.execute(py, &[(3, 2, 0, &[0]), (4, 2, 0, &[1])], &io).unwrap();
        assert_eq!(io.ends(), "+R");
        assert_eq!(io.error(py, 1).1, "the task's batch has no constant 1");
    });
}

#[test]
fn rows_that_do_not_fit_are_refused_before_anything_runs() {
    python(|py| {
        let session = Session::default();
        session.template(py, 0, &[call(0, &[input(1)])], &["collect"]);
        let io = Io::new(1);
        let refused = |tasks: &[super::Task<'_>]| session.execute(py, tasks, &io).unwrap_err().to_string();
        assert_eq!(refused(&[(0, 1, 0, &[])]), "RuntimeError: unknown template 1");
        assert_eq!(refused(&[(0, 0, 0, &[1])]), "RuntimeError: the row at place 0 is too short");
        assert_eq!(refused(&[(0, 0, 0, &[1, 5000])]), "RuntimeError: input number 5000 stands for no object");
        assert!(io.started.borrow().is_empty());
    });
}
