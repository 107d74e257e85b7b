//! A session whose template and workers are played by the test.
//!
//! The template is a process, so this test program is started once more: there it only passes packets and descriptors on
//! between the session and the test.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use eagleray_core::graph::Csr;
use eagleray_core::head::HeadConfig;
use eagleray_core::ids::{GraphId, ObjectId, RunId, WorkerId};
use eagleray_core::message::{ActorName, ActorSpec, ClassSpec, Demand, GraphKind, GraphSpec, Report, WHOLE, output};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept, bind, connect, listen, recvmsg, sendmsg, socket_with,
};

use crate::client::Client;
use crate::command::Ended;
use crate::link::{Link, LinkConfig};
use crate::program::{Part, Program, Template, Value};
use crate::session::{SESSION_DIR, Session, SessionConfig};
use crate::wire::{FromWorker, ToWorker};

/// Long enough for anything that will ever happen.
pub(super) const WATCHDOG: Duration = Duration::from_secs(60);

const STORE: u64 = 16 << 20;

/// Asks the template's process for a child.
const SPAWN: &[u8] = b"S";

/// What a worker that behaves publishes.
pub(super) const GOOD: &[u8] = b"good";

/// What those are told who look for an actor.
pub(super) const META: &[u8] = b"methods";

fn packet(from: BorrowedFd<'_>) -> (Vec<u8>, Vec<OwnedFd>) {
    let mut bytes = vec![0; 1 << 16];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(from, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC);
    bytes.truncate(got.map_or(0, |got| got.bytes));
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(came) = message {
            fds.extend(came);
        }
    }
    (bytes, fds)
}

fn pass(to: BorrowedFd<'_>, bytes: &[u8], fds: &[OwnedFd]) -> bool {
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    sendmsg(to, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).is_ok()
}

fn seqpacket() -> OwnedFd {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

#[test]
#[ignore = "the template process of a stage"]
fn as_the_template() {
    let Some(dir) = std::env::var_os(SESSION_DIR) else { return };
    let stage = seqpacket();
    connect(&stage, &SocketAddrUnix::new(PathBuf::from(dir).join("stage")).unwrap()).unwrap();
    let node = std::io::stdin();
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(node.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(stage.as_fd(), PollFlags::IN),
        ];
        poll(&mut fds, None).unwrap();
        let ready = fds.map(|fd| !fd.revents().is_empty());
        for (ready, from, to) in [(ready[0], node.as_fd(), stage.as_fd()), (ready[1], stage.as_fd(), node.as_fd())] {
            if ready {
                let (bytes, came) = packet(from);
                if bytes == SPAWN {
                    let mut child = crate::signal::sleeper();
                    pass(stage.as_fd(), &[SPAWN, &child.id().to_le_bytes()].concat(), &[]);
                    std::thread::spawn(move || child.wait());
                    continue;
                }
                if bytes.is_empty() || bytes == b"Q" || !pass(to, &bytes, &came) {
                    std::process::exit(0);
                }
            }
        }
    }
}

/// A worker that the session wants.
pub(super) struct Recruit {
    pub(super) id: WorkerId,
    pub(super) socket: OwnedFd,
    pub(super) page: OwnedFd,
}

/// See the module.
pub(super) struct Stage {
    pub(super) session: Arc<Session>,
    pub(super) client: Arc<Client>,
    control: OwnedFd,
    dir: PathBuf,
    recruits: VecDeque<Recruit>,
    /// Workers that the session had killed.
    killed: Vec<WorkerId>,
    spawned: Option<u32>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.session.stop();
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

impl Stage {
    pub(super) fn new(slots: u32) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("eagleray-stage-{}-{number}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let listener = seqpacket();
        bind(&listener, &SocketAddrUnix::new(dir.join("stage")).unwrap()).unwrap();
        listen(&listener, 1).unwrap();
        let program = std::env::current_exe().unwrap();
        let arguments = ["tests::stage::as_the_template", "--exact", "--ignored", "--quiet"];
        let session = Session::start(SessionConfig {
            head: HeadConfig::new(slots),
            template: std::iter::once(program.into()).chain(arguments.map(Into::into)).collect(),
            template_setup: |_| (),
            preload: Vec::new(),
            store_bytes: STORE,
            environment: Vec::new(),
            session_dir: dir.clone(),
            remembered_tasks: 1000,
            timeline: true,
            zero_worker: None,
        });
        let session = Arc::new(session.unwrap());
        let control = accept(&listener).unwrap();
        let client = Arc::new(session.client());
        Self { session, client, control, dir, recruits: VecDeque::new(), killed: Vec::new(), spawned: None }
    }

