//! The worker processes of a node: their sockets, pages and ends.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use eagleray_core::ids::{GraphId, ObjectId, WorkerId};
use eagleray_core::message::{Death, End, FromNode, Run};
use eagleray_core::page::Page;
use eagleray_store::Words;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::history::PastRun;
use crate::objects::Introduction;
use crate::poller::{Source, Watch};
use crate::shared::WorkerInfo;
use crate::signal;
use crate::socket::{Reader, SocketError, Writer};
use crate::template::{FromTemplate, Template};
use crate::times::Times;
use crate::wire::{self, ToWorker, WireError};

const SIGKILL: u32 = 9;

/// So many times is a worker's socket read in one turn, a buffer each.
const MOST_FILLS: u32 = 64;

/// Of so many workers that have ended something is still known.
const MOST_PAST: usize = 64;

#[derive(Clone, Debug)]
struct Flight {
    seq: u32,
    graph: GraphId,
    tasks: Vec<u32>,
    /// As in the run.
    outputs: Vec<u8>,
    /// Tasks from here on were taken back.
    limit: u32,
    assigned_ns: u64,
    /// Of each report.
    times: Vec<Bytes>,
}

/// A worker process.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) reader: Reader,
    writer: Writer,
    words: Words,
    /// The template that forked it.
    template: u32,
    /// Runs in flight, oldest first.
    flights: VecDeque<Flight>,
    /// It was asked to end.
    stopped: bool,
    /// Its socket is at its end; its exit is on its way.
    gone: bool,
    /// It was stopped for this reason, whatever its exit says.
    fault: Option<Arc<str>>,
    /// What is queued waits for room in the socket.
    full: bool,
    /// Behind the frames that were read came what is none.
    malformed: Option<WireError>,
    /// What was queued is to be read before its next task.
    urgent: bool,
    info: WorkerInfo,
}

