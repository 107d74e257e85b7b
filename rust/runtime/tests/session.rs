//! A session without Python: zero-worker mode, and what happens when no worker can be had.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use eagleray_core::graph::Csr;
use eagleray_core::head::HeadConfig;
use eagleray_core::ids::{GraphId, ObjectId};
use eagleray_core::message::{ClassSpec, Death, End, FailureKind, GraphKind, GraphSpec};
use eagleray_runtime::SessionError;
use eagleray_runtime::calls::{Call, Shape, Task};
use eagleray_runtime::client::{Client, ClientError};
use eagleray_runtime::command::Ended;
use eagleray_runtime::look::Look;
use eagleray_runtime::program::{Part, Program, Template, Value};
use eagleray_runtime::session::{Session, SessionConfig};

/// Long enough for anything that will ever happen.
const WATCHDOG: Duration = Duration::from_secs(60);

fn config(template: &[&str], zero_worker: bool) -> SessionConfig {
    SessionConfig {
        head: HeadConfig::new(2),
        template: template.iter().map(Into::into).collect(),
        template_setup: |_| (),
        preload: Vec::new(),
        store_bytes: 16 << 20,
        session_dir: std::env::temp_dir(),
        environment: Vec::new(),
        remembered_tasks: 1000,
        timeline: true,
        zero_worker: zero_worker.then(|| Bytes::from_static(b"nothing")),
    }
}

/// A chain of tasks without constants, whose last is held.
fn chain(id: GraphId, len: u32) -> (GraphSpec, Program) {
    let mut inputs = Csr::new();
    let mut code = Csr::new();
    for task in 0..len {
        inputs.push_row(task.checked_sub(1));
        code.push_row([0, u32::MAX, 0, u32::MAX]);
    }
    let spec = GraphSpec {
        id,
        inputs,
        externals: Vec::new(),
        position: (0..len).collect(),
        class: vec![0; len as usize],
        classes: vec![ClassSpec { fingerprint: 1, max_retries: 3, retries: 0, demand: 0, part: false }],
        outputs: vec![len - 1],
        demands: Vec::new(),
        priority: 0,
        kind: GraphKind::Computation,
        contained: Vec::new(),
    };
    let template = Template { code: Bytes::from_static(b""), functions: vec![0] };
    (spec, Program { templates: vec![template], code, ..Program::default() })
}

fn submit(client: &Client, len: u32, functions: usize) -> ObjectId {
    let id = client.next_graph();
    let (spec, program) = chain(id, len);
    client.submit(spec, program).unwrap();
    let part = Part { functions: vec![Bytes::from_static(b"f"); functions], batches: Vec::new() };
    client.extend(id, part, len).unwrap();
    ObjectId { graph: id, index: len - 1 }
}

fn wait(client: &Client, object: ObjectId) -> Result<Ended, ClientError> {
    let token = client.ask(vec![object], 1, true)?;
    Ok(client.answer(token, WATCHDOG)?.expect("an answer before the watchdog"))
}

fn until(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < WATCHDOG, "it never came to that");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn zero_workers_end_graphs_and_keep_nothing() {
    let session = Arc::new(Session::start(config(&[], true)).unwrap());
    let client = session.client();
    for _ in 0..10 {
        let object = submit(&client, 1_000, 1);
        let ended = wait(&client, object).unwrap();
        assert!(matches!(&ended[..], [(found, Ok(Value::Inline(bytes)))] if *found == object && bytes == "nothing"));
        client.release(&[object]).unwrap();
    }
    until(|| session.counters().objects == 0);
    assert_eq!(session.counters().tasks, 10_000);
    session.stop();
    assert!(matches!(wait(&client, submit_id(&client)), Err(ClientError::Session(SessionError::Ended))));
    assert_eq!(session.inspect(Look::default()), Err(SessionError::Ended));
}