    /// Takes in what the session has asked of the template.
    fn listen(&mut self) {
        let limit = Timespec { tv_sec: WATCHDOG.as_secs() as i64, tv_nsec: 0 };
        let mut fds = [PollFd::from_borrowed_fd(self.control.as_fd(), PollFlags::IN)];
        assert_eq!(poll(&mut fds, Some(&limit)), Ok(1), "the session asks for nothing");
        let (bytes, fds) = packet(self.control.as_fd());
        let worker = || WorkerId(u32::from_le_bytes(bytes[1..5].try_into().unwrap()));
        match bytes.first() {
            Some(b'F') => {
                let [socket, page] = <[OwnedFd; 2]>::try_from(fds).unwrap();
                self.recruits.push_back(Recruit { id: worker(), socket, page });
            }
            Some(b'K') => self.killed.push(worker()),
            Some(b'S') => self.spawned = Some(worker().0),
            other => panic!("the session asks for {other:?}"),
        }
    }

    /// The next worker that the session wants.
    pub(super) fn recruit(&mut self) -> Recruit {
        loop {
            match self.recruits.pop_front() {
                Some(recruit) => return recruit,
                None => self.listen(),
            }
        }
    }

    /// Waits until the session has a worker killed.
    pub(super) fn until_killed(&mut self, worker: WorkerId) {
        while !self.killed.contains(&worker) {
            self.listen();
        }
    }

    /// A process whose parent is the template's.
    pub(super) fn spawn_of_template(&mut self) -> u32 {
        self.say(SPAWN);
        while self.spawned.is_none() {
            self.listen();
        }
        self.spawned.take().expect("looked at above")
    }

    /// Tells the session something in the template's name.
    pub(super) fn say(&self, packet: &[u8]) {
        assert!(pass(self.control.as_fd(), packet, &[]));
    }

    /// A worker's process has ended, by SIGKILL.
    pub(super) fn ended(&self, worker: WorkerId) {
        let mut packet = vec![b'X'];
        for word in [worker.0, 0, 9] {
            packet.extend(word.to_le_bytes());
        }
        // The most memory it ever had.
        packet.extend(0u64.to_le_bytes());
        self.say(&packet);
    }

    /// Has a worker behave, on a thread of its own, until its node is gone or stops it.
    pub(super) fn hire(&self, recruit: Recruit) -> WorkerId {
        let Recruit { id, socket, page } = recruit;
        let link = LinkConfig { worker: id, socket, page, store_bytes: STORE, escape_dir: self.dir.clone() };
        let link = Link::open(link).unwrap();
        std::thread::spawn(move || work(&link));
        id
    }

    /// Submits a graph of `len` tasks: two that read nothing, and a chain. Its last task is held.
    pub(super) fn submit(&self, len: u32) -> ObjectId {
        Self::submit_to(&self.client, len)
    }

    /// As [`Stage::submit`], from any thread.
    pub(super) fn submit_to(client: &Client, len: u32) -> ObjectId {
        let id = client.next_graph();
        let (spec, program) = chain(id, len);
        Self::send(client, spec, program);
        ObjectId { graph: id, index: len - 1 }
    }

    /// Submits a graph that [`chain`] has made.
    pub(super) fn submit_this(&self, spec: GraphSpec, program: Program) {
        Self::send(&self.client, spec, program);
    }

    fn send(client: &Client, spec: GraphSpec, program: Program) {
        let (id, len) = (spec.id, spec.inputs.len() as u32);
        client.submit(spec, program).unwrap();
        let part = Part { functions: vec!["f".into()], batches: Vec::new() };
        client.extend(id, part, len).unwrap();
    }

    /// Waits until the session has ended its template.
    pub(super) fn until_template_is_gone(&self) {
        while !packet(self.control.as_fd()).0.is_empty() {}
    }