impl Worker {
    pub(crate) fn page(&self) -> Page<'_> {
        Page::new(self.words.words()).expect("a page of words is long enough")
    }

    pub(crate) fn send(&mut self, message: &ToWorker) {
        self.writer.queue(|out| wire::put_to_worker(out, message));
    }

    /// Sends what it should read before its next task.
    pub(crate) fn send_urgently(&mut self, message: &ToWorker) {
        self.send(message);
        self.urgent = true;
    }

    /// Has it map a segment, if there is one to map.
    pub(crate) fn introduce(&mut self, segment: Option<Introduction>) {
        if let Some(Introduction { id, size, fd }) = segment {
            let message = ToWorker::Segment { id, size };
            self.writer.queue_with_fd(fd, |out| wire::put_to_worker(out, &message));
        }
    }

    /// Asks it to end when it has nothing more to do. False if it was asked before.
    pub(crate) fn stop(&mut self) -> bool {
        let first = !std::mem::replace(&mut self.stopped, true);
        if first {
            self.send(&ToWorker::Stop);
        }
        first
    }

    /// Whether it was asked to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Whether its process has said hello.
    pub(crate) fn is_up(&self) -> bool {
        self.info.up
    }

    /// Whether it has no run.
    pub(crate) fn is_idle(&self) -> bool {
        self.flights.is_empty()
    }

    /// A run is on its way: it can be claimed and recalled from now on.
    pub(crate) fn open(&mut self, now: u64, run: &Run) {
        let limit = run.tasks.len() as u32;
        self.page().open(run.id.seq, limit);
        self.flights.push_back(Flight {
            seq: run.id.seq,
            graph: run.graph,
            tasks: run.tasks.clone(),
            outputs: run.outputs.clone(),
            limit,
            assigned_ns: now,
            times: Vec::new(),
        });
        self.info.busy = true;
    }

    /// Takes back what of a run is not claimed, from `from` on. Returns the first task that came back, if the run is in
    /// flight; what its page says otherwise is not believed.
    pub(crate) fn recall(&mut self, seq: u32, from: u32) -> Option<u32> {
        let at = self.flights.iter().position(|flight| flight.seq == seq)?;
        let limit = self.page().recall(seq, from, &self.flights[at].outputs)?;
        let flight = &mut self.flights[at];
        flight.limit = flight.limit.min(limit);
        Some(flight.limit)
    }

    /// The object that a task of a run in flight makes, if the task was not taken back.
    pub(crate) fn object(&self, seq: u32, index: u32) -> Option<ObjectId> {
        let flight = self.flights.iter().find(|flight| flight.seq == seq).filter(|flight| index < flight.limit)?;
        Some(ObjectId { graph: flight.graph, index: *flight.tasks.get(index as usize)? })
    }

    /// Its oldest run got on by `tasks`, which took these times, and may have ended. Then the record of it is returned.
    pub(crate) fn progressed(&mut self, now: u64, tasks: u64, times: &Bytes, ended: bool) -> Option<PastRun> {
        self.info.tasks += tasks;
        if !times.is_empty() {
            if let Some(flight) = self.flights.front_mut() {
                // They must not keep the whole frame alive, nor be more than its tasks can have.
                let had: usize = flight.times.iter().map(Bytes::len).sum();
                let room = (flight.tasks.len() * Times::MOST_OF_A_TASK).saturating_sub(had);
                flight.times.push(Bytes::copy_from_slice(&times[..times.len().min(room)]));
            }
        }
        if !ended {
            return None;
        }
        self.info.runs += 1;
        let flight = self.flights.pop_front();
        self.info.busy = !self.flights.is_empty();
        flight.map(|flight| self.past_run(flight, now))
    }

    fn past_run(&self, flight: Flight, ended_ns: u64) -> PastRun {
        let Flight { seq, graph, tasks, limit, assigned_ns, times, .. } = flight;
        PastRun { worker: self.info.id, pid: self.info.pid, seq, graph, tasks, limit, assigned_ns, ended_ns, times }
    }

    /// Its runs, as far as they have got.
    pub(crate) fn past_runs(&self, now: u64) -> impl Iterator<Item = PastRun> + '_ {
        self.flights.iter().map(move |flight| self.past_run(flight.clone(), now))
    }

    pub(crate) fn up(&mut self, pid: u32) {
        self.info.pid = pid;
        self.info.up = true;
    }

    /// How far it is.
    pub(crate) fn sample(&self, id: WorkerId, now_ns: u64) -> FromNode {
        let page = self.page();
        let claimed = self.flights.iter().map(|flight| {
            let all = flight.tasks.len() as u32;
            (flight.seq, page.progress(flight.seq).map_or(all, |(next, _)| next))
        });
        let claimed = claimed.collect();
        let running_ns = page.running().map(|running| now_ns.saturating_sub(running.started_ns));
        FromNode::Sampled { worker: id, claimed, running_ns }
    }

    /// Whether its page says that it runs this task.
    pub(crate) fn runs(&self, seq: u32, index: u32) -> bool {
        self.running() == Some((seq, index))
    }

    /// Whether its page says that this is the last task it has claimed: it runs, or will in a moment.
    pub(crate) fn will_run(&self, seq: u32, index: u32) -> bool {
        let claimed = self.page().progress(seq).is_some_and(|(next, _)| next == index + 1);
        let before = self.running().is_none_or(|(run, at)| run != seq || at <= index);
        claimed && before && self.flights.iter().any(|flight| flight.seq == seq)
    }

    /// What is counted of it.
    pub(crate) fn info(&self) -> &WorkerInfo {
        &self.info
    }

    /// The task its page names, and since when it runs.
    pub(crate) fn runs_now(&self) -> Option<(u32, u32, u64)> {
        let since = self.page().running()?.started_ns;
        self.running().map(|(seq, index)| (seq, index, since))
    }

    /// The task its page names: run and place.
    fn running(&self) -> Option<(u32, u32)> {
        let running = self.page().running()?;
        let same = |seq: u32| seq & 0xff_ffff == running.seq;
        self.flights.iter().find(|flight| same(flight.seq)).map(|flight| (flight.seq, running.index))
    }

    /// Whether it is listened to: one that is being ended for a fault is not.
    fn is_heard(&self) -> bool {
        !self.gone && self.fault.is_none()
    }

    /// Reads what is there, up to a limit: it is handled before more is taken in, and others have their turn.
    fn read(&mut self) {
        for _ in 0..MOST_FILLS {
            match self.reader.fill(false) {
                Ok(true) if self.reader.was_filled() => {}
                Ok(_) => return,
                Err(error) => {
                    if let SocketError::Wire(error) = error {
                        self.malformed = Some(error);
                    }
                    self.gone = true;
                    return;
                }
            }
        }
    }

    /// Has it read what is urgent, if all of that is written: it looks once.
    fn request(&mut self) {
        if self.urgent && self.writer.is_empty() {
            self.urgent = false;
            self.page().request();
        }
    }

    /// Writes what is queued as far as the socket takes it.
    fn write(&mut self, watch: &Watch, id: WorkerId) {
        if self.gone {
            return;
        }
        let written = self.writer.flush(false);
        let watched = match written {
            Ok(all) if all == self.full => {
                self.full = !all;
                watch.room(self.reader.socket(), Source::Worker(id.0), !all).map_err(SocketError::from)
            }
            other => other.map(|_| ()),
        };
        if let Err(error) = watched {
            if !matches!(error, SocketError::Gone) {
                tracing::error!(%error, "writing to a worker");
            }
            self.gone = true;
        }
        self.request();
    }
}