#[test]
fn a_session_that_has_ended_takes_no_calls() {
    let session = Arc::new(Session::start(config(&[], true)).unwrap());
    let client = session.client();
    let call = Call {
        alone: false,
        kind: GraphKind::Independent,
        priority: 0,
        surroundings: None,
        shapes: vec![Shape {
            code: Bytes::from_static(b"code"),
            functions: vec![Bytes::from_static(b"f")],
            inputs: Vec::new(),
            class: ClassSpec { fingerprint: 1, max_retries: 0, retries: 0, demand: 0, part: false },
            demand: None,
            retry: None,
            name: "f".into(),
        }],
        batches: Vec::new(),
        tasks: vec![Task { shape: 0, batch: None, key: 0, parameters: Vec::new(), inputs: Vec::new() }],
        externals: Vec::new(),
        contained: Vec::new(),
        wanted: 0..1,
    };
    let object = client.call(call.clone()).unwrap();
    assert!(wait(&client, object).unwrap()[0].1.is_ok());
    session.stop();
    for _ in 0..3 {
        assert!(matches!(client.call(call.clone()), Err(ClientError::Session(SessionError::Ended))));
    }
}

/// An object of a graph that was never submitted.
fn submit_id(client: &Client) -> ObjectId {
    ObjectId { graph: client.next_graph(), index: 0 }
}

#[test]
fn a_template_that_cannot_be_started_fails_what_waits() {
    let session = Arc::new(Session::start(config(&["/nonexistent/template"], false)).unwrap());
    let client = session.client();
    let object = submit(&client, 3, 1);
    let ended = wait(&client, object).unwrap();
    let Err(failure) = &ended[0].1 else { panic!("a value from nowhere") };
    assert!(
        matches!(&failure.kind, FailureKind::NoWorkers(Death { end: End::NeverStarted(why), .. }) if why.contains("template"))
    );
}

#[test]
fn a_template_that_ends_at_once_fails_what_waits() {
    let session = Arc::new(Session::start(config(&["/bin/false"], false)).unwrap());
    let client = session.client();
    let object = submit(&client, 3, 1);
    let ended = wait(&client, object).unwrap();
    assert!(matches!(&ended[0].1, Err(failure) if matches!(failure.kind, FailureKind::NoWorkers(_))));
}

#[test]
fn what_does_not_fit_ends_the_session_with_the_reason() {
    let session = Arc::new(Session::start(config(&[], true)).unwrap());
    let client = session.client();
    let (spec, mut program) = chain(client.next_graph(), 3);
    program.code = Csr::new();
    client.submit(spec, program).unwrap();
    let refused = wait(&client, submit_id(&client));
    assert!(matches!(refused, Err(ClientError::Session(SessionError::Refused(why))) if why.contains("malformed")));
}

#[test]
fn who_looks_finds_the_counters_as_they_are_then() {
    let session = Arc::new(Session::start(config(&[], true)).unwrap());
    let client = session.client();
    for count in 1..=500 {
        let value = client.store(1, &mut |target| target.fill(0)).unwrap();
        client.put(value, Vec::new()).unwrap();
        let seen = session.inspect(Look { workers: true, ..Look::default() }).unwrap().counters;
        assert_eq!((seen.objects, session.counters().objects), (count, count));
    }
}

#[test]
fn values_large_and_small_can_be_put_and_read() {
    let session = Arc::new(Session::start(config(&[], true)).unwrap());
    let client = session.client();
    for len in [0, 10, 1 << 20, 8 << 20, 8 << 20, 8 << 20] {
        let value = client.store(len, &mut |target| target.fill(len as u8 ^ 7)).unwrap();
        let object = client.put(value, Vec::new()).unwrap();
        let ended = wait(&client, object).unwrap();
        let Ok(value) = &ended[0].1 else { panic!("a put object failed") };
        let bytes: &[u8] = match value {
            Value::Inline(bytes) => bytes,
            Value::Sealed(block) => block.as_ref(),
        };
        assert!(bytes.len() == len && bytes.iter().all(|&byte| byte == len as u8 ^ 7));
        client.release(&[object]).unwrap();
    }
    until(|| session.counters().sealed_bytes == 0);
}