    pub(super) fn wait(&self, object: ObjectId) -> Ended {
        let token = self.client.ask(vec![object], 1, true).unwrap();
        self.client.answer(token, WATCHDOG).unwrap().expect("an answer before the watchdog")
    }

    /// A graph is computed by a worker that behaves.
    pub(super) fn works(&self) {
        let object = self.submit(6);
        let ended = self.wait(object);
        assert!(matches!(&ended[..], [(_, Ok(Value::Inline(bytes)))] if bytes == GOOD), "{ended:?}");
        self.client.release(&[object]).unwrap();
    }

    pub(super) fn until(&self, done: impl Fn(&Session) -> bool) {
        let start = Instant::now();
        while !done(&self.session) {
            assert!(start.elapsed() < WATCHDOG, "it never came to that: {:?}", self.session.counters());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A graph, and its program without constants.
pub(super) fn chain(id: GraphId, len: u32) -> (GraphSpec, Program) {
    let mut inputs = Csr::new();
    let mut code = Csr::new();
    for task in 0..len {
        inputs.push_row(if task > 1 { Some(task - 1) } else { None });
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
    let template = Template { code: Bytes::new(), functions: vec![0] };
    (spec, Program { templates: vec![template], code, ..Program::default() })
}

/// The name of an actor.
pub(super) fn name(name: &str) -> ActorName {
    ActorName { namespace: "space".into(), name: name.into() }
}

/// A graph that makes the actor "actor", which has a quarter of a slot.
pub(super) fn actor(id: GraphId) -> (GraphSpec, Program) {
    let (mut spec, mut program) = chain(id, 1);
    let actor = ActorSpec { name: Some(name("actor")), detached: false, max_restarts: 0, cpu: WHOLE / 4 };
    spec.kind = GraphKind::Actor(Box::new(actor));
    spec.demands = vec![Demand { cpu: WHOLE, others: Vec::new() }];
    spec.classes[0].demand = 1;
    program.actor_meta = Some(META.into());
    (spec, program)
}

/// One call of an actor.
pub(super) fn calls(id: GraphId, actor: ObjectId) -> (GraphSpec, Program) {
    let (mut spec, program) = chain(id, 1);
    spec.kind = GraphKind::Calls;
    spec.externals = vec![actor];
    spec.inputs = Csr::new();
    spec.inputs.push_row([1]);
    (spec, program)
}

/// The end of a run of which `upto` tasks were claimed.
fn done(run: RunId, upto: u32) -> Report {
    Report {
        run,
        upto,
        ended: true,
        troubles: Vec::new(),
        published: Vec::new(),
        contained: Vec::new(),
        timings: Vec::new(),
    }
}

fn work(link: &Link) {
    let publish = |seal| link.store(GOOD.len(), seal, |target| target.copy_from_slice(GOOD)).unwrap();
    link.send(&FromWorker::Hello { pid: std::process::id() });
    while link.flush().is_ok() {
        let Ok(Some(message)) = link.next(None) else { return };
        match message {
            ToWorker::Run(program) => {
                let run = program.run;
                let mut values = Vec::new();
                let mut upto = 0;
                while let Some(index) = link.page().claim(run.id.seq) {
                    link.page().start(run.id.seq, index, crate::session::now_ns());
                    let flags = run.outputs[index as usize];
                    if flags & output::PUBLISH != 0 {
                        values.push((index, publish(flags & output::SEAL != 0), Vec::new()));
                    }
                    upto = index + 1;
                }
                link.page().rest();
                let report = done(run.id, upto);
                link.send(&FromWorker::Report { report, values, wakeups: 0, times: Bytes::new() });
            }
            ToWorker::Publish { objects, seal } => {
                for object in objects {
                    link.send(&FromWorker::Published(object, Some((publish(seal), Vec::new()))));
                }
            }
            ToWorker::Stop => return,
            _ => {}
        }
    }
}

#[test]
fn the_stage_itself_works() {
    let mut stage = Stage::new(2);
    for _ in 0..2 {
        let recruit = stage.recruit();
        stage.hire(recruit);
    }
    stage.works();
    stage.until(|session| session.counters().objects == 0);
}