/// A template process.
#[derive(Debug)]
struct Slot {
    /// Its number in this pool.
    id: u32,
    template: Template,
    /// How often it has still to say that it is ready, until workers are forked from it.
    pending: u32,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Pool {
    watch: Watch,
    argv: Vec<OsString>,
    /// What is done to the command of a template.
    setup: fn(&mut Command),
    /// The environment of templates, and
    environment: Vec<(OsString, OsString)>,
    /// their directory: those of the driver when the session began, whenever they are started.
    directory: Option<PathBuf>,
    /// At most two, the bare one first: it forks the first workers at once, while the second imports what later ones
    /// should have. A template that imports neither forks nor reaps, so that must not be the only one.
    templates: Vec<Slot>,
    started: u32,
    /// Modules that workers forked later should have.
    preload: Vec<String>,
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    heard: Vec<(u32, FromTemplate)>,
    /// The last workers that have ended.
    past: VecDeque<(WorkerInfo, Death)>,
}

impl Pool {
    /// A pool without processes. The template is started with the first worker, in the present environment and this
    /// besides.
    pub(crate) fn new(
        watch: Watch,
        argv: Vec<OsString>,
        setup: fn(&mut Command),
        beside: Vec<(OsString, OsString)>,
        preload: Vec<String>,
    ) -> Self {
        Self {
            watch,
            argv,
            setup,
            environment: std::env::vars_os().chain(beside).collect(),
            directory: std::env::current_dir().ok(),
            templates: Vec::new(),
            started: 0,
            preload,
            workers: BTreeMap::new(),
            heard: Vec::new(),
            past: VecDeque::new(),
        }
    }

    fn start_template(&mut self, pending: u32) -> std::io::Result<&Slot> {
        let template = Template::start(&self.argv, self.setup, &self.environment, self.directory.as_deref())?;
        self.started += 1;
        self.watch.add(template.socket(), Source::Template(self.started))?;
        tracing::debug!(template = self.started, pid = template.pid(), "a template process starts");
        self.templates.push(Slot { id: self.started, template, pending });
        Ok(&self.templates[self.templates.len() - 1])
    }

    /// The template to fork from.
    fn current(&mut self) -> std::io::Result<&Slot> {
        match self.templates.iter().rposition(|slot| slot.pending == 0) {
            Some(at) => Ok(&self.templates[at]),
            // It need not be ready: what it is asked waits in its socket.
            None => self.start_template(0),
        }
    }

    /// Whether the next worker needs a new template process.
    pub(crate) fn needs_template(&self) -> bool {
        self.templates.iter().all(|slot| slot.pending > 0)
    }

    /// Starts a worker. What goes wrong is reported as its end.
    pub(crate) fn start(&mut self, id: WorkerId) -> Result<(), Death> {
        let failed = |what: &str, error: &dyn std::fmt::Display| -> Death {
            End::NeverStarted(format!("{what}: {error}").into()).into()
        };
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(|e| failed("socket", &e))?;
        let (words, page) = Words::create().map_err(|e| failed("control page", &e))?;
        let slot = self.current().map_err(|e| failed("the template process does not start", &e))?;
        slot.template.fork(id, &theirs, &page).map_err(|e| failed("the template process does not fork", &e))?;
        let template = slot.id;
        self.watch.add(&ours, Source::Worker(id.0)).map_err(|e| failed("socket", &e))?;
        let ours = Arc::new(ours);
        let worker = Worker {
            reader: Reader::new(Arc::clone(&ours)),
            writer: Writer::new(ours),
            words,
            template,
            flights: VecDeque::new(),
            stopped: false,
            gone: false,
            fault: None,
            full: false,
            malformed: None,
            urgent: false,
            info: WorkerInfo { id: id.0, pid: 0, up: false, busy: false, runs: 0, tasks: 0, alive: true },
        };
        self.workers.insert(id, worker);
        Ok(())
    }

    /// While nothing is to be done: has a second template import what later workers should have, and, when it is ready,
    /// names the workers that were forked before. That needs a new template process, if [`Pool::wants_preload`].
    pub(crate) fn rest(&mut self) -> Vec<WorkerId> {
        if self.wants_preload() {
            self.preload();
        }
        match &self.templates[..] {
            [.., bare, warm] if warm.pending == 0 => {
                let old = self.workers.iter().filter(|(_, worker)| worker.template == bare.id && worker.info.up);
                old.map(|(&id, _)| id).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whether it is time for the second template.
    pub(crate) fn wants_preload(&self) -> bool {
        !self.preload.is_empty() && self.workers.values().all(|worker| worker.info.up)
    }

    /// Starts the second template, once.
    fn preload(&mut self) {
        let modules = std::mem::take(&mut self.preload);
        // Ready to be told, and ready with that.
        let asked = self.start_template(2).and_then(|slot| Ok(slot.template.preload(&modules)?));
        if let Err(error) = asked {
            tracing::warn!(%error, "no template process with the driver's modules");
        }
    }

    /// Ends a worker; its exit follows.
    pub(crate) fn kill(&mut self, id: WorkerId, fault: Option<Arc<str>>) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.fault = worker.fault.take().or(fault);
            if let Some(slot) = self.templates.iter().find(|slot| slot.id == worker.template) {
                // A template that is gone is noticed by its end of file.
                let _ = slot.template.kill(id, SIGKILL);
            }
        }
    }

    /// Interrupts what a worker does.
    pub(crate) fn interrupt(&self, id: WorkerId) {
        let Some(worker) = self.workers.get(&id) else { return };
        let Some(slot) = self.templates.iter().find(|slot| slot.id == worker.template) else { return };
        let pid = worker.info.pid;
        match signal::interrupt(slot.template.pid(), pid) {
            Ok(()) => tracing::debug!(worker = id.0, pid, "a task is interrupted"),
            // It has ended, as its template will say.
            Err(errno) => tracing::debug!(worker = id.0, pid, %errno, "a worker cannot be interrupted"),
        }
    }

    /// Reads and writes what can be.
    pub(crate) fn handle(&mut self, ready: Source) {
        match ready {
            Source::Worker(id) => {
                let id = WorkerId(id);
                let Some(worker) = self.workers.get_mut(&id) else { return };
                if worker.is_heard() {
                    worker.read();
                    if worker.full {
                        worker.write(&self.watch, id);
                    }
                }
                if !worker.is_heard() {
                    self.watch.remove(worker.reader.socket());
                }
            }
            Source::Template(id) => {
                let Some(slot) = self.templates.iter().find(|slot| slot.id == id) else { return };
                while let Some(message) = slot.template.receive() {
                    let gone = message == FromTemplate::Gone;
                    self.heard.push((id, message));
                    if gone {
                        self.watch.remove(slot.template.socket());
                        return;
                    }
                }
            }
        }
    }

    /// Workers whose process has ended since this was last asked, and how. What they wrote can still be read, until
    /// [`Pool::remove`].
    pub(crate) fn exits(&mut self) -> Vec<(WorkerId, Death)> {
        let mut exits = Vec::new();
        for (template, message) in std::mem::take(&mut self.heard) {
            match message {
                FromTemplate::Ready => {
                    if let Some(slot) = self.templates.iter_mut().find(|slot| slot.id == template) {
                        slot.pending = slot.pending.saturating_sub(1);
                        tracing::debug!(template, waits_for = slot.pending, "a template process is ready");
                    }
                }
                FromTemplate::Started { worker, pid } => {
                    if let Some(worker) = self.workers.get_mut(&worker) {
                        worker.info.pid = pid;
                    }
                }
                FromTemplate::Exited { worker, death } => {
                    // Of others it knows nothing.
                    if self.workers.get(&worker).is_some_and(|known| known.template == template) {
                        exits.push((worker, death));
                    }
                }
                FromTemplate::Error(text) => tracing::error!(text, "template process"),
                FromTemplate::Gone => {
                    let Some(at) = self.templates.iter().position(|slot| slot.id == template) else { continue };
                    tracing::warn!("a template process has ended, and its workers with it; another takes its place");
                    let (ended, template_pid) = self.templates.remove(at).template.stop();
                    // They end with it; nobody is left to say how.
                    let orphans = self.workers.iter().filter(|(_, worker)| worker.template == template);
                    let end = End::NeverStarted(format!("its template process ended ({ended})").into());
                    exits.extend(orphans.map(|(&id, worker)| {
                        // A worker that was not forked yet has written nothing; the template may have said why.
                        let pid = if worker.info.pid == 0 { template_pid } else { worker.info.pid };
                        (id, Death { pid, ..end.clone().into() })
                    }));
                }
            }
        }
        for (id, _) in &exits {
            if let Some(worker) = self.workers.get_mut(id) {
                while worker.fault.is_none() && matches!(worker.reader.fill(false), Ok(true)) {}
            }
        }
        exits
    }

    /// Forgets a worker whose process has ended. Returns how it did, and the task it was running.
    pub(crate) fn remove(&mut self, id: WorkerId, death: Death) -> (Death, Option<(u32, u32)>) {
        let Some(mut worker) = self.workers.remove(&id) else { return (death, None) };
        // That it is closed here does not do: a process that the user forked has it, too.
        self.watch.remove(worker.reader.socket());
        let running = worker.running();
        worker.info.alive = false;
        worker.info.busy = false;
        if self.past.len() == MOST_PAST {
            self.past.pop_front();
        }
        let end = worker.fault.map_or(death.end, End::Protocol);
        let death = Death { end, ..death };
        self.past.push_back((worker.info, death.clone()));
        self.stop_unused_template();
        (death, running)
    }

    /// The bare template ends with its last worker, if there is a better one.
    fn stop_unused_template(&mut self) {
        if let [bare, warm] = &self.templates[..] {
            if warm.pending == 0 && self.workers.values().all(|worker| worker.template != bare.id) {
                let bare = self.templates.remove(0).template;
                self.watch.remove(bare.socket());
                bare.stop();
            }
        }
    }

    /// The next frame of a worker. One that is being ended for a fault is not listened to any more.
    pub(crate) fn frame(&mut self, id: WorkerId) -> Result<Option<Bytes>, WireError> {
        match self.workers.get_mut(&id) {
            Some(worker) if worker.fault.is_none() => match worker.reader.frame()? {
                None => worker.malformed.take().map_or(Ok(None), Err),
                frame => Ok(frame),
            },
            _ => Ok(None),
        }
    }

    /// Writes what is queued for the workers. Returns how many frames that were.
    pub(crate) fn flush(&mut self) -> u64 {
        let mut frames = 0;
        for (&id, worker) in &mut self.workers {
            frames += worker.writer.take_frames();
            if !worker.writer.is_empty() && !worker.full {
                worker.write(&self.watch, id);
            }
        }
        frames
    }

    /// All workers there are and were.
    pub(crate) fn infos(&self) -> Vec<WorkerInfo> {
        let past = self.past.iter().map(|(info, _)| info.clone());
        past.chain(self.workers.values().map(|w| w.info.clone())).collect()
    }

    /// The last workers that have ended, and how they did.
    pub(crate) fn past(&self) -> impl Iterator<Item = &(WorkerInfo, Death)> + '_ {
        self.past.iter()
    }

    /// Ends all processes and waits for that.
    pub(crate) fn stop(&mut self) {
        for slot in self.templates.drain(..) {
            slot.template.stop();
        }
        self.workers.clear();
    }
}
